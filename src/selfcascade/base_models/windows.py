"""Attention of each token to a window of fixed size, and to tokens outside the grid: linear in pixels.

Axis letters: B images, H heads, D channels of a head, F frames, h, w tokens of a frame, N = F h w tokens of a picture,
S tokens of the sequence, W windows side by side.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class Grid(NamedTuple):
    """Tokens of a picture or clip along each axis, in the order of the sequence: frames, then rows, then columns."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """N, the number of tokens."""
        return self.frames * self.height * self.width


class Spans(NamedTuple):
    """An axis cut into blocks of queries, each within a window of keys.

    Attributes:
        block: Number of queries in a block.
        window: Number of keys for a block, at least as many.
        starts: First query and first key of each block. If blocks do not divide the axis, the last one starts early
            enough to be whole, and shares queries with the one before.
    """

    block: int
    window: int
    starts: tuple[tuple[int, int], ...]


def spans(length: int, window: int) -> Spans:
    """Cuts an axis into as few blocks as possible, centred in their windows; at the ends windows move inwards.

    Args:
        length: Number of tokens along the axis.
        window: Number of keys for a block, at least 1; from `length` on, one block covers the whole axis.
    """
    if window >= length:
        return Spans(length, length, ((0, 0),))
    block = math.ceil(length / math.ceil(length / window))
    firsts = (min(first, length - block) for first in range(0, length, block))
    around = ((first, min(max(0, (2 * first + block - window) // 2), length - window)) for first in firsts)
    return Spans(block, window, tuple(around))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: Grid,
    window: Grid,
    shift: Grid = Grid(0, 0, 0),  # noqa: B008 - a constant
    before: int = 0,
    mask: Tensor | None = None,
    seamless: bool = False,
    **options: Any,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, where a token of the picture sees its window and all tokens outside the grid.

    Windows side by side are a batch of plain attention, for any fused kernel. A shift moves them round the picture's
    edges, as in the Swin transformer: its first and last tokens can then share a window. Tokens outside the grid, text
    above all, see everything and are seen by all.

    Args:
        query, key, value: (B, H, S, D), positions applied; S >= N.
        grid: Grid of the picture's tokens.
        window: Number of keys along each axis that a token sees.
        shift: Number of tokens by which windows are moved along each axis.
        before: Number of tokens in front of the picture's; the remaining ones follow it.
        mask: A mask for `scaled_dot_product_attention`, broadcast to (B, H, S, S).
        seamless: Whether windows are used in two places, half a block apart, each weighted by the distance from its
            borders. Borders of one place lie in the middle of the other's blocks. It costs twice as much.
        options: Options of `scaled_dot_product_attention`.

    Returns:
        (B, H, S, D); if no window is smaller than the grid, bit for bit what `scaled_dot_product_attention` gives.
    """
    if all(wanted >= given for wanted, given in zip(window, grid, strict=True)):
        return scaled_dot_product_attention(query, key, value, mask, **options)
    at_place = functools.partial(_attend_at, query, key, value, grid, window, before=before, mask=mask, options=options)
    if not seamless:
        return at_place(shift)
    apart = (spans(*sides).block // 2 if sides[1] < sides[0] else 0 for sides in zip(grid, window, strict=True))
    moved = Grid(*((by + half) % length for by, half, length in zip(shift, apart, grid, strict=True)))
    own, other = (_nearness(grid, window, place, query.device) for place in (shift, moved))
    weight = torch.ones(query.shape[2], device=query.device)
    weight[before : before + grid.tokens] = own / (own + other)
    first = at_place(shift)
    return torch.lerp(at_place(moved), first, weight.to(first.dtype)[:, None])


def _attend_at(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: Grid,
    window: Grid,
    shift: Grid,
    before: int,
    mask: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """`attend` with the windows in one place."""
    places = slice(before, before + grid.tokens)
    numbers = torch.arange(query.shape[2], device=query.device)
    rest = torch.cat([numbers[:before], numbers[places.stop :]])
    placed = _moved(numbers[places].view(1, 1, *grid, 1), shift, -1)
    pictures = (x[:, :, places].view(*x.shape[:2], *grid, x.shape[-1]) for x in (query, key, value))
    queries, keys, values = (_moved(x, shift, -1) for x in pictures)
    other_keys, other_values = (x[:, :, rest] for x in (key, value))
    made = values.new_empty(*queries.shape[:-1], values.shape[-1])  # (B, H, F, h, w, D)
    frames, heights, widths = (spans(*sides) for sides in zip(grid, window, strict=True))
    columns, key_columns = zip(*widths.starts, strict=True)
    for (frame, key_frame), (row, key_row) in itertools.product(frames.starts, heights.starts):
        blocks = _Row(frame, row, columns, frames.block, heights.block, widths.block)
        around = _Row(key_frame, key_row, key_columns, frames.window, heights.window, widths.window)
        seen = _followed(around.of(keys), other_keys), _followed(around.of(values), other_values)
        allowed = None
        if mask is not None:
            tokens = _followed(around.of(placed), rest.view(1, 1, -1, 1))[:, 0, :, 0]
            allowed = _of_windows(mask, blocks.of(placed)[:, 0, :, 0], tokens, len(query))
        blocks.put(made, scaled_dot_product_attention(blocks.of(queries), seen[0], seen[1], allowed, **options))
    picture = _moved(made, shift, 1).flatten(2, 4)
    if not len(rest):
        return picture
    own = mask if mask is None or mask.shape[-2] == 1 else mask[..., rest, :]
    others = scaled_dot_product_attention(query[:, :, rest], key, value, own, **options)
    return torch.cat([others[:, :, :before], picture, others[:, :, before:]], 2)


def _nearness(grid: Grid, window: Grid, shift: Grid, device: torch.device) -> Tensor:
    """Nearness of each token to the middle of its block, (N,): almost 0 at borders, almost 1 in the middle."""
    product = torch.ones((), device=device)
    for length, wide, by in zip(grid, window, shift, strict=True):
        block, _, starts = spans(length, wide)
        own = 1 - (2 * (torch.arange(block, device=device) + 0.5) / block - 1).abs()
        along = torch.ones(length, device=device)
        for first, _ in starts if len(starts) > 1 else ():
            along[first : first + block] = own
        product = product[..., None] * along.roll(by)
    return product.flatten()


class _Row(NamedTuple):
    """Blocks, or their windows, that lie side by side: the first frame and row, the first column of each, the sizes."""

    frame: int
    row: int
    columns: Sequence[int]
    frames: int
    height: int
    width: int

    def strip(self, picture: Tensor) -> Tensor:
        """(B, H, F, h, w, D) to the frames and rows that all of them share."""
        return picture[:, :, self.frame : self.frame + self.frames, self.row : self.row + self.height]

    def of(self, picture: Tensor) -> Tensor:
        """(B, H, F, h, w, D) to (W B, H, n, D)."""
        strip = self.strip(picture)
        return torch.cat([strip[..., column : column + self.width, :] for column in self.columns]).flatten(2, 4)

    def put(self, picture: Tensor, blocks: Tensor) -> None:
        """The inverse, into the picture."""
        parts = blocks.view(*blocks.shape[:2], self.frames, self.height, self.width, -1).chunk(len(self.columns))
        for column, part in zip(self.columns, parts, strict=True):
            self.strip(picture)[..., column : column + self.width, :] = part


def _moved(picture: Tensor, shift: Grid, sign: int) -> Tensor:
    """(B, H, F, h, w, D), rolled by the shift one way or the other."""
    return picture.roll([sign * by for by in shift], (2, 3, 4)) if any(shift) else picture


def _followed(windows: Tensor, others: Tensor) -> Tensor:
    """(W B, H, n, D), each with the tokens without a place, (B, H, m, D), behind its own."""
    if not others.shape[2]:
        return windows
    return torch.cat([windows, others.repeat(len(windows) // len(others), 1, 1, 1)], 2)


def _of_windows(mask: Tensor, queries: Tensor, keys: Tensor, batch: int) -> Tensor:
    """(B or 1, H or 1, S or 1, S) at the numbers (W, q) and (W, n): (W B, H or 1, q or 1, n)."""
    whole = mask[(None,) * (4 - mask.ndim)]
    rows = queries[:, :, None] if whole.shape[-2] > 1 else torch.zeros_like(queries[:, :1, None])
    entries = whole[:, :, rows, keys[:, None]]  # (B or 1, H or 1, W, q or 1, n)
    return entries.movedim(2, 0).expand(-1, batch, -1, -1, -1).flatten(0, 1)
