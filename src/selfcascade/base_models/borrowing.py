"""What a pipeline is lent for a stage and gives back: attributes, and a prompt encoder that remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Stage

_ABSENT = object()


def stage_attributes(pipe: Pipeline, stage: Stage) -> dict[str, Any]:
    """Attributes that a pipeline has during a stage beside the scheduler: what its progress bar says, no FreeInit."""
    config = dict(getattr(pipe, "_progress_bar_config", {}))
    if stage.count > 1:
        config = {"desc": f"stage {stage.index} of {stage.count - 1}, {stage.size}", **config}
    attributes: dict[str, Any] = {"_progress_bar_config": config}
    if stage.pivot_step is not None and getattr(pipe, "_free_init_num_iters", None) is not None:
        attributes["_free_init_num_iters"] = None  # it would start again from pure noise; the base stage has had it
    return attributes


@contextlib.contextmanager
def replacing_attributes(pipe: Pipeline, attributes: Mapping[str, Any]) -> Iterator[None]:
    """With it the pipeline object has these attributes; afterwards it has its own, or none, as before."""
    held = vars(pipe)
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


def remembering(encode_prompt: Callable[..., Any]) -> Callable[..., Any]:
    """`encode_prompt` that runs once for the same arguments: all stages share the prompt."""
    known: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def remembered(*args: Any, **kwargs: Any) -> Any:
        for old_args, old_kwargs, result in known:
            if _same(args, old_args) and _same(kwargs, old_kwargs):
                return result
        result = encode_prompt(*args, **kwargs)
        known.append((args, kwargs, result))
        return result

    return remembered


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a is b or (isinstance(a, (str, int, float, torch.device, torch.dtype)) and type(a) is type(b) and a == b)
