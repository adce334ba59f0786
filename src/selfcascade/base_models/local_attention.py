"""Self-attention within windows of the native size, for stages above the base: their cost is linear in pixels.

The pivot carries the composition, so a stage above the base needs attention mainly for texture. A self-attention module
runs unchanged, with its projections, rotary positions, adapters and processor. Only its call of
`scaled_dot_product_attention`, which processors of U-Nets and transformers have in common, is answered by
`windows.attend`. An instance attribute `forward`, which compiled blocks watch, activates a `TorchFunctionMode` for that
one call and thread.

Windows move by a quarter of their size from step to step, so that no border stays in place. No step follows the last
one to smooth its borders, so its windows are seamless, at twice the cost (docs/attention.md).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.self_attention import (
    PICTURE_FIRST,
    check_local,
    inner_network,
    is_unet,
    refusal,
    self_attention,
)
from selfcascade.base_models.windows import Grid, attend

Place = tuple[Grid, Grid, int]  # grid, window, tokens in front
Find = Callable[[int], Place | None]  # by the number of tokens

QUARTERS = 4
_ON_PIVOT: ContextVar[bool] = ContextVar("_ON_PIVOT", default=False)


class Steps:
    """Counts steps by the timesteps that networks are called with; all passes of one step share a timestep.

    Args:
        count: Returns the number of steps, called at each; None if it is unknown.

    Attributes:
        quarters: Quarters of a window by which windows are moved at this step.
        last: Whether this is the last step.
    """

    def __init__(self, count: Callable[[], int] | None = None) -> None:
        self.quarters, self.last = 0, False
        self._count, self._seen, self._timestep = count, 0, math.nan

    def see(self, timestep: Tensor) -> None:
        """Before a pass at this timestep, a number or one for each sample."""
        if timestep.is_meta:  # a cost estimate on shapes, the same at every step but the last
            return
        if float(timestep.max()) != self._timestep:
            self.quarters, self._timestep = self._seen % QUARTERS, float(timestep.max())
            self._seen += 1
            self.last = self._count is not None and self._seen == self._count()


class OneStep(Steps):
    """A single step, whose windows keep their place whatever timesteps its passes have, as in training.

    Args:
        number: Index of the step; windows are moved by number % 4 quarters.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.quarters = number % QUARTERS

    def see(self, timestep: Tensor) -> None:
        """Nothing moves."""


@contextlib.contextmanager
def pass_on_pivot() -> Generator[None]:
    """Within this context a U-Net is called with the pivot of the stage, not with the stage's own latents."""
    before = _ON_PIVOT.set(True)
    try:
        yield
    finally:
        _ON_PIVOT.reset(before)


@contextlib.contextmanager
def local_attention(network: nn.Module, grid: Grid, native: Grid, steps: Steps | None = None) -> Generator[None]:
    """Within this context the picture's tokens attend to a window of the native size, and to text as before.

    If no axis of the grid is longer than the native one, nothing changes. Weights, processors and hooks are never
    changed; the modules are restored afterwards, also after an exception. A `pass_on_pivot`, whose skip
    features are read, is no step: windows have the native size in it too, and are where they are at the first.

    Args:
        network: A conditional U-Net, a diffusion transformer, or a ControlNet of either.
        grid: The stage's tokens: latent pixels for a U-Net, which halves them from level to level, and patches for a
            transformer. A U-Net attends to frames one by one, so its grid has 1 frame.
        native: The base stage's tokens, likewise.
        steps: Counter of the stage's steps, shared by all its networks; None counts the network's own, without a last.

    Raises:
        ValueError: The network is not supported (`check_local`), or a module that runs does not attend to the grid.
    """
    check_local(network)
    if all(native[axis] >= grid[axis] for axis in range(3)):
        yield
        return
    running = _Pass(network, grid, native, steps or Steps())
    modules = self_attention(network)
    before = {module: vars(module).get("forward") for module in modules.values()}
    try:
        for name, module in modules.items():
            module.forward = _localised(module.forward, _Windows(running), name, module)
        with hooks_in_place([network.register_forward_pre_hook(running.begin, with_kwargs=True)]):
            yield
    finally:
        for module, own in before.items():
            if own is not None:
                module.forward = own
            elif "forward" in vars(module):
                del module.forward


def attend_at_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Place,
    quarters: int,
    last: bool,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """`windows.attend` with the windows of a step; those of the last step are seamless.

    Args:
        query, key, value, mask, options: See `windows.attend`.
        place: Grid of the picture's tokens, their window, and the tokens in front of them.
        quarters, last: See `Steps`.
    """
    grid, window, before = place
    moved = ((wide, long, wide * quarters // QUARTERS) for wide, long in zip(window, grid, strict=True))
    shift = Grid(*(0 if wide == long else by for wide, long, by in moved))
    return attend(query, key, value, grid, window, shift, before, mask, seamless=last, **options)


class _Pass:
    """The pass that runs: the places of its tokens, and whether it is of the stage rather than of a smaller pivot."""

    def __init__(self, network: nn.Module, grid: Grid, native: Grid, steps: Steps) -> None:
        self.names = [*inspect.signature(inner_network(network).forward).parameters]
        self.native, self.steps = native, steps
        self.stage = _levels(network, grid, native).get if is_unet(network) else _sequence(network, grid, native)
        self.find, self.is_local, self.is_step = self.stage, True, True

    def begin(self, network: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forward pre-hook."""
        arguments = dict(zip(self.names, given, strict=False)) | named
        self.is_step = not _ON_PIVOT.get()
        if self.is_step:
            self.find, self.is_local = self.stage, True
            self.steps.see(torch.as_tensor(arguments["t" if "t" in arguments else "timestep"]))
            return
        grid = Grid(1, *arguments["sample"].shape[-2:])
        self.is_local = any(own > wide for own, wide in zip(grid, self.native, strict=True))
        self.find = (_levels(network, grid, self.native) if self.is_local else dict[int, Place]()).get


class _Windows(TorchFunctionMode):
    """Computes self-attention of tokens in a grid; `met` tells whether there was any."""

    def __init__(self, running: _Pass) -> None:
        super().__init__()
        self.running, self.met = running, False

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attention(*args, **(kwargs or {}))

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *given: Any, **options: Any
    ) -> Tensor:
        options |= dict(zip(("dropout_p", "is_causal", "scale", "enable_gqa"), given, strict=False))
        running = self.running
        place = running.find(query.shape[-2]) if query.ndim == 4 and query.shape[-2] == key.shape[-2] else None
        if place is None or options.get("is_causal"):
            return scaled_dot_product_attention(query, key, value, attn_mask, **options)
        self.met = True
        moved, last = (running.steps.quarters, running.steps.last) if running.is_step else (0, False)
        return attend_at_step(query, key, value, place, moved, last, attn_mask, **options)


def _localised(inner: Callable[..., Any], mode: _Windows, name: str, module: nn.Module) -> Callable[..., Any]:
    @functools.wraps(inner)
    def forward(*given: object, **named: object) -> object:
        with mode:
            made = inner(*given, **named)
        if not mode.met and mode.running.is_local:
            raise ValueError(refusal(f"{type(getattr(module, 'processor', module)).__name__} of {name}"))
        return made

    return forward


def places_of_levels(levels: int, grid: Grid, native: Grid) -> dict[int, Place]:
    """The grids and windows of a U-Net's levels, by their number of tokens; each level halves the one above.

    Args:
        levels: Number of levels.
        grid: The first level's grid, in latent pixels; frames are attended to one by one.
        native: The first level's window, in latent pixels.
    """
    places: dict[int, Place] = {}
    for _ in range(levels):
        frame = Grid(1, grid.height, grid.width)
        places[frame.tokens] = (frame, _within(frame, native), 0)
        grid, native = (Grid(1, math.ceil(each.height / 2), math.ceil(each.width / 2)) for each in (grid, native))
    return places


def _levels(unet: nn.Module, grid: Grid, native: Grid) -> dict[int, Place]:
    return places_of_levels(len(cast("nn.ModuleList", inner_network(unet).down_blocks)), grid, native)


def _sequence(transformer: nn.Module, grid: Grid, native: Grid) -> Find:
    first = bool({kind.__name__ for kind in type(inner_network(transformer)).__mro__} & PICTURE_FIRST)
    window = _within(grid, native)

    def find(tokens: int) -> Place | None:
        others = tokens - grid.tokens
        return None if others < 0 else (grid, window, 0 if first else others)

    return find


def _within(grid: Grid, native: Grid) -> Grid:
    return Grid(*(min(sides) for sides in zip(grid, native, strict=True)))
