"""Renders moving scenes as clips, at any size and frame rate; what stands still is painted once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from selfcascade.data.scenes.canvas import Array
from selfcascade.data.scenes.motion import MovingScene
from selfcascade.data.scenes.render import BackgroundLayer, DrawingArea, ItemLayer, layers
from selfcascade.media.frame_rates import DEFAULT_FPS

FRAMES = 16
MAX_RENDERED_FRAMES = 4096


def render_clip(
    moving: MovingScene,
    height: int,
    width: int,
    frames: int = FRAMES,
    fps: float = DEFAULT_FPS,
    start: float = 0.0,
    window: tuple[int, int, int, int] | None = None,
    supersample: int = 2,
) -> Array:
    """The moving scene's frames at the times start + i / fps, each drawn as `render` draws a picture.

    A frame depends only on its time, not on the frame rate or on other frames. Objects traverse their paths in the
    first two seconds, and continue on the same line after that.

    Args:
        moving: What to draw; the same description at every size.
        height, width: Pixels of the whole picture, 1 to 16384.
        frames: Number of frames in the clip, 1 to 4096.
        fps: Frames per second, above 0.
        start: Time of the first frame, in seconds.
        window, supersample: See `render`.

    Returns:
        (F, H, W, 3) float32 in [0, 1], of the window if there is one.

    Raises:
        ValueError: A size, the number of frames or the rate lies outside its range.
    """
    if not 1 <= frames <= MAX_RENDERED_FRAMES:
        raise ValueError(f"frames must be from 1 to {MAX_RENDERED_FRAMES}, not {frames}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be a number above 0, not {fps}")
    area = DrawingArea.of(height, width, window, supersample)
    steps = _steps(layers(moving.scene, moving.motions), area)
    clip = []
    for frame in range(frames):
        image = area.blank().image
        for step in steps:
            image = step(image, start + frame / fps)
        clip.append(area.finished(image))
    return np.stack(clip)


class _Still(NamedTuple):
    """Layers that never change, as their effect on the picture below: through * below + over."""

    through: Array
    over: Array

    @classmethod
    def of(cls, stack: Sequence[BackgroundLayer | ItemLayer], area: DrawingArea) -> _Still:
        # Painting is linear in the picture below, so its results on black and on white determine it.
        black, white = area.blank(0.0), area.blank(1.0)
        for layer in stack:
            layer.paint(black, area, 0.0)
            layer.paint(white, area, 0.0)
        return cls(white.image - black.image, black.image)

    def __call__(self, image: Array, time: float) -> Array:
        return self.through * image + self.over


class _Moving(NamedTuple):
    """A layer painted anew for each frame."""

    layer: BackgroundLayer | ItemLayer
    area: DrawingArea

    def __call__(self, image: Array, time: float) -> Array:
        self.layer.paint(self.area.canvas(image), self.area, time)
        return image


def _steps(stack: Sequence[BackgroundLayer | ItemLayer], area: DrawingArea) -> list[Callable[[Array, float], Array]]:
    """The steps that paint a frame, back to front."""
    steps: list[Callable[[Array, float], Array]] = []
    for moves, part in itertools.groupby(stack, key=lambda layer: layer.moves):
        stretch = list(part)
        steps += [_Moving(layer, area) for layer in stretch] if moves else [_Still.of(stretch, area)]
    return steps
