"""What attention in windows should equal: full attention under a mask that spells out who sees whom."""

import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from selfcascade.base_models.windows import Grid, spans

NO_SHIFT = Grid(0, 0, 0)


def along(length: int, window: int, shift: int) -> Tensor:
    """Whether a place of an axis sees another, (length, length)."""
    block, wide, starts = spans(length, window)
    sees = torch.zeros(length, length, dtype=torch.bool)
    for first, key in starts:  # where blocks overlap, the later one counts
        sees[first : first + block] = False
        sees[first : first + block, key : key + wide] = True
    return sees.roll((shift, shift), (0, 1))


def seen(grid: Grid, window: Grid, before: int, tokens: int, shift: Grid = NO_SHIFT) -> Tensor:
    """(S, S): a place in the grid sees its window, and all that has no place; that sees everything."""
    frames, rows, columns = (along(*sides) for sides in zip(grid, window, shift, strict=True))
    sees = torch.ones(tokens, tokens, dtype=torch.bool)
    places = slice(before, before + grid.tokens)
    sees[places, places] = frames.kron(rows).kron(columns)
    return sees


def tents(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """(N,): nearness of places to the middle of their windows, which divide the grid."""
    near = torch.ones(1)
    for length, wide, by in zip(grid, window, shift, strict=True):
        places = (torch.arange(length) - by) % wide
        near = near.kron(1 - (2 * (places + 0.5) / wide - 1).abs() if wide < length else torch.ones(length))
    return near


class MaskedAttention(TorchFunctionMode):
    """Within it self-attention of so many tokens has its mask; all other calls are as they were.

    Args:
        grids: By the number of tokens: grid, window, tokens in front.

    Attributes:
        met: Calls that were masked.
        step: By so many quarters windows are moved where they are smaller than the grid.
        last: The step with windows in two places; None: there is none.
    """

    def __init__(self, grids: dict[int, tuple[Grid, Grid, int]], last: int | None = None) -> None:
        super().__init__()
        self.grids, self.met, self.step, self.last = grids, 0, 0, last

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = {**dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)), **(kwargs or {})}
        tokens = named["query"].shape[-2]
        if tokens == named["key"].shape[-2] and tokens in self.grids:
            self.met += 1
            grid, window, before = self.grids[tokens]
            parted = [wide < long for wide, long in zip(window, grid, strict=True)]
            places = [self.step % 4 / 4] + ([self.step % 4 / 4 + 1 / 2] if self.step == self.last else [])
            shifts = [
                Grid(*(part * int(share * wide) for part, wide in zip(parted, window, strict=True))) for share in places
            ]
            mask, made = named.pop("attn_mask", None), []
            for shift in shifts:
                sees = seen(grid, window, before, tokens, shift)
                made.append(func(**named, attn_mask=sees if mask is None else sees & mask.bool()))
            if len(made) == 1 or not any(parted):
                return made[0]
            own, other = (tents(grid, window, shift) for shift in shifts)
            return made[1] + (own / (own + other))[:, None] * (made[0] - made[1])
        return func(**named)


def masks_of(
    network: Any, grid: Grid, native: Grid, picture_first: bool = False, last: int | None = None
) -> MaskedAttention:
    """The masks of all numbers of tokens that the network could have with up to 64 of text."""
    places: dict[int, tuple[Grid, Grid, int]] = {}
    for level in range(len(getattr(network, "down_blocks", ()))):
        own, window = (
            Grid(1, *(math.ceil(side / 2**level) for side in (each.height, each.width))) for each in (grid, native)
        )
        places[own.tokens] = (own, window, 0)
    for text in range(0 if places else 65):
        places[grid.tokens + text] = (grid, native, 0 if picture_first else text)
    return MaskedAttention(places, last)


@contextlib.contextmanager
def oracle(network: Any, grid: Grid, native: Grid, scheduler: Any = None, picture_first: bool = False) -> Iterator[Any]:
    """With it the network has these masks, moved at each step of the scheduler."""
    mask = masks_of(network, grid, native, picture_first)

    def stepped(*given: Any, **named: Any) -> Any:
        mask.step += 1
        return type(scheduler).step(scheduler, *given, **named)

    if scheduler is not None:
        scheduler.step = functools.wraps(scheduler.step)(stepped)
    try:
        with mask:
            yield mask
    finally:
        if scheduler is not None:
            del scheduler.step
