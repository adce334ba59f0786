"""`apply` makes a pipeline's own call a cascade; `remove` undoes it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from selfcascade.base_models.borrowing import CARRIER, plain_class
from selfcascade.base_models.family import Family
from selfcascade.base_models.protocols import Pipeline
from selfcascade.options.checks import OptionError
from selfcascade.pipeline.calls import read_call
from selfcascade.pipeline.cascade_pipeline import SelfCascade
from selfcascade.upsamplers.model import FeatureUpsamplers

P = TypeVar("P", bound=Pipeline)
SIZES = frozenset({"height", "width", "scale", "pixels"})
EXCLUSIVE = ({"strength", "pivot_step"}, {"pivot_upscaler", "max_memory"})


def apply(
    pipe: P,
    upsamplers: FeatureUpsamplers | None = None,
    native_size: Sequence[int] | None = None,
    family: type[Family] | None = None,
    **options: object,
) -> P:
    """Makes `pipe(...)` a cascade: it returns what `SelfCascade(pipe)(...)` does, bit for bit, until `remove(pipe)`.

    Only the pipeline object changes: its class becomes a subclass of the same name. Applying again replaces the
    earlier settings.

    Args:
        pipe: A diffusers pipeline of a supported family.
        upsamplers, native_size, family: See `SelfCascade`.
        options: Default keywords of `SelfCascade.__call__` for every call: preset, scale, ... A call that gives any
            size ignores all sizes among these.

    Returns:
        The pipeline.

    Raises:
        ValueError: The pipeline is not supported, or an option is unknown or out of range.
    """
    cascade = SelfCascade(pipe, upsamplers, native_size, family)
    read_call(cascade.family, "__call__", options)
    _become(pipe, _applied_class(plain_class(type(pipe)), cascade, options))
    return pipe


def remove(pipe: P) -> P:
    """Makes `pipe(...)` the pipeline's own call again, as before `apply(pipe)`, and returns the pipeline.

    Raises:
        ValueError: `apply` was not called on this pipeline.
    """
    kind = plain_class(type(pipe))
    if kind is type(pipe):
        raise ValueError(f"pipe, a {kind.__name__}, has nothing to remove: selfcascade.apply(pipe) was not called")
    _become(pipe, kind)
    return pipe


def _become(pipe: Pipeline, kind: type) -> None:
    carrier: Any = pipe  # a protocol has no class that a type checker could see replaced
    carrier.__class__ = kind


def _applied_class(kind: type[Any], cascade: SelfCascade, options: dict[str, object]) -> type:
    """A subclass of the same name and call signature whose call runs the cascade."""
    signature = inspect.signature(kind.__call__)

    @functools.wraps(kind.__call__)
    def call(self: Pipeline, *args: object, **kwargs: object) -> object:
        if self is not cascade.pipe:
            raise ValueError("this pipeline is a copy of one that selfcascade.apply changed; apply it to the copy too")
        given = _by_name(signature, self, args, kwargs)
        sized = any(given.get(name) is not None for name in SIZES)
        left = {name: value for name, value in options.items() if given.get(name) is None}
        own = {name: value for name, value in left.items() if not (sized and name in SIZES)}
        for pair in EXCLUSIVE:  # what a call gives replaces a default that does not go with it
            if any(given.get(name) is not None for name in pair):
                own = {name: value for name, value in own.items() if name not in pair}
        run = cast("Callable[..., object]", cascade)
        return run(given.pop("prompt", None), **{**given, **own})

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__, CARRIER: kind})


def _by_name(
    signature: inspect.Signature, pipe: Pipeline, args: tuple[object, ...], kwargs: dict[str, object]
) -> dict[str, object]:
    """A call's arguments, by name."""
    names = [name for name in signature.parameters if name != "self"]
    if len(args) > len(names):
        raise OptionError(f"a call of {type(pipe).__name__} has at most {len(names)} positional arguments")
    placed = dict(zip(names, args, strict=False))
    for name in placed.keys() & kwargs.keys():
        raise OptionError(f"{{{name}}} is given twice, by its place and by its name")
    return {**placed, **kwargs}
