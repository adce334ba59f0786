"""The interface of methods, the options that they take, and the registry for others to add theirs."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, final

from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Size
from selfcascade.options import Options, uses
from selfcascade.options.checks import joined, shown
from selfcascade.options.methods import METHOD_OPTIONS, MethodOptions
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.calls import SelfCascadeOutput


@dataclass(frozen=True)
class MethodRequest:
    """A request to a method.

    Attributes:
        pipe: The base model's pipeline, which is left unchanged.
        prompt: One prompt or several.
        target: Size of the pictures.
        native_size: (height, width) in pixels the model was trained at; None asks the pipeline.
        arguments: Options that the method takes, and keywords for the pipeline; no value is None.
    """

    pipe: Pipeline
    prompt: str | list[str]
    target: Size
    native_size: Sequence[int] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @functools.cached_property
    def cascade(self) -> SelfCascade:
        """The cascade of this pipeline and native size."""
        return SelfCascade(self.pipe, native_size=self.native_size)

    def cascaded(self, arguments: Mapping[str, Any], cascade: SelfCascade | None = None) -> SelfCascadeOutput:
        """Runs a cascade to the target with these arguments; None uses the request's own cascade."""
        run = cast("Callable[..., SelfCascadeOutput]", self.cascade if cascade is None else cascade)
        return run(self.prompt, **self.target._asdict(), **arguments)

    def without(self, *names: str) -> dict[str, Any]:
        """The arguments except these."""
        return {name: value for name, value in self.arguments.items() if name not in names}


class Method(MethodOptions, ABC):
    """A way to reach a target size with a given pipeline, which is left unchanged.

    Attributes:
        name: Name in `METHODS` and on the command line.
        summary: Description in one line.
        from_base, takes, needs, cascade_needs: See `MethodOptions`. A class of the package has them from its entry
            there, `class Direct(Method, options="direct")`.
    """

    summary: str

    def __init_subclass__(cls, options: str | None = None) -> None:
        super().__init_subclass__()
        if options is not None:
            for name, value in vars(METHOD_OPTIONS[options]).items():
                setattr(cls, name, value)

    @final
    def __call__(
        self,
        pipe: Pipeline,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: Sequence[int] | None = None,
        **arguments: Any,
    ) -> SelfCascadeOutput:
        """Makes pictures or clips of the prompt.

        Args:
            pipe: A diffusers pipeline of a supported family.
            prompt: One prompt or several.
            height, width: Height and width of the pictures, in pixels.
            native_size: See `SelfCascade`.
            arguments: Options that the method takes (docs/options.md), and keywords for the pipeline. None counts as
                not given.

        Raises:
            OptionError: An option is not for this method, is missing, or is out of range.
            ValueError: The method cannot be used with this model.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        ours = {name: value for name, value in given.items() if name in uses() and uses()[name].passed}
        self.check(ours)
        Options(height=height, width=width, **{name: ours[name] for name in ours if not uses()[name].any_object})
        return self.make(MethodRequest(pipe, prompt, Size(height, width), native_size, given))

    @abstractmethod
    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """Makes the pictures of a request; its options are already checked."""


METHODS: dict[str, Method] = {}


def register_method(method: Method) -> Method:
    """Adds a method to `METHODS`, where commands, experiments and reports find it by name.

    Raises:
        ValueError: `method` is not a `Method`, its name is taken, or it takes an unknown option.
    """
    if not isinstance(method, Method):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"method must be an instance of a subclass of Method, not {method!r}")
    if not isinstance(method.name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", method.name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"method's name must be of small letters, digits and dashes, not {shown(method.name)}")
    if METHODS.get(method.name, method) is not method:
        raise ValueError(f"method {method.name!r} exists already; give yours another name")
    words = {use.taken_by for use in uses().values()}
    if unknown := sorted((method.takes | method.needs) - words - set(uses())):
        raise ValueError(f"method {method.name} takes {joined(unknown, 'and')}, which Options does not have")
    METHODS[method.name] = METHOD_OPTIONS[method.name] = method
    return method
