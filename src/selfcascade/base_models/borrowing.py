"""Temporary changes to a pipeline object during a stage: attributes, hooks, and a caching prompt encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Stage

# Attribute by which a class made by `selfcascade.apply` names the class that it stands for.
CARRIER = "_selfcascade_stands_for"
_ABSENT = object()
P = ParamSpec("P")
Result = TypeVar("Result")


def stage_attributes(pipe: Pipeline, stage: Stage) -> dict[str, object]:
    """Attributes, besides the scheduler, that a pipeline has during a stage: its progress bar's text, no FreeInit."""
    config = dict(getattr(pipe, "_progress_bar_config", {}))
    if stage.count > 1:
        config = {"desc": f"stage {stage.index} of {stage.count - 1}, {stage.size}", **config}
    attributes: dict[str, object] = {"_progress_bar_config": config}
    if stage.pivot_step is not None and getattr(pipe, "_free_init_num_iters", None) is not None:
        attributes["_free_init_num_iters"] = None  # it would start again from pure noise; the base stage has had it
    return attributes


def plain_class(kind: type[Any]) -> type[Any]:
    """The pipeline's own class, even after `selfcascade.apply` has replaced it."""
    return vars(kind).get(CARRIER, kind)


@contextlib.contextmanager
def replacing_attributes(owner: object, attributes: Mapping[str, object]) -> Generator[None]:
    """Sets attributes on a pipeline object or module within this context; restored afterwards."""
    held = vars(owner)
    before = {name: held.get(name, _ABSENT) for name in attributes}
    held.update(attributes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                held.pop(name, None)
            else:
                held[name] = value


@contextlib.contextmanager
def restored_on_failure(denoiser: Any, vae: Any) -> Generator[None]:
    """Restores a denoiser's attention processors and a VAE's precision if an exception ends this context.

    Pipelines with PAG change the former during a call, and SDXL's the latter; an exception keeps them from undoing it.
    """
    processors, dtype = dict(getattr(denoiser, "attn_processors", {})), getattr(vae, "dtype", None)
    try:
        yield
    except BaseException:
        now = getattr(denoiser, "attn_processors", {})
        if any(now.get(name) is not own for name, own in processors.items()):
            denoiser.set_attn_processor(processors)  # it empties the mapping
        if dtype is not None and vae.dtype != dtype:
            vae.to(dtype)
        raise


@contextlib.contextmanager
def hooks_in_place(handles: Iterable[RemovableHandle]) -> Generator[None]:
    """Keeps hooks on their modules within this context, and removes them afterwards.

    Args:
        handles: The hooks' handles. If this is a generator that registers the hooks one by one and fails, those already
            registered are removed too.
    """
    with contextlib.ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def remembering(encode_prompt: Callable[P, Result]) -> Callable[P, Result]:
    """`encode_prompt`, run only once for equal arguments: all stages share the prompt."""
    known: list[tuple[tuple[object, ...], dict[str, object], Result]] = []

    def remembered(*args: P.args, **kwargs: P.kwargs) -> Result:
        for old_args, old_kwargs, result in known:
            if same_values(args, old_args) and same_values(kwargs, old_kwargs):
                return result
        result = encode_prompt(*args, **kwargs)
        known.append((args, kwargs, result))
        return result

    return remembered


def same_values(a: object, b: object) -> bool:
    """Whether two arguments are equal; tensors and containers are compared by their values."""
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        first, second = cast("dict[object, object]", a), cast("dict[object, object]", b)
        return first.keys() == second.keys() and all(same_values(first[key], second[key]) for key in first)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        items, others = cast("Sequence[object]", a), cast("Sequence[object]", b)
        return len(items) == len(others) and all(map(same_values, items, others))
    plain = (str, int, float, torch.device, torch.dtype)
    return isinstance(a, plain) and type(a) is type(b) and a == b
