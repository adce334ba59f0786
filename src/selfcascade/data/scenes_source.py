"""The scenes world as training data, still and moving: rendered as it is asked for, at any size, without end."""

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
        held_out: Scenes of combinations that are never trained on, for validation.
    """

    def __init__(self, size: Size, held_out: bool = False) -> None:
        self.size, self.held_out = size, held_out

    def __len__(self) -> int:
        return EPOCH

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """Of the epoch's scenes in order of their numbers; seed and epoch move the first one."""
        number = epoch_start(seed, epoch, self.held_out) + index
        words = caption(sample_scene(number, self.held_out), number)
        return Entry(f"scene-{number}", words, functools.partial(self._render, number))

    def fingerprint(self) -> Fingerprint:
        """Of what is asked for; nothing is read."""
        return fingerprint_of(len(self), [], "scenes", tuple(self.size), self.held_out)

    def _render(self, number: int) -> Image.Image:
        pixels = render(sample_scene(number, self.held_out), self.size.height, self.size.width)
        return Image.fromarray((pixels * 255).round().astype(np.uint8))


class MovingScenesSource(Source):
    """Moving scenes by number; an epoch is a million of them.

    Args:
        size: Size of the renders.
        frames: Number of frames in each clip, from its beginning.
        fps: Frames a second.
        held_out: As in `ScenesSource`.

    Raises:
        DataError: So many frames last longer than the scenes' two seconds, after which objects leave the picture; or
            `fps` is not above 0.
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
        """Of the epoch's moving scenes in order of their numbers; seed and epoch move the first one."""
        number = epoch_start(seed, epoch, self.held_out) + index
        words = moving_caption(sample_moving_scene(number, self.held_out), number)
        return Entry(f"moving-scene-{number}", words, functools.partial(self._render, number))

    def fingerprint(self) -> Fingerprint:
        """Of what is asked for; nothing is read."""
        return fingerprint_of(len(self), [], "moving-scenes", tuple(self.size), self.frames, self.fps, self.held_out)

    def _render(self, number: int) -> np.ndarray:
        moving = sample_moving_scene(number, self.held_out)
        pixels = render_clip(moving, self.size.height, self.size.width, self.frames, self.fps)
        return (pixels * 255).round().astype(np.uint8)


def epoch_start(seed: int, epoch: int, held_out: bool = False) -> int:
    """The number of an epoch's first render; seed and epoch move it."""
    return (HELD_OUT_FIRST if held_out else 0) + (seed * 7919 + epoch) % 4096 * EPOCH
