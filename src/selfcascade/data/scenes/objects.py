"""Paints each kind of object, in coordinates where it fills [-1, 1] x [-1, 1] and +v points down."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from selfcascade.data.scenes.canvas import (
    Array,
    Canvas,
    blobs,
    box,
    bricks,
    circle,
    ellipse,
    mix,
    polygon,
    scales,
)
from selfcascade.data.scenes.scene import Item

HUES = {  # hue, its jitter, saturation, value
    "red": (0.995, 0.012, 0.80, 0.86),
    "orange": (0.075, 0.010, 0.88, 0.96),
    "yellow": (0.145, 0.012, 0.78, 0.98),
    "green": (0.365, 0.025, 0.72, 0.66),
    "blue": (0.600, 0.020, 0.76, 0.86),
    "purple": (0.765, 0.018, 0.62, 0.70),
    "pink": (0.915, 0.012, 0.42, 0.98),
    "white": (0.120, 0.050, 0.05, 0.97),
}
CREAM, BROWN, DARK = (0.95, 0.90, 0.80), (0.45, 0.30, 0.20), (0.13, 0.11, 0.14)
STEM, WINDOW = (0.25, 0.50, 0.22), (0.99, 0.90, 0.55)


class Paint:
    """An item's colours: plain, light, deep and the outline."""

    def __init__(self, item: Item) -> None:
        hue, jitter, saturation, value = HUES[item.colour]
        plain = colorsys.hsv_to_rgb((hue + jitter * item.hue_shift) % 1.0, saturation, value)
        self.plain = np.asarray(plain, np.float32)
        self.light = mix(self.plain, (1.0, 1.0, 1.0), 0.38)
        self.deep = self.plain * 0.70
        self.line = mix(self.plain * 0.35, DARK, 0.45)


def shaded(canvas: Canvas, colour: Array, amount: float = 0.16) -> Array:
    """The colour lit from the upper left, (H, W, 3)."""
    light = 1.0 - amount * (0.6 * canvas.x + 0.4 * canvas.y)
    return np.clip(colour * light[..., None], 0.0, 1.0)


def house(canvas: Canvas, item: Item, paint: Paint) -> None:
    """Brick walls, a tiled roof, a door of planks, two windows and a chimney."""
    u, v = canvas.x, canvas.y
    canvas.shape(box(u, v, 0.42, -0.92, 0.62, -0.4), paint.deep * 0.8, paint.line)
    mortar, shade = bricks(canvas, u, v, 0.27 * item.texture, 0.125 * item.texture, item.seed)
    wall = mix(paint.plain * (1 + 0.13 * shade[..., None]), mix(paint.light, CREAM, 0.5), 0.75 * mortar)
    canvas.shape(box(u, v, -0.74, -0.2, 0.74, 1.0), shaded(canvas, wall), paint.line)
    tile = scales(canvas, u, v, 0.17 * item.texture)
    roof = mix(paint.deep * 0.55, paint.deep * 1.12, tile)
    canvas.shape(polygon(u, v, [(-0.98, -0.1), (0.0, -0.98), (0.98, -0.1)]), shaded(canvas, roof), paint.line)
    plank = canvas.stripes(u, 0.11, 0.15)
    canvas.shape(box(u, v, -0.17, 0.4, 0.17, 1.0, 0.03), mix(BROWN, DARK, 0.6 * plank), paint.line)
    canvas.fill(circle(u, v, 0.09, 0.72, 0.035), WINDOW)
    for centre in (-0.45, 0.45):
        canvas.shape(box(u, v, centre - 0.16, 0.1, centre + 0.16, 0.46), WINDOW, paint.line)
        canvas.fill(box(u, v, centre - 0.02, 0.1, centre + 0.02, 0.46), paint.line)
        canvas.fill(box(u, v, centre - 0.16, 0.26, centre + 0.16, 0.3), paint.line)


def tree(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A trunk with bark and a crown of leaves in the tree's colour."""
    u, v = canvas.x, canvas.y
    bark = canvas.stripes(u + 0.03 * np.sin(14 * v), 0.075 * item.texture, 0.4)
    trunk = polygon(u, v, [(-0.12, 0.1), (0.12, 0.1), (0.2, 1.0), (-0.2, 1.0)])
    canvas.shape(trunk, mix(BROWN, np.asarray(BROWN) * 0.6, bark), np.asarray(BROWN) * 0.4)
    crown = circle(u, v, 0.0, -0.48, 0.5)
    for cx, cy, r in ((-0.45, -0.12, 0.42), (0.45, -0.14, 0.42), (0.02, 0.06, 0.42)):
        crown = np.minimum(crown, circle(u, v, cx, cy, r))
    cover, shade = blobs(canvas, u, v, 0.15 * item.texture, item.seed)
    leaves = mix(paint.deep * 0.85, paint.plain * (1.02 + 0.2 * shade[..., None]), cover)
    canvas.shape(crown, shaded(canvas, leaves, 0.22), paint.line)


def fish(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A scaly body with fins, tail and a round eye, swimming to the left unless flipped."""
    u, v = canvas.x, canvas.y
    ray = canvas.stripes(v, 0.10 * item.texture, 0.3)
    fin = mix(paint.light, paint.deep, 0.8 * ray)
    canvas.shape(polygon(u, v, [(0.45, 0.0), (1.0, -0.5), (0.86, 0.0)]), fin, paint.line)
    canvas.shape(polygon(u, v, [(0.45, 0.0), (0.86, 0.0), (1.0, 0.5)]), fin, paint.line)
    canvas.shape(polygon(u, v, [(-0.3, -0.35), (0.15, -0.8), (0.4, -0.25)]), fin, paint.line)
    canvas.shape(polygon(u, v, [(-0.1, 0.35), (0.25, 0.72), (0.35, 0.25)]), fin, paint.line)
    arc = scales(canvas, v, u, 0.17 * item.texture)
    skin = mix(paint.deep * 0.82, paint.plain * 1.16, arc)
    body = ellipse(u, v, -0.15, 0.0, 0.84, 0.5)
    canvas.shape(body, shaded(canvas, skin, 0.2), paint.line)
    head = np.maximum(body + 0.05, u + 0.5)
    canvas.fill(head, shaded(canvas, paint.light))
    canvas.shape(circle(u, v, -0.66, -0.1, 0.11), (1.0, 1.0, 1.0), paint.line, 0.035)
    canvas.fill(circle(u, v, -0.68, -0.1, 0.05), DARK)


def balloon(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A hot-air balloon: gores that narrow to the sides, ropes, a woven basket."""
    u, v = canvas.x, canvas.y
    for side in (-1, 1):
        rope = polygon(u, v, [(side * 0.3, 0.3), (side * 0.34, 0.3), (side * 0.17, 0.78), (side * 0.13, 0.78)])
        canvas.fill(rope, DARK)
    weave = np.abs(canvas.stripes(u, 0.1, 0.5) - canvas.stripes(v, 0.1, 0.5))
    canvas.shape(box(u, v, -0.19, 0.7, 0.19, 1.0, 0.05), mix(BROWN, (0.75, 0.55, 0.32), weave), np.asarray(BROWN) * 0.5)
    throat = polygon(u, v, [(-0.7, -0.08), (0.7, -0.08), (0.24, 0.52), (-0.24, 0.52)])
    envelope = np.minimum(circle(u, v, 0.0, -0.27, 0.73), throat)
    waist = np.sqrt(np.clip(1.0 - ((v + 0.27) / 0.82) ** 2, 0.08, 1.0)) * 0.75
    longitude = np.arcsin(np.clip(u / waist, -1, 1))
    gore = canvas.stripes(longitude + 10, 0.5, 0.5)
    seam = canvas.stripes(longitude + 10.02, 0.25, 0.12) * canvas.fade(0.05)
    band = np.exp(-(((v + 0.2) / 0.11) ** 2)) * np.ones_like(u)
    cloth = mix(mix(paint.plain, paint.light, gore), paint.deep, np.maximum(0.6 * seam, 0.8 * band))
    canvas.shape(envelope, shaded(canvas, cloth, 0.26), paint.line)


def boat(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A sailing boat: a planked hull and two sewn sails."""
    u, v = canvas.x, canvas.y
    canvas.fill(box(u, v, -0.05, -1.0, 0.01, 0.6), np.asarray(BROWN) * 0.7)
    seam = canvas.stripes(v + 0.25 * u, 0.15 * item.texture, 0.14)
    sail = mix(paint.plain, paint.deep * 0.8, 0.8 * seam)
    canvas.shape(polygon(u, v, [(0.03, -0.97), (0.9, 0.4), (0.03, 0.4)]), shaded(canvas, sail, 0.2), paint.line)
    front = mix(paint.light, paint.plain, 0.8 * seam)
    canvas.shape(polygon(u, v, [(-0.1, -0.75), (-0.1, 0.4), (-0.8, 0.4)]), shaded(canvas, front, 0.2), paint.line)
    plank = canvas.stripes(v, 0.11 * item.texture, 0.18)
    hull = polygon(u, v, [(-1.0, 0.5), (1.0, 0.5), (0.66, 1.0), (-0.66, 1.0)])
    canvas.shape(hull, shaded(canvas, mix(paint.deep, paint.deep * 0.55, plank)), paint.line)


def flower(canvas: Canvas, item: Item, paint: Paint) -> None:
    """Eight veined petals round a seeded heart, on a stem with two leaves."""
    u, v = canvas.x, canvas.y
    bend = 0.06 * np.sin(3.0 * v)
    canvas.fill(box(u + bend, v, -0.05, -0.2, 0.05, 1.0), STEM)
    for side in (-1, 1):
        leaf = ellipse(u * 0.8 + side * 0.45 * (v - 0.6), v, side * 0.3, 0.62, 0.26, 0.13)
        canvas.shape(leaf, mix(STEM, (0.45, 0.68, 0.32), canvas.stripes(u, 0.08, 0.4)), np.asarray(STEM) * 0.5, 0.03)
    du, dv = u, v + 0.36
    radius, angle = np.sqrt(du * du + dv * dv), np.arctan2(dv, du)
    edge = radius - (0.44 + 0.18 * np.abs(np.cos(4 * angle)) ** 0.7)
    vein = canvas.stripes((angle + 7) * radius, 0.07 * item.texture, 0.3)
    petal = mix(paint.plain, paint.deep, np.clip(0.75 * vein + 0.5 - radius, 0.0, 1.0))
    crease = np.clip(1 - np.abs(np.cos(4 * angle)) / 0.22, 0.0, 1.0) * np.clip(radius / 0.5, 0, 1)
    canvas.shape(edge, mix(petal, paint.line, 0.6 * crease), paint.line)
    cover, shade = blobs(canvas, u, v, 0.075 * item.texture, item.seed)
    heart = mix((0.42, 0.26, 0.08), np.asarray((0.95, 0.72, 0.2)) * (1 + 0.15 * shade[..., None]), cover)
    canvas.shape(circle(u, v, 0.0, -0.36, 0.21), heart, DARK, 0.03)


def lighthouse(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A tapering tower of stone in coloured bands, a gallery and a lamp."""
    u, v = canvas.x, canvas.y
    tower = polygon(u, v, [(-0.25, -0.5), (0.25, -0.5), (0.45, 1.0), (-0.45, 1.0)])
    joint, shade = bricks(canvas, u, v, 0.26 * item.texture, 0.125 * item.texture, item.seed)
    band = canvas.stripes(v + 0.5, 0.62, 0.5)
    stone = mix(CREAM, paint.plain, 0.12 + 0.88 * band) * (1 + 0.09 * shade[..., None])
    canvas.shape(tower, shaded(canvas, mix(stone, stone * 0.6, 0.8 * joint), 0.3), paint.line)
    canvas.shape(box(u, v, -0.17, -0.78, 0.17, -0.5), WINDOW, DARK)
    canvas.fill(box(u, v, -0.02, -0.78, 0.02, -0.5), DARK)
    canvas.shape(box(u, v, -0.36, -0.56, 0.36, -0.45), paint.deep, paint.line)
    canvas.shape(polygon(u, v, [(-0.27, -0.75), (0.0, -1.0), (0.27, -0.75)]), paint.plain, paint.line)
    canvas.shape(box(u, v, -0.12, 0.66, 0.12, 1.0, 0.05), mix(BROWN, DARK, 0.5), paint.line)
    canvas.shape(box(u, v, -0.08, 0.12, 0.08, 0.34, 0.04), WINDOW, paint.line)


def mushroom(canvas: Canvas, item: Item, paint: Paint) -> None:
    """A spotted cap over gills and a pale, fibrous stem."""
    u, v = canvas.x, canvas.y
    fibre = canvas.stripes(u + 0.02 * np.sin(9 * v), 0.075 * item.texture, 0.35)
    stem = polygon(u, v, [(-0.22, -0.05), (0.22, -0.05), (0.32, 1.0), (-0.32, 1.0)])
    canvas.shape(stem, shaded(canvas, mix(CREAM, np.asarray(CREAM) * 0.78, fibre), 0.3), np.asarray(BROWN) * 0.6)
    gill = canvas.stripes(u / (1.2 + 0.6 * v), 0.09 * item.texture, 0.45)
    under = np.maximum(ellipse(u, v, 0.0, 0.0, 0.86, 0.24), -v - 0.02)
    canvas.shape(under, mix(np.asarray(CREAM) * 0.9, np.asarray(CREAM) * 0.6, gill), np.asarray(BROWN) * 0.6)
    grain, _ = blobs(canvas, u, v, 0.07 * item.texture, item.seed)
    cap = np.maximum(ellipse(u, v, 0.0, 0.0, 0.98, 0.95), v - 0.06)
    canvas.shape(cap, shaded(canvas, mix(paint.plain * 0.9, paint.plain * 1.06, grain), 0.24), paint.line)
    spot_colour = CREAM if item.colour != "white" else (0.78, 0.70, 0.60)
    spots = ((-0.45, -0.32, 0.15), (0.05, -0.6, 0.17), (0.5, -0.28, 0.14), (0.02, -0.16, 0.1), (-0.74, -0.09, 0.07))
    for cx, cy, r in spots:
        canvas.shape(circle(u, v, cx, cy, r), spot_colour, np.asarray(spot_colour) * 0.8, 0.02)


PAINTERS: dict[str, Callable[[Canvas, Item, Paint], None]] = {
    painter.__name__: painter for painter in (house, tree, fish, balloon, boat, flower, lighthouse, mushroom)
}
