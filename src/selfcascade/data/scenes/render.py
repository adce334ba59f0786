"""Renders scenes at any size, whole or through a window."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from selfcascade.cascade import MAX_SIDE
from selfcascade.data.scenes.backgrounds import BACKGROUND_PARTS, Part, Setting, ground_shadow
from selfcascade.data.scenes.canvas import Array, Canvas
from selfcascade.data.scenes.objects import PAINTERS, Paint
from selfcascade.data.scenes.poses import Motion, bend, lift
from selfcascade.data.scenes.scene import FLOATING, Item, Scene


def render(
    scene: Scene,
    height: int,
    width: int,
    window: tuple[int, int, int, int] | None = None,
    time: float = 0.0,
    supersample: int = 2,
) -> Array:
    """The scene drawn at (height, width), anti-aliased.

    Args:
        scene: What to draw; the same description at every size.
        height: Pixels of the whole picture, 1 to 16384.
        width: Pixels of the whole picture, 1 to 16384.
        window: (top, left, height, width) in those pixels: only this part is drawn, at its own cost.
        time: Time in seconds; waves, clouds, stars and snow move. Objects stand still (`render_clip` moves them).
        supersample: Pixels drawn per pixel and side, on top of the analytic filter of shapes and patterns.

    Returns:
        (H, W, 3) float32 in [0, 1], of the window if there is one.

    Raises:
        ValueError: A size lies outside its range.
    """
    area = DrawingArea.of(height, width, window, supersample)
    canvas = area.blank()
    for layer in layers(scene):
        layer.paint(canvas, area, time)
    return area.finished(canvas.image)


class DrawingArea(NamedTuple):
    """The pixels of a window, in coordinates in units of the square root of the whole picture's area.

    Attributes:
        x, y: Coordinates of the drawn pixels' centres, (1, W) and (H, 1).
        width, height: Width and height of the whole picture.
        pixel: Width of a drawn pixel.
        supersample: Drawn pixels per pixel and side.
    """

    x: Array
    y: Array
    width: float
    height: float
    pixel: float
    supersample: int

    @classmethod
    def of(cls, height: int, width: int, window: tuple[int, int, int, int] | None, supersample: int) -> DrawingArea:
        """The area of a picture of that size in pixels.

        Raises:
            ValueError: A size lies outside its range.
        """
        for name, value in (("height", height), ("width", width)):
            if not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name} must be from 1 to {MAX_SIDE}, not {value}")
        top, left, rows, columns = (side * supersample for side in window or (0, 0, height, width))
        height, width = height * supersample, width * supersample
        unit = float(np.sqrt(height * width))
        x = ((np.arange(left, left + columns, dtype=np.float32) + 0.5) / unit)[None, :]
        y = ((np.arange(top, top + rows, dtype=np.float32) + 0.5) / unit)[:, None]
        return cls(x, y, width / unit, height / unit, 1.0 / unit, supersample)

    def canvas(self, image: Array) -> Canvas:
        """Drawn pixels (H, W, 3) as a canvas that paints in them."""
        return Canvas(image, self.x, self.y, self.pixel)

    def blank(self, value: float = 0.0) -> Canvas:
        """A canvas of one grey."""
        return self.canvas(np.full((self.y.shape[0], self.x.shape[1], 3), value, np.float32))

    def finished(self, image: Array) -> Array:
        """The drawn pixels averaged to the final ones, in [0, 1]."""
        image, factor = np.clip(image, 0.0, 1.0), self.supersample
        parts = (image[row::factor, column::factor] for row in range(factor) for column in range(factor))
        return functools.reduce(np.add, parts) / factor**2


class BackgroundLayer(NamedTuple):
    """A part of the background."""

    scene: Scene
    part: Part

    @property
    def moves(self) -> bool:
        """Whether it changes with time."""
        return self.part.moves

    def paint(self, canvas: Canvas, area: DrawingArea, time: float) -> None:
        """Paints it over what is there."""
        self.part.paint(Setting(canvas, self.scene, area.width, area.height, time))


class ItemLayer(NamedTuple):
    """An object and its shadow; without a motion it stands as in a picture."""

    item: Item
    motion: Motion | None

    @property
    def moves(self) -> bool:
        """Whether it changes with time."""
        return self.motion is not None and self.motion.visible(self.item.kind)

    def paint(self, canvas: Canvas, area: DrawingArea, time: float) -> None:
        """Paints it over what is there."""
        item, motion = self.item, self.motion
        x, y = (item.x, item.y) if motion is None else motion.place(item, time)
        centre_x, centre_y = x * area.width, y * area.height
        if item.kind not in FLOATING:
            ground_shadow(canvas, centre_x, centre_y + item.radius, 0.8 * item.radius)
        if motion is not None:
            centre_y += item.radius * lift(item.kind, motion.swing(item.kind, time))
        view = canvas.view(centre_x, centre_y, item.radius, flip=item.flip)
        if view is not None:
            view = view if motion is None else bend(view, item.kind, motion.swing(item.kind, time))
            PAINTERS[item.kind](view, item, Paint(item))


def layers(scene: Scene, motions: Sequence[Motion | None] = ()) -> list[BackgroundLayer | ItemLayer]:
    """The layers of a picture, back to front; `motions` are those of the items, if any."""
    both = zip(scene.items, motions or [None] * len(scene.items), strict=True)
    items = sorted(both, key=lambda pair: pair[0].y + pair[0].radius)
    return [
        *(BackgroundLayer(scene, part) for part in BACKGROUND_PARTS[scene.background]),
        *(ItemLayer(item, motion) for item, motion in items),
    ]
