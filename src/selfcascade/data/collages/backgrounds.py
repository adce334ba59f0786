"""The procedural backgrounds: flat, seen from the front or from above, and with more detail the larger they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selfcascade.data.collages.textures import Surface
from selfcascade.data.scenes.canvas import Array, hash01, mix

Paint = Callable[[Surface, float, int], Array]

BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "planks": ("on wooden planks", "on brown wooden planks"),
    "bricks": ("in front of a brick wall", "against a wall of bricks"),
    "lawn": ("on a lawn", "on a green lawn"),
    "sand": ("on the sand", "on rippled sand"),
    "tablecloth": ("on a checked tablecloth", "on a red and white tablecloth"),
    "tiles": ("on blue tiles", "on a floor of blue tiles"),
    "water": ("on the water", "on the water of a pool"),
    "pebbles": ("on grey pebbles", "on a bed of pebbles"),
}


COARSE = 1 / 200  # wider pixels than this are averaged from four if a pattern's edges are not straight


def paint_background(name: str, surface: Surface, scale: float, seed: int) -> Array:
    """A background by name, (H, W, 3) float32 in [0, 1].

    Args:
        name: One of `BACKGROUND_PHRASES`.
        surface: The surface to paint.
        scale: Scale of the pattern, about 1.
        seed: Seed of everything random; the pattern starts anywhere.
    """
    shift = hash01(np.arange(2), np.full(2, 1), seed)
    surface = surface.shifted(float(shift[0]), float(shift[1]))
    if name in UNEVEN and surface.pixel > COARSE:
        fine = PAINTS[name](surface.refined(2), scale, seed)
        return fine.reshape(len(surface.y), 2, len(surface.x), 2, 3).mean((1, 3))
    return PAINTS[name](surface, scale, seed)


def planks(surface: Surface, scale: float, seed: int) -> Array:
    """Boards with grain, a dark gap between them, and joints where one ends."""
    height, length, gap = 0.19 * scale, 0.95 * scale, 0.035
    rows, first = surface.cells(surface.y, height, gap)
    wood = np.zeros((len(surface.y), len(surface.x)), np.float32)
    solid = np.zeros_like(wood)
    for number in range(rows.shape[1]):
        start = float(hash01(np.array(first + number), np.array(5), seed)[0]) * length
        boards, left = surface.cells(surface.x + start, length, gap * height / length)
        tones = hash01(np.arange(left, left + boards.shape[1]), np.full(boards.shape[1], first + number), seed + 1)
        wood += rows[:, number : number + 1] * (boards @ tones)[None]
        solid += rows[:, number : number + 1] * boards.sum(1)[None]
    grain = surface.clouds(0.55 * scale, 0.02 * scale, seed + 10, octaves=6, gain=0.75)
    knots = surface.noise(0.3 * scale, 0.07 * scale, seed + 20)
    tone = 0.5 + 0.55 * (wood - 0.5 * solid) + 0.085 * grain + 0.06 * knots
    board = mix((0.47, 0.29, 0.16), (0.80, 0.58, 0.37), np.clip(tone, 0, 1))
    worn = surface.stripes(surface.y - gap / 2 * height, height, 0.05)[:, None, None]
    return mix((0.17, 0.10, 0.06), board * (1 + 0.12 * worn), solid)


def bricks(surface: Surface, scale: float, seed: int) -> Array:
    """A running bond of fired bricks in pale mortar."""
    height, width, gap = 0.088 * scale, 0.215 * scale, 0.1
    rows, first = surface.cells(surface.y, height, gap)
    tone = np.zeros((len(surface.y), len(surface.x)), np.float32)
    solid = np.zeros_like(tone)
    for odd in (0, 1):
        own = rows[:, (odd - first) % 2 :: 2]
        numbers = np.arange(first + (odd - first) % 2, first + rows.shape[1], 2)
        columns, left = surface.cells(surface.x + 0.5 * odd * width, width, gap * height / width)
        tones = hash01(np.arange(left, left + columns.shape[1])[None], numbers[:, None], seed + odd)
        tone += own @ tones @ columns.T
        solid += own.sum(1)[:, None] * columns.sum(1)[None]
    rough = surface.clouds(0.05 * scale, 0.03 * scale, seed + 10, octaves=6, gain=0.72)
    value = 0.5 + 0.75 * (tone - 0.5 * solid) + 0.11 * rough
    clay = mix((0.47, 0.17, 0.11), (0.83, 0.45, 0.32), np.clip(value, 0, 1))
    light = surface.stripes(surface.y - gap / 2 * height, height, 0.07) - surface.stripes(
        surface.y + (gap / 2 + 0.07) * height, height, 0.07
    )
    mortar = np.asarray((0.78, 0.73, 0.66), np.float32) * (1 + 0.05 * rough[..., None])
    return mix(mortar, clay * (1 + 0.10 * light[:, None, None]), solid)


def lawn(surface: Surface, scale: float, seed: int) -> Array:
    """Grass: patches of light, tufts, and blades that show at large sizes."""
    patches = surface.noise(0.4 * scale, 0.3 * scale, seed)
    tufts = surface.clouds(0.04 * scale, 0.075 * scale, seed + 10, octaves=6, gain=0.85)
    tone = 0.47 + 0.07 * patches + 0.105 * tufts
    grass = mix((0.12, 0.30, 0.07), (0.60, 0.78, 0.28), np.clip(tone, 0, 1))
    yellow = surface.noise(0.2 * scale, 0.2 * scale, seed + 20)
    return grass * (1 + 0.05 * yellow[..., None] * np.array((1.0, 0.2, -0.6), np.float32))


def sand(surface: Surface, scale: float, seed: int) -> Array:
    """Dune sand in wind ripples, with grains at large sizes."""
    bend = surface.noise(0.45 * scale, 0.3 * scale, seed)
    period = 0.085 * scale
    phase = surface.y[:, None] / period + 0.55 * bend + 0.25 * surface.x[None] / period
    keep = surface.keep(0.5 * period)
    ripple = keep * (np.sin(2 * np.pi * phase) + 0.3 * np.sin(4 * np.pi * phase + 0.6))
    grains = surface.clouds(0.022 * scale, 0.018 * scale, seed + 10, octaves=6, gain=0.88)
    tone = 0.55 + 0.17 * ripple + 0.05 * surface.noise(0.5 * scale, 0.4 * scale, seed + 20) + 0.045 * grains
    return mix((0.73, 0.57, 0.36), (0.99, 0.91, 0.72), np.clip(tone, 0, 1))


def tablecloth(surface: Surface, scale: float, seed: int) -> Array:
    """A red and white gingham, woven, in gentle folds."""
    period, thread = 0.15 * scale, 0.0075 * scale
    down = surface.stripes(surface.x, period, 0.5)[None]
    across = surface.stripes(surface.y, period, 0.5)[:, None]
    red = 0.5 * (down + across)
    warp = surface.stripes(surface.x, thread, 0.5)[None] - 0.5
    weft = surface.stripes(surface.y, thread, 0.5)[:, None] - 0.5
    weave = warp * weft * 4
    folds = surface.noise(0.5 * scale, 0.35 * scale, seed) + 0.4 * surface.noise(0.12 * scale, 0.2 * scale, seed + 1)
    cloth = mix((0.98, 0.96, 0.93), (0.80, 0.16, 0.19), red)
    light = 1 - 0.05 * np.clip(folds, -2.5, 2.5) - 0.03 + 0.055 * weave
    return cloth * light[..., None].astype(np.float32)


def tiles(surface: Surface, scale: float, seed: int) -> Array:
    """Glazed square tiles with light joints; no two have quite the same blue."""
    side, gap = 0.165 * scale, 0.055
    columns, left = surface.cells(surface.x, side, gap)
    rows, top = surface.cells(surface.y, side, gap)
    numbers = np.arange(left, left + columns.shape[1])[None], np.arange(top, top + rows.shape[1])[:, None]
    tone = rows @ hash01(*numbers, seed) @ columns.T
    solid = rows.sum(1)[:, None] * columns.sum(1)[None]
    glaze = surface.clouds(0.12 * scale, 0.12 * scale, seed + 10, octaves=7, gain=0.62)
    value = 0.5 + 0.75 * (tone - 0.5 * solid) + 0.075 * glaze
    blue = mix((0.13, 0.33, 0.62), (0.42, 0.70, 0.90), np.clip(value, 0, 1))
    high = surface.stripes(surface.y - gap / 2 * side, side, 0.045)[:, None]
    low = surface.stripes(surface.y + (gap / 2 + 0.045) * side, side, 0.045)[:, None]
    before = surface.stripes(surface.x - gap / 2 * side, side, 0.045)[None]
    after = surface.stripes(surface.x + (gap / 2 + 0.045) * side, side, 0.045)[None]
    bevel = 0.16 * (np.maximum(high, before) - np.maximum(low, after))
    grout = np.asarray((0.86, 0.88, 0.89), np.float32) * (1 + 0.02 * glaze[..., None])
    return mix(grout, blue * (1 + bevel[..., None]), solid)


def water(surface: Surface, scale: float, seed: int) -> Array:
    """Shallow clear water with a net of light on it."""
    depth = surface.clouds(0.5 * scale, 0.4 * scale, seed, octaves=2)
    net = np.zeros_like(depth)
    for layer, (size, strength) in enumerate(((0.20, 0.5), (0.12, 0.3))):
        bend = surface.clouds(size * scale, 0.7 * size * scale, seed + 10 * layer + 10, octaves=3, gain=0.42)
        width = max(0.16, 1.2 * surface.pixel / (size * scale))
        net += strength * 0.16 / width * np.exp(-((bend / width) ** 2)) + 0.10 * strength * np.exp(-((bend / 0.6) ** 2))
    tone = np.clip(0.45 + 0.10 * depth, 0, 1)
    base = mix((0.05, 0.52, 0.66), (0.28, 0.78, 0.83), tone)
    return mix(base, (0.93, 1.0, 0.98), 0.95 * net / (0.35 + net))


def pebbles(surface: Surface, scale: float, seed: int) -> Array:
    """Rounded stones in greys and browns, lit from above, speckled close up."""
    size = 0.125 * scale
    distance, gap, value = surface.nearest(size, seed)
    soft = max(0.05, 0.8 * surface.pixel / size)
    solid = np.clip((gap - 0.02) / soft, 0, 1)
    dome = np.clip(1 - (distance / 0.95) ** 2, 0, 1) * np.clip(gap / 0.22, 0, 1) ** 0.5
    speckle = surface.clouds(0.03 * scale, 0.03 * scale, seed + 10, octaves=6, gain=0.82)
    stone = mix((0.40, 0.39, 0.40), (0.80, 0.77, 0.72), value)
    warm = ((value * 7) % 1.0)[..., None] * np.array((0.08, 0.02, -0.05), np.float32)
    lit = (0.66 + 0.42 * dome + 0.035 * speckle)[..., None]
    return mix((0.17, 0.16, 0.17), np.clip((stone + warm) * lit, 0, 1), solid)


def _named(*paints: Paint) -> dict[str, Paint]:
    return {paint.__name__: paint for paint in paints}  # type: ignore[attr-defined]


PAINTS: dict[str, Paint] = _named(planks, bricks, lawn, sand, tablecloth, tiles, water, pebbles)
UNEVEN = frozenset({"water", "pebbles", "sand"})
