"""Runs a network that enlarges pictures in overlapping tiles, so that its memory does not grow with the picture.

Axis letters: H, W pixels; s is the network's factor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

SIDE = 512  # of a tile, in pixels of the input
# What a network makes this close to a cut edge, in pixels of the input, is left out; over twice as much, tiles blend.
MARGIN = 16

Network = Callable[[Tensor], Tensor]


class _Advice(Protocol):
    name: str


def in_tiles(network: Network, side: int = SIDE, margin: int = MARGIN) -> Network:
    """The network, run on tiles where spandrel says that it supports them; otherwise the network itself.

    Results are those of the whole picture as far as no pixel depends on others more than `margin` away.

    Args:
        network: Maps (1, 3, H, W) to (1, 3, s H, s W).
        side: Side of a tile, over four times the margin.
        margin: See `MARGIN`.
    """
    advice = cast("_Advice | None", getattr(network, "tiling", None))
    if getattr(advice, "name", None) != "SUPPORTED":
        return network

    def tiled(picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        if max(height, width) <= side:
            return network(picture)
        whole = total = picture.new_zeros(0)
        for top in _starts(height, side, 4 * margin):
            for left in _starts(width, side, 4 * margin):
                made = network(picture[..., top : top + side, left : left + side])
                factor = made.shape[-1] // min(side, width)
                if not whole.numel():
                    whole = made.new_zeros(1, 3, height * factor, width * factor, dtype=torch.float32)
                    total = torch.zeros_like(whole[:, :1])
                rows = _weights(top, min(side, height), height, margin, factor).to(made.device)
                columns = _weights(left, min(side, width), width, margin, factor).to(made.device)
                weights, place = rows[:, None] * columns, (top * factor, left * factor)
                window = (..., slice(place[0], place[0] + len(rows)), slice(place[1], place[1] + len(columns)))
                whole[window] += made.float() * weights
                total[window] += weights
        return whole / total

    return tiled


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles start along an axis; neighbours share at least `overlap` pixels, and the last ends with the axis."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _weights(start: int, side: int, length: int, margin: int, factor: int) -> Tensor:
    """Weights of a tile's rows or columns: none within the margin of a cut, then rising over twice the margin to 1."""
    places = (torch.arange(side * factor) + 0.5) / factor
    before = places if start > 0 else torch.full_like(places, torch.inf)
    after = side - places if start + side < length else torch.full_like(places, torch.inf)
    return ((torch.minimum(before, after) - margin) / (2 * margin)).clamp(0, 1)
