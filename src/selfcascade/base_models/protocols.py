"""Protocols for the parts of a diffusers pipeline, whose classes are only known at run time."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Pipeline(Protocol):
    """A diffusers pipeline; what only its class has is found at run time."""

    @property
    def components(self) -> dict[str, Any]:
        """Models, tokenizers and scheduler, by name."""
        ...

    def __getattr__(self, name: str, /) -> Any:
        """A component, a method or a setting of its class."""
        ...


class Scheduler(Protocol):
    """A diffusers scheduler."""

    @property
    def config(self) -> Any:
        """The content of `scheduler_config.json`: a mapping whose keys are also attributes."""
        ...

    @property
    def timesteps(self) -> Tensor:
        """Timesteps of the schedule, (n,), falling."""
        ...

    def __getattr__(self, name: str, /) -> Any:
        """A method or a setting of its class."""
        ...


class Network(Protocol):
    """A network of a pipeline, such as its U-Net."""

    def __getattr__(self, name: str, /) -> Any:
        """A block or a setting of its class."""
        ...
