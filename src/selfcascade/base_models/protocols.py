"""What is asked of the parts of a diffusers pipeline, whose classes are only known when one is given."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Pipeline(Protocol):
    """A diffusers pipeline; what its class has beyond every pipeline is found at run time."""

    @property
    def components(self) -> dict[str, Any]:
        """Its models, tokenizers and scheduler by name."""
        ...

    def __getattr__(self, name: str, /) -> Any:
        """A component, a method or a setting of its class."""
        ...


class Scheduler(Protocol):
    """A diffusers scheduler."""

    @property
    def config(self) -> Any:
        """As in its `scheduler_config.json`: a mapping whose keys are attributes too."""
        ...

    @property
    def timesteps(self) -> Tensor:
        """Timesteps of the schedule, (n,), falling."""
        ...

    def __getattr__(self, name: str, /) -> Any:
        """A method or a setting of its class."""
        ...


class Network(Protocol):
    """A network of a pipeline, such as its U-Net; its class says which blocks there are."""

    def __getattr__(self, name: str, /) -> Any:
        """A block or a setting of its class."""
        ...
