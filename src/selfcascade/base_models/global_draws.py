"""PyTorch's global generator while a pipeline runs: some of diffusers' pipelines and schedulers draw from it.

ControlNets of SD 3 and Hunyuan-DiT encode their control with noise from there, and so do some schedulers of flows.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any, TypeVar

import torch

from selfcascade.base_models.request import Generators, cloned

Item = TypeVar("Item")
Made = TypeVar("Made")

_noticed: ContextVar[list[torch.device] | None] = ContextVar("noticed", default=None)
_DRAWING: weakref.WeakSet[Any] = weakref.WeakSet()  # pipelines that have drawn from a global generator


@contextlib.contextmanager
def seeded_by(generator: Generators | None, device: torch.device) -> Generator[None]:
    """Context in which global draws follow from the caller's generator. Afterwards all generators are as before.

    Args:
        generator: Source of the seed (`seed_of`); None leaves global draws alone.
        device: Where the pipeline runs. Its global generator and the CPU's are restored.
    """
    if generator is None:
        yield
        return
    with unmoved(device):
        seed = seed_of(generator)
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            with _current(device):
                _module(device).manual_seed(seed)
        before, noticed = _states(device), _noticed.get()
        yield
        if noticed is not None and not all(map(torch.equal, before, _states(device))):
            noticed.append(device)


def made_alike(pipe: Any, group: Sequence[Item], make: Callable[[Sequence[Item]], list[Made]]) -> list[Made]:
    """What `make` makes of a group, in one call of the pipeline unless that draws from a global generator.

    Such draws are for a whole batch. There each item is made alone, so that it does not depend on the others.
    """
    if len(group) == 1 or pipe not in _DRAWING:
        noticed = list[torch.device]()
        token = _noticed.set(noticed)
        try:
            made = make(group)
        finally:
            _noticed.reset(token)
        if len(group) == 1 or not noticed:
            return made
        _DRAWING.add(pipe)
    return [one for item in group for one in make([item])]


@contextlib.contextmanager
def unmoved(device: torch.device) -> Generator[None]:
    """Context that restores the global generators of the device and the CPU when it ends."""
    own = torch.get_rng_state()
    with _current(device):
        other = None if device.type == "cpu" else _module(device).get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(own)
        if other is not None:
            with _current(device):
                _module(device).set_rng_state(other)


def seed_of(generator: Generators) -> int:
    """The next integer below 2^63 of the generator (the first of a list), drawn from a copy."""
    first = cloned(generator[0] if isinstance(generator, list) else generator)
    return int(torch.randint(2**63 - 1, (), generator=first, device=first.device))


def _states(device: torch.device) -> list[torch.Tensor]:
    """The states of the CPU's global generator and of the device's."""
    with _current(device):
        other = [] if device.type == "cpu" else [_module(device).get_rng_state()]
    return [torch.get_rng_state(), *other]


def _module(device: torch.device) -> ModuleType:
    return torch.get_device_module(device)


def _current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context in which the device is the current one of its module (`torch.cuda`, for instance)."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
