"""Paints pictures: anti-aliased shapes from signed distances, and patterns filtered to the pixel.

Everything is a function of continuous coordinates and of the width of a pixel, so a small render equals a large one
after box-filtering. Axis letters: H, W pixels. Coordinates are in the units of the caller; distances are negative
inside a shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
Colour = Sequence[float] | Array


class Canvas:
    """A window of a picture in its own coordinates.

    Attributes:
        image: (H, W, 3) float32 in [0, 1], painted in place.
        x, y: Coordinates of the pixel centres, (1, W) and (H, 1).
        pixel: Width of a pixel in the same units.
    """

    def __init__(self, image: Array, x: Array, y: Array, pixel: float) -> None:
        self.image, self.x, self.y, self.pixel = image, x, y, pixel

    def view(
        self, centre_x: float, centre_y: float, radius: float, reach: float = 1.15, flip: bool = False
    ) -> Canvas | None:
        """The part around a centre, in coordinates where the radius is 1; None if it lies outside the window."""
        columns = np.flatnonzero(np.abs(self.x[0] - centre_x) < radius * reach + self.pixel)
        rows = np.flatnonzero(np.abs(self.y[:, 0] - centre_y) < radius * reach + self.pixel)
        if not len(columns) or not len(rows):
            return None
        across, down = slice(columns[0], columns[-1] + 1), slice(rows[0], rows[-1] + 1)
        u = (self.x[:, across] - centre_x) / (-radius if flip else radius)
        v = (self.y[down] - centre_y) / radius
        return Canvas(self.image[down, across], u, v, self.pixel / radius)

    def fill(self, distance: Array, colour: Colour, opacity: float | Array = 1.0) -> None:
        """Paints the inside of a shape; the edge covers part of its pixels."""
        alpha = np.clip(0.5 - distance / self.pixel, 0.0, 1.0) * opacity
        alpha = np.broadcast_to(alpha, self.image.shape[:2])[..., None]
        self.image += alpha * (np.asarray(colour, np.float32) - self.image)

    def shape(self, distance: Array, colour: Colour, outline: Colour, width: float = 0.05) -> None:
        """Paints a shape with an outline inside its edge."""
        self.fill(distance, outline)
        self.fill(distance + width, colour)

    def stripes(self, u: Array, period: float, duty: float) -> Array:
        """A pulse train of `u`, 1 over `duty` of each period, exactly box-filtered over a pixel."""

        def integral(at: Array) -> Array:
            whole = np.floor(at)
            return whole * duty + np.minimum(at - whole, duty)

        half = 0.5 * self.pixel / period
        at = u / period
        return (integral(at + half) - integral(at - half)) / (2 * half)

    def fade(self, feature: float) -> float:
        """How much of a detail of this width survives the pixel's filter, 0 to 1."""
        return float(np.clip(1.6 * feature / self.pixel - 0.6, 0.0, 1.0))

    def soft(self, distance: Array, width: float) -> Array:
        """1 inside, 0 outside, over an edge of the given width (or a pixel, if that is more)."""
        width = max(width, self.pixel)
        t = np.clip(0.5 - distance / width, 0.0, 1.0)
        return t * t * (3 - 2 * t)


def hash01(i: Array, j: Array, seed: int) -> Array:
    """A fixed random value in [0, 1) for each integer cell (i, j)."""
    mixed = np.atleast_1d(np.asarray(i)).astype(np.int64) * 374761393 + np.asarray(j).astype(np.int64) * 668265263
    h = (mixed + seed * 974711).astype(np.uint32)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(1274126177)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(2246822519)
    return ((h ^ (h >> np.uint32(15))) >> np.uint32(8)).astype(np.float32) / np.float32(2**24)


def noise(x: Array, seed: int) -> Array:
    """Smooth one-dimensional noise in [0, 1], with one random value per integer."""
    cell = np.floor(x)
    t = x - cell
    t = t * t * (3 - 2 * t)
    return hash01(cell, np.zeros_like(cell), seed) * (1 - t) + hash01(cell + 1, np.zeros_like(cell), seed) * t


def circle(u: Array, v: Array, cx: float, cy: float, r: float) -> Array:
    """Distance to a circle."""
    return np.sqrt((u - cx) ** 2 + (v - cy) ** 2) - r


def ellipse(u: Array, v: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """Distance to an ellipse (first order: exact at the edge's location, close around it)."""
    du, dv = (u - cx) / rx, (v - cy) / ry
    k = np.sqrt(du * du + dv * dv) + 1e-6
    slope = np.sqrt((du / rx) ** 2 + (dv / ry) ** 2) / k + 1e-6
    return (k - 1.0) / slope


def box(u: Array, v: Array, left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> Array:
    """Distance to an axis-aligned rectangle, optionally with rounded corners."""
    du = np.abs(u - (left + right) / 2) - (right - left) / 2 + corner
    dv = np.abs(v - (top + bottom) / 2) - (bottom - top) / 2 + corner
    outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def polygon(u: Array, v: Array, points: Sequence[tuple[float, float]]) -> Array:
    """Distance to a convex polygon, its points in either order (exact inside and beside its edges)."""
    area = sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True))
    turn = 1.0 if area > 0 else -1.0
    distance: Array | float = -np.inf
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
        length = np.hypot(bx - ax, by - ay)
        distance = np.maximum(distance, turn * ((by - ay) * (u - ax) - (bx - ax) * (v - ay)) / length)
    return np.asarray(distance)


def mix(a: Colour, b: Colour, t: float | Array) -> Array:
    """Colour a where t = 0, b where t = 1; t may be (H, W)."""
    weight = np.asarray(t, np.float32)[..., None]
    return np.asarray(a, np.float32) * (1 - weight) + np.asarray(b, np.float32) * weight


def bricks(canvas: Canvas, u: Array, v: Array, width: float, height: float, seed: int) -> tuple[Array, Array]:
    """(mortar, shade): 1 in the joints of a running bond, and a random value in [-1, 1] for each brick."""
    row = np.floor(v / height)
    shifted = u + 0.5 * width * (row % 2)
    mortar = np.maximum(canvas.stripes(v, height, 0.16), canvas.stripes(shifted, width, 0.09))
    shade = 2 * hash01(np.floor(shifted / width), row, seed) - 1
    return mortar, shade * canvas.fade(height)


def scales(canvas: Canvas, u: Array, v: Array, size: float) -> Array:
    """Overlapping arcs (fish scales, roof tiles): 0 at the edge of an arc to 1 at its middle, mean where too small."""
    row = np.floor(v / size)
    du = (u / size + 0.5 * (row % 2)) % 1.0 - 0.5
    dv = v / size - row
    arc = np.clip(1.0 - np.sqrt((1.35 * du) ** 2 + (0.95 * dv) ** 2), 0.0, 1.0)
    return 0.42 + (arc - 0.42) * canvas.fade(0.55 * size)


def blobs(canvas: Canvas, u: Array, v: Array, size: float, seed: int, fullness: float = 0.42) -> tuple[Array, Array]:
    """(cover, shade): leaf-like ovals on a jittered grid, and a random value in [-1, 1] for each."""
    row = np.floor(v / size)
    across = u / size + 0.5 * (row % 2)
    column = np.floor(across)
    turn = 3.14 * hash01(column, row, seed + 1)
    du, dv = across - column - 0.5, v / size - row - 0.5
    a, b = np.cos(turn) * du + np.sin(turn) * dv, np.cos(turn) * dv - np.sin(turn) * du
    distance = (np.sqrt((a / 1.15) ** 2 + (b / 0.75) ** 2) - fullness) * size
    cover = np.clip(0.5 - distance / max(canvas.pixel, 0.2 * size), 0.0, 1.0)
    keep = canvas.fade(0.6 * size)
    return 0.5 + (cover - 0.5) * keep, (2 * hash01(column, row, seed) - 1) * keep
