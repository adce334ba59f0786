"""The scenes world as training data: rendered as it is asked for, at any size, without end."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.examples import Entry, Skip
from selfcascade.data.scenes import caption, render, sample_scene

EPOCH = 1_000_000
HELD_OUT_FIRST = 60_000_000


class ScenesSource:
    """Scenes by number; an epoch is a million of them.

    Args:
        size: Of the renders.
        held_out: Scenes of combinations that are never trained on, for validation.
    """

    def __init__(self, size: Size, held_out: bool = False) -> None:
        self.size, self.held_out = size, held_out

    def entries(self, seed: int, epoch: int, first: int = 0) -> Iterator[Entry | Skip]:
        """The epoch's scenes in order of their numbers; seed and epoch move the first one."""
        begin = (HELD_OUT_FIRST if self.held_out else 0) + (seed * 7919 + epoch) % 4096 * EPOCH
        for number in range(begin + first, begin + EPOCH):
            words = caption(sample_scene(number, self.held_out), number)
            yield Entry(f"scene-{number}", words, functools.partial(self._render, number))

    def _render(self, number: int) -> Image.Image:
        pixels = render(sample_scene(number, self.held_out), self.size.height, self.size.width)
        return Image.fromarray((pixels * 255).round().astype(np.uint8))
