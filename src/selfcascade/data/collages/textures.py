"""Random fields and patterns on a window of a picture, filtered to its pixels.

They are averaged over the pixel along each axis, so a small picture equals a large one after box-filtering. Coordinates
are those of the whole picture, in units of the square root of its area. Axis letters: H, W pixels.
"""

from __future__ import annotations

import numpy as np

from selfcascade.data.scenes.canvas import hash01

Array = np.ndarray
PARTS = 4  # of a pixel along an axis, over which a field is averaged
# A lattice of values uniform in [-1/2, 1/2], smoothed by the cubic B-spline along both axes, has this deviation.
DEVIATION = 12**-0.5 * 151 / 315


class Surface:
    """The surface that a texture is painted on.

    Attributes:
        x, y: Coordinates of the pixels' centres, (W,) and (H,).
        pixel: Width of a pixel.
        width, height: Width and height of the whole picture.
    """

    def __init__(self, x: Array, y: Array, pixel: float, width: float, height: float) -> None:
        self.x, self.y, self.pixel, self.width, self.height = x, y, pixel, width, height

    def refined(self, factor: int) -> Surface:
        """The same window with this many times the pixels per side."""
        parts = ((np.arange(factor) + 0.5) / factor - 0.5) * self.pixel
        x, y = ((at[:, None] + parts).reshape(-1).astype(np.float32) for at in (self.x, self.y))
        return Surface(x, y, self.pixel / factor, self.width, self.height)

    def shifted(self, across: float, down: float) -> Surface:
        """The window moved to the right and down."""
        return Surface(self.x + np.float32(across), self.y + np.float32(down), self.pixel, self.width, self.height)

    def noise(self, across: float, down: float, seed: int) -> Array:
        """A smooth random field (H, W) with mean 0 and deviation 1, and grains of this width and height."""
        weights_x, first_x = _spline_weights(self.x, self.pixel, across)
        weights_y, first_y = _spline_weights(self.y, self.pixel, down)
        columns = np.arange(first_x, first_x + weights_x.shape[1])
        rows = np.arange(first_y, first_y + weights_y.shape[1])
        lattice = (hash01(columns[None], rows[:, None], seed) - 0.5) / np.float32(DEVIATION)
        return weights_y @ lattice @ weights_x.T

    def clouds(self, across: float, down: float, seed: int, octaves: int = 4, gain: float = 0.6) -> Array:
        """Sum of noise with halving grains, each `gain` times as strong; grains too small for a pixel are left out."""
        total = np.zeros((len(self.y), len(self.x)), np.float32)
        for octave in range(octaves):
            keep = self.keep(min(across, down) / 2**octave)
            if keep > 0:
                total += keep * gain**octave * self.noise(across / 2**octave, down / 2**octave, seed + octave)
        return total

    def keep(self, feature: float) -> float:
        """How much of a detail of this width is drawn, 0 to 1."""
        return float(np.clip(4 * feature / self.pixel - 1.2, 0.0, 1.0))

    def stripes(self, at: Array, period: float, share: float) -> Array:
        """A pulse train along one axis, 1 over `share` of each period, averaged over the pixel."""
        half = 0.5 * self.pixel / period
        return (_pulses(at / period + half, share) - _pulses(at / period - half, share)) / (2 * half)

    def cells(self, at: Array, period: float, gap: float) -> tuple[Array, int]:
        """How much of each pixel lies in each cell of a row of cells with gaps.

        Returns:
            Weights (n, cells), and the number of the first cell.
        """
        first = int(np.floor((at[0] - self.pixel) / period))
        last = int(np.floor((at[-1] + self.pixel) / period))
        starts = (np.arange(first, last + 1) + gap / 2) * period
        ends = starts + (1 - gap) * period
        low, high = at[:, None] - self.pixel / 2, at[:, None] + self.pixel / 2
        covered = np.minimum(high, ends) - np.maximum(low, starts)
        return (np.maximum(covered, 0) / self.pixel).astype(np.float32), first

    def nearest(self, size: float, seed: int) -> tuple[Array, Array, Array]:
        """Random points, one in each cell of a jittered grid: (distance, gap, value), each (H, W).

        `distance` is that of the nearest point and `gap` that from the border to the next one's region, in units of
        `size`; `value` is the nearest point's own, in [0, 1).
        """
        u, v = self.x / size, self.y / size
        column, row = np.floor(u).astype(int), np.floor(v).astype(int)
        columns, rows = np.arange(column[0] - 1, column[-1] + 2), np.arange(row[0] - 1, row[-1] + 2)
        grid = [hash01(columns[None], rows[:, None], seed + k).astype(np.float32) for k in range(3)]
        shape = (len(v), len(u))
        best, second, value = (
            np.full(shape, 9.0, np.float32),
            np.full(shape, 9.0, np.float32),
            np.zeros(shape, np.float32),
        )
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                at = np.ix_(row + down - rows[0], column + across - columns[0])
                du = (column + across - u)[None] + (0.18 + 0.64 * grid[0][at])
                dv = (row + down - v)[:, None] + (0.18 + 0.64 * grid[1][at])
                distance = np.sqrt(du * du + dv * dv)
                closer = distance < best
                second = np.where(closer, best, np.minimum(second, distance))
                value = np.where(closer, grid[2][at], value)
                best = np.minimum(best, distance)
        return best, (second - best) / 2, value


def _pulses(at: Array, share: float) -> Array:
    whole = np.floor(at)
    return whole * share + np.minimum(at - whole, share)


def _spline_weights(at: Array, pixel: float, cell: float) -> tuple[Array, int]:
    """Weights (n, points) of points `cell` apart, by the cubic B-spline averaged over each pixel; the first point."""
    parts = ((np.arange(PARTS) + 0.5) / PARTS - 0.5) * pixel
    position = (at[:, None] + parts) / cell
    whole = np.floor(position).astype(int)
    t = (position - whole).astype(np.float32)
    first = int(whole.min()) - 1
    weights = np.zeros((len(at), int(whole.max()) + 3 - first), np.float32)
    taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    line = np.broadcast_to(np.arange(len(at))[:, None], whole.shape)
    for offset, tap in enumerate(taps):
        np.add.at(weights, (line, whole - 1 + offset - first), tap / (6 * PARTS))
    return weights, first
