"""A scene as pixels, at any size, whole or through a window."""

from __future__ import annotations

import numpy as np

from selfcascade.data.scenes.backgrounds import BACKGROUND_PAINTERS, Setting, ground_shadow
from selfcascade.data.scenes.canvas import Array, Canvas
from selfcascade.data.scenes.objects import PAINTERS, Paint
from selfcascade.data.scenes.world import FLOATING, Scene

MAX_SIDE = 16384


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
        time: Seconds; waves, clouds and snow move with it.
        supersample: Pixels drawn per pixel and side, on top of the analytic filter of shapes and patterns.

    Returns:
        (H, W, 3) float32 in [0, 1], of the window if there is one.

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
    canvas = Canvas(np.zeros((rows, columns, 3), np.float32), x, y, 1.0 / unit)
    world_width, world_height = width / unit, height / unit
    BACKGROUND_PAINTERS[scene.background](Setting(canvas, scene, world_width, world_height, time))
    for item in sorted(scene.items, key=lambda item: item.y + item.radius):
        centre_x, centre_y = item.x * world_width, item.y * world_height
        if item.kind not in FLOATING:
            ground_shadow(canvas, centre_x, centre_y + item.radius, 0.8 * item.radius)
        view = canvas.view(centre_x, centre_y, item.radius, flip=item.flip)
        if view is not None:
            PAINTERS[item.kind](view, item, Paint(item))
    image = np.clip(canvas.image, 0.0, 1.0)
    return image.reshape(rows // supersample, supersample, columns // supersample, supersample, 3).mean((1, 3))
