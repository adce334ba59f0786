"""Attention of each token to a neighbourhood of fixed size and to the tokens that have no place: linear in pixels.

Axis letters: B images, H heads, D channels of a head, F frames, h, w tokens of a frame, N = F h w of them, S tokens in
all; W blocks of a row.
"""

from __future__ import annotations

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
        """N, all of them."""
        return self.frames * self.height * self.width


class Spans(NamedTuple):
    """An axis cut into blocks of queries, each with the keys around it.

    Attributes:
        block: Queries of a block.
        window: Keys of a block.
        starts: Of each block: its first query and its first key. Where blocks do not divide the axis, the last one
            begins early enough to be whole, and shares queries with the one before.
    """

    block: int
    window: int
    starts: tuple[tuple[int, int], ...]


def spans(length: int, window: int) -> Spans:
    """Blocks of at most half a window, each amid its window; at the borders windows are moved inwards, never padded.

    Args:
        length: Tokens of the axis.
        window: Keys of a block, at least 1; from `length` on there is one block, of the whole axis.
    """
    if window >= length:
        return Spans(length, length, ((0, 0),))
    block = math.ceil(length / math.ceil(length / max(1, window // 2)))
    firsts = (min(first, length - block) for first in range(0, length, block))
    around = ((first, min(max(0, (2 * first + block - window) // 2), length - window)) for first in firsts)
    return Spans(block, window, tuple(around))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid: Grid,
    window: Grid,
    before: int = 0,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V, where a token of the picture sees a window around it and all tokens without a place.

    Queries of a block share its window, as in ScaleDiff, so that each block is a plain attention of its own and a row
    of blocks a batch for a fused kernel. Tokens without a place, text above all, see everything and are seen by all.

    Args:
        query, key, value: (B, H, S, D), positions applied; S >= N.
        grid: Of the picture's tokens.
        window: Of the keys that one of them sees, at most the grid along each axis.
        before: Tokens in front of the picture's; what is left comes behind them.
        mask: As `scaled_dot_product_attention` takes it, to be broadcast to (B, H, S, S).
        options: Of `scaled_dot_product_attention`.

    Returns:
        (B, H, S, D); where the window is the grid, bit for bit what `scaled_dot_product_attention` gives.
    """
    if all(wanted >= given for wanted, given in zip(window, grid, strict=True)):
        return scaled_dot_product_attention(query, key, value, mask, **options)
    places = slice(before, before + grid.tokens)
    made = query.new_empty(len(query), query.shape[2], query.shape[1], value.shape[-1]).transpose(1, 2)
    pictures = [x[:, :, places].unflatten(2, grid) for x in (query, key, value, made)]  # (B, H, F, h, w, D)
    others = [torch.cat([x[:, :, :before], x[:, :, places.stop :]], 2) for x in (key, value)]
    numbers = torch.arange(query.shape[2], device=query.device)
    placed, rest = numbers[places].view(1, 1, *grid, 1), torch.cat([numbers[:before], numbers[places.stop :]])
    if len(rest):
        own = mask if mask is None or mask.shape[-2] == 1 else mask[..., rest, :]
        made[:, :, rest] = scaled_dot_product_attention(query[:, :, rest], key, value, own, **options)
    frames, heights, widths = (spans(*sides) for sides in zip(grid, window, strict=True))
    columns, key_columns = zip(*widths.starts, strict=True)
    for (frame, key_frame), (row, key_row) in itertools.product(frames.starts, heights.starts):
        block = _Row(frame, row, columns, frames.block, heights.block, widths.block)
        around = _Row(key_frame, key_row, key_columns, frames.window, heights.window, widths.window)
        keys, values = (
            torch.cat([other.repeat(len(columns), 1, 1, 1), around.of(x)], 2)
            for other, x in zip(others, pictures[1:3], strict=True)
        )
        allowed = None
        if mask is not None:
            tokens = torch.cat([rest.expand(len(columns), -1), around.of(placed).flatten(1)], 1)
            allowed = _of_blocks(mask, block.of(placed).flatten(1), tokens, len(query))
        queries = block.of(pictures[0])
        block.put(pictures[3], scaled_dot_product_attention(queries, keys, values, allowed, **options))
    return made


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
        parts = blocks.unflatten(2, (self.frames, self.height, self.width)).chunk(len(self.columns))
        for column, part in zip(self.columns, parts, strict=True):
            self.strip(picture)[..., column : column + self.width, :] = part


def _of_blocks(mask: Tensor, queries: Tensor, keys: Tensor, batch: int) -> Tensor:
    """(B or 1, H or 1, S or 1, S) at the numbers (W, q) and (W, n): (W B, H or 1, q or 1, n)."""
    whole = mask[(None,) * (4 - mask.ndim)]
    rows = queries[:, :, None] if whole.shape[-2] > 1 else torch.zeros_like(queries[:, :1, None])
    entries = whole[:, :, rows, keys[:, None]]  # (B or 1, H or 1, W, q or 1, n)
    return entries.movedim(2, 0).expand(-1, batch, -1, -1, -1).flatten(0, 1)
