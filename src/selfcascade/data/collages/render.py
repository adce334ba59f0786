"""Renders collages at any size, whole or through a window.

Filtering works on the picture's own values, like resizing in training and evaluation, so a small render equals a large
one box-filtered. Axis letters: H, W pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from selfcascade.cascade import MAX_SIDE
from selfcascade.data.collages.assets import Assets, bundled_assets
from selfcascade.data.collages.collage import Collage, Item
from selfcascade.data.collages.sprites import MARGIN, SHADOW_REACH, Array, Sprite
from selfcascade.data.collages.textures import Surface

# Light falls from the upper left: the shadow lies this far to the right and below, in diameters.
SHADOW_SHIFT = (0.025, 0.045)
FINE = 96  # least number of points drawn across a cut-out, which are averaged to pixels


def render(
    collage: Collage,
    height: int,
    width: int,
    window: tuple[int, int, int, int] | None = None,
    assets: Assets | None = None,
) -> Array:
    """The collage drawn at (height, width), anti-aliased.

    Args:
        collage: What to draw; the same description at every size.
        height: Pixels of the whole picture, 1 to 16384.
        width: Pixels of the whole picture, 1 to 16384.
        window: (top, left, height, width) in those pixels: only this part is drawn, at its own cost.
        assets: Cut-outs and backgrounds; None: the bundled ones.

    Returns:
        (H, W, 3) float32 in [0, 1], of the window if there is one.

    Raises:
        ValueError: A size lies outside its range, or a file of the user's assets is damaged.
    """
    for name, value in (("height", height), ("width", width)):
        if not 1 <= value <= MAX_SIDE:
            raise ValueError(f"{name} must be from 1 to {MAX_SIDE}, not {value}")
    assets = assets or bundled_assets()
    top, left, rows, columns = window or (0, 0, height, width)
    unit = math.sqrt(height * width)
    x = (np.arange(left, left + columns, dtype=np.float32) + 0.5) / unit
    y = (np.arange(top, top + rows, dtype=np.float32) + 0.5) / unit
    surface = Surface(x, y, 1 / unit, width / unit, height / unit)
    image = assets.paint(collage.background, surface, collage.texture, collage.seed).astype(np.float32)
    for item in collage.items:
        _paste(image, surface, item, assets.sprite(item.kind, item.seed), _fit(collage, surface))
    return np.clip(image, 0.0, 1.0)


def _fit(collage: Collage, surface: Surface) -> float:
    """Factor by which objects are smaller than in a square picture, so that they fit side by side at other ratios."""
    wide, high = surface.width, surface.height
    if collage.relation is None:
        return min(1.0, wide, high)
    share = (wide / 2, high) if collage.relation == "beside" else (wide, high / 2)
    return min(1.0, 2 * min(share))


def _paste(image: Array, surface: Surface, item: Item, sprite: Sprite, fit: float) -> None:
    """Paints a cut-out and its shadow over the image, in place."""
    diameter, pixel = item.diameter * fit, surface.pixel
    x, y = item.x * surface.width, item.y * surface.height
    rows = np.flatnonzero(np.abs(surface.y - y) < diameter * (0.75 + SHADOW_REACH) + pixel)
    columns = np.flatnonzero(np.abs(surface.x - x) < diameter * (0.75 + SHADOW_REACH) + pixel)
    if not len(rows) or not len(columns):
        return
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = float(surface.x[columns[0]]) - pixel / 2, float(surface.y[rows[0]]) - pixel / 2
    shift_x, shift_y = SHADOW_SHIFT[0] * diameter, SHADOW_SHIFT[1] * diameter
    own = _Frame(item, corner[0] - x - shift_x, corner[1] - y - shift_y, pixel, diameter * (1 + 2 * SHADOW_REACH))
    part *= 1 - own.drawn(sprite.shadow, len(rows), len(columns))[..., None]
    factor = min(4, max(2, math.ceil(FINE * pixel / diameter)))
    own = _Frame(item, corner[0] - x, corner[1] - y, pixel / factor, diameter)
    drawn = own.drawn(sprite.level(diameter * factor / pixel), len(rows), len(columns), factor)
    part *= 1 - drawn[..., 3:]
    part += drawn[..., :3]


class _Frame(NamedTuple):
    """Pixels in the coordinates of an item that is turned and perhaps mirrored.

    Attributes:
        left, top: The first pixel's corner, from the item's centre.
        pixel: Width of a pixel.
        side: Side of the square that is drawn.
    """

    item: Item
    left: float
    top: float
    pixel: float
    side: float

    def drawn(self, square: Image.Image, rows: int, columns: int, factor: int = 1) -> Array:
        """The square drawn at this many pixels, each averaged from factor x factor, (H, W) or (H, W, 4) in [0, 1]."""
        angle, inner = math.radians(self.item.turn), square.width - 2 * MARGIN
        mirror = -1 if self.item.flip else 1
        cos, sin = inner / self.side * math.cos(angle), inner / self.side * math.sin(angle)
        step = self.pixel
        across = mirror * cos * step, mirror * sin * step, mirror * (cos * self.left + sin * self.top)
        down = -sin * step, cos * step, cos * self.top - sin * self.left
        affine = (*across[:2], across[2] + square.width / 2, *down[:2], down[2] + square.height / 2)
        size = columns * factor, rows * factor
        found = square.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        return np.asarray(found if factor == 1 else found.reduce(factor), np.float32) / 255
