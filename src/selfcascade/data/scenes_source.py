"""Scenes as training data, still and moving: rendered on demand, at any size, without end."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.examples import DataError, Entry, Fingerprint, Source, fingerprint_of
from selfcascade.data.scenes import (
    SECONDS,
    caption,
    moving_caption,
    render,
    render_clip,
    sample_moving_scene,
    sample_scene,
)
from selfcascade.media.frame_rates import DEFAULT_FPS

EPOCH = 1_000_000
HELD_OUT_FIRST = 60_000_000


class ScenesSource(Source):
    """Scenes by number; an epoch is a million of them.

    Args:
        size: Size of the renders.
        held_out: Whether scenes have combinations held out of training, for validation.
    """

    def __init__(self, size: Size, held_out: bool = False) -> None:
        self.size, self.held_out = size, held_out

    def __len__(self) -> int:
        return EPOCH

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The scene at an index of the epoch; seed and epoch decide the number of the first."""
        number = epoch_start(seed, epoch, self.held_out) + index
        words = caption(sample_scene(number, self.held_out), number)
        return Entry(f"scene-{number}", words, functools.partial(self._render, number))

    def fingerprint(self) -> Fingerprint:
        """A summary of the settings; nothing is read."""
        return fingerprint_of(len(self), [], "scenes", tuple(self.size), self.held_out)

    def _render(self, number: int) -> Image.Image:
        pixels = render(sample_scene(number, self.held_out), self.size.height, self.size.width)
        return Image.fromarray((pixels * 255).round().astype(np.uint8))


class MovingScenesSource(Source):
    """Moving scenes by number; an epoch is a million of them.

    Args:
        size: Size of the renders.
        frames: Number of frames in each clip, from its beginning.
        fps: Frames per second.
        held_out: See `ScenesSource`.

    Raises:
        DataError: The frames last longer than two seconds, after which objects leave the picture, or `fps` is not
            above 0.
    """

    def __init__(self, size: Size, frames: int = 16, fps: float = DEFAULT_FPS, held_out: bool = False) -> None:
        if not 0 < fps < float("inf"):
            raise DataError(f"fps must be a number above 0, not {fps}")
        if not 0 < frames / fps <= SECONDS:
            raise DataError(
                f"moving scenes last {SECONDS:g} seconds; {frames} frames at {fps:g} fps are {frames / fps:g}"
            )
        self.size, self.frames, self.fps, self.held_out = size, frames, fps, held_out

    def __len__(self) -> int:
        return EPOCH

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The moving scene at an index of the epoch; seed and epoch decide the number of the first."""
        number = epoch_start(seed, epoch, self.held_out) + index
        words = moving_caption(sample_moving_scene(number, self.held_out), number)
        return Entry(f"moving-scene-{number}", words, functools.partial(self._render, number))

    def fingerprint(self) -> Fingerprint:
        """A summary of the settings; nothing is read."""
        return fingerprint_of(len(self), [], "moving-scenes", tuple(self.size), self.frames, self.fps, self.held_out)

    def _render(self, number: int) -> np.ndarray:
        moving = sample_moving_scene(number, self.held_out)
        pixels = render_clip(moving, self.size.height, self.size.width, self.frames, self.fps)
        return (pixels * 255).round().astype(np.uint8)


def epoch_start(seed: int, epoch: int, held_out: bool = False) -> int:
    """The number of an epoch's first scene, from seed and epoch."""
    return (HELD_OUT_FIRST if held_out else 0) + (seed * 7919 + epoch) % 4096 * EPOCH
