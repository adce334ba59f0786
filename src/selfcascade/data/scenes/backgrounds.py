"""Paints each background layer by layer: a sky, something in it, a horizon, and textured ground.

At time 0 everything is where pictures show it; clouds, stars, waves and snow move from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from selfcascade.data.scenes.canvas import Array, Canvas, Colour, blobs, circle, ellipse, hash01, mix, noise, polygon
from selfcascade.data.scenes.scene import Scene

HORIZON = 0.62
CLOUD_SPEED = 0.05  # widths per second
WAVE_SPEED = 0.45  # waves per second
SNOW_SPEED = 0.12  # square roots of the area per second
TWINKLE = 0.45  # share by which a star's brightest and faintest differ from its mean


class Setting:
    """The canvas in the coordinates of a background: `x` in units of the root area, `y` as a fraction of the height."""

    def __init__(self, canvas: Canvas, scene: Scene, width: float, height: float, time: float) -> None:
        self.canvas, self.seed, self.texture, self.time = canvas, scene.seed, scene.texture, time
        self.u, self.v = canvas.x, canvas.y
        self.width, self.height = width, height
        self.horizon = (HORIZON + 0.03 * (2 * self.chance(0) - 1)) * height

    def chance(self, index: int) -> float:
        """The index-th fixed random number of this scene, in [0, 1)."""
        return float(hash01(np.array(index), np.array(77), self.seed)[0])

    def sky(self, top: Colour, bottom: Colour) -> None:
        """A vertical gradient down to the horizon."""
        t = np.clip(self.v / self.horizon, 0.0, 1.0) * np.ones_like(self.u)
        self.canvas.image[:] = mix(top, bottom, t)

    def ridge(self, rise: float, period: float, index: int) -> Array:
        """Distance to hills whose outline waves around the horizon."""
        outline = rise * (noise(self.u / period + 5 * index, self.seed + index) - 0.5)
        return (self.horizon + outline) - self.v

    def clouds(self, colour: Colour, opacity: float) -> None:
        """Three soft clouds of overlapping circles, drifting with time."""
        for k in range(3):
            drifted = self.chance(10 + k) + CLOUD_SPEED * self.time
            if not -0.3 < drifted < 1.3:  # out of sight on both sides
                drifted = (drifted + 0.3) % 1.6 - 0.3
            cx = drifted * self.width
            cy, size = (0.08 + 0.24 * self.chance(20 + k)) * self.height, 0.05 + 0.03 * self.chance(30 + k)
            view = self.canvas.view(cx, cy, size, reach=2.4)
            if view is None:
                continue
            cloud = circle(view.x, view.y, 0.0, 0.0, 0.75)
            for dx, r in ((-0.9, 0.5), (0.85, 0.55), (1.5, 0.32), (-1.5, 0.3)):
                cloud = np.minimum(cloud, circle(view.x, view.y, dx, 0.25, r))
            cover = view.soft(np.maximum(cloud, view.y - 0.45), 0.3) * opacity
            view.fill(-np.ones_like(cover), colour, cover)

    def dots(self, cell: float, radius: float, colour: Colour, share: float, limit: float, drift: float = 0.0) -> None:
        """Round dots on a jittered grid (stars, snowflakes), band-limited: dots too small to see add their mean.

        Dots that do not drift twinkle, each at its own pace.
        """
        rows = int((self.v < limit).sum())  # from the top; none is shown below
        canvas = Canvas(self.canvas.image[:rows], self.u, self.v[:rows], self.canvas.pixel)
        v = canvas.y - drift
        column, row = np.floor(self.u / cell), np.floor(v / cell)
        size = radius * (0.5 + hash01(column, row, self.seed + 4))
        dx = self.u / cell - column - 0.2 - 0.6 * hash01(column, row, self.seed + 2)
        dy = v / cell - row - 0.2 - 0.6 * hash01(column, row, self.seed + 3)
        spread = np.maximum(size, 0.6 * canvas.pixel)
        distance = np.sqrt(dx * dx + dy * dy) * cell
        glow = np.clip(1.2 - distance / spread, 0.0, 1.0) * (size / spread) ** 2
        if self.time and not drift:
            phase, pace = (2 * np.pi * hash01(column, row, self.seed + k) for k in (6, 7))
            turn = (0.4 + 0.1 * pace) * 2 * np.pi * self.time
            glow = np.clip(glow * (1 + TWINKLE * (np.sin(phase + turn) - np.sin(phase))), 0.0, 1.0)
        shown = hash01(column, row, self.seed + 5) < share
        canvas.fill(-np.ones_like(glow), colour, glow * shown)


def _grass(setting: Setting, dark: Colour, light: Colour) -> Array:
    depth = np.clip((setting.v - setting.horizon) / (setting.height - setting.horizon), 0.02, 1.0)
    size = 0.03 * setting.texture
    row = np.floor(setting.v / (1.6 * size))
    lean = 0.3 * (setting.v - row * 1.6 * size)
    blade = hash01(np.floor((setting.u + lean) / (0.3 * size)), row, setting.seed)
    tip = setting.v / (1.6 * size) - row
    t = 0.5 + (blade - 0.5) * (0.4 + 0.9 * (1 - tip)) * setting.canvas.fade(0.35 * size)
    tuft = noise(setting.u * 9, setting.seed + 8) * 0.25
    return mix(dark, light, np.clip(0.85 * t + tuft - 0.18 * depth, 0.0, 1.0))


def meadow_sky(setting: Setting) -> None:
    """A blue sky with the sun in it."""
    setting.sky((0.36, 0.64, 0.93), (0.80, 0.92, 0.98))
    sun_x = (0.1 + 0.8 * setting.chance(1)) * setting.width
    setting.canvas.fill(circle(setting.u, setting.v, sun_x, 0.12, 0.06), (1.0, 0.95, 0.7))


def meadow_clouds(setting: Setting) -> None:
    """White clouds."""
    setting.clouds((1.0, 1.0, 1.0), 0.92)


def meadow_ground(setting: Setting) -> None:
    """Hills and grass."""
    setting.canvas.fill(setting.ridge(0.14, 0.35, 1) - 0.05, (0.52, 0.74, 0.58))
    setting.canvas.fill(setting.ridge(0.06, 0.5, 2), _grass(setting, (0.20, 0.46, 0.16), (0.60, 0.80, 0.32)))


def night_sky(setting: Setting) -> None:
    """A dark sky."""
    setting.sky((0.04, 0.05, 0.17), (0.17, 0.20, 0.42))


def night_stars(setting: Setting) -> None:
    """Many faint stars and some bright ones."""
    setting.dots(0.035, 0.0035, (1.0, 0.98, 0.88), 0.55, setting.horizon)
    setting.dots(0.11, 0.008, (1.0, 0.95, 0.8), 0.4, setting.horizon)


def night_ground(setting: Setting) -> None:
    """A crescent moon over dark hills."""
    moon_x = (0.12 + 0.76 * setting.chance(1)) * setting.width
    moon = np.maximum(
        circle(setting.u, setting.v, moon_x, 0.13, 0.06), -circle(setting.u, setting.v, moon_x + 0.03, 0.115, 0.05)
    )
    setting.canvas.fill(moon, (1.0, 0.96, 0.78))
    setting.canvas.fill(setting.ridge(0.14, 0.3, 1) - 0.06, (0.09, 0.12, 0.25))
    setting.canvas.fill(setting.ridge(0.06, 0.5, 2), _grass(setting, (0.04, 0.10, 0.14), (0.14, 0.27, 0.27)))


def sea_sky(setting: Setting) -> None:
    """A pale sky."""
    setting.sky((0.52, 0.78, 0.90), (0.92, 0.95, 0.90))


def sea_clouds(setting: Setting) -> None:
    """White clouds."""
    setting.clouds((1.0, 1.0, 1.0), 0.85)


def waves(setting: Setting) -> None:
    """Rows of curling waves, every other one moving to the other side."""
    size = 0.062 * setting.texture
    row = np.floor((setting.v - setting.horizon) / (0.75 * size))
    sway = WAVE_SPEED * setting.time * np.where(row % 2 > 0, 1.0, -1.0)
    across = (setting.u + sway * size) / size + 0.5 * (row % 2)
    dv = (setting.v - setting.horizon) / (0.75 * size) - row
    crest = 0.42 + 0.38 * np.cos(2 * np.pi * across)
    foam = np.clip(1.0 - np.abs(dv - crest * 0.8) / max(0.14, 0.9 * setting.canvas.pixel / size), 0.0, 1.0)
    body = np.clip((dv - crest * 0.8) * 1.2 + 0.35, 0.0, 1.0)
    keep = setting.canvas.fade(0.3 * size)
    depth = np.clip((setting.v - setting.horizon) / 0.4, 0, 1)
    water = mix(
        (0.16, 0.55, 0.68), (0.04, 0.28, 0.52), np.clip(0.4 * depth + 0.6 * (0.45 + (body - 0.45) * keep), 0, 1)
    )
    water = mix(water, (0.90, 0.97, 0.98), 0.7 * (0.16 + (foam - 0.16) * keep))
    setting.canvas.fill(setting.horizon - setting.v + 0 * setting.u, water)


def desert(setting: Setting) -> None:
    """A low red sun over rippled dunes."""
    setting.sky((0.55, 0.30, 0.50), (1.0, 0.70, 0.38))
    sun_x = (0.2 + 0.6 * setting.chance(1)) * setting.width
    setting.canvas.fill(circle(setting.u, setting.v, sun_x, setting.horizon - 0.1, 0.11), (1.0, 0.86, 0.50))
    setting.canvas.fill(setting.ridge(0.16, 0.45, 1) - 0.06, (0.76, 0.44, 0.32))
    slope = noise(setting.u / 0.4, setting.seed + 3) * 0.12
    ripple = setting.canvas.stripes(setting.v + slope + 0.012 * np.sin(setting.u * 21), 0.034 * setting.texture, 0.42)
    depth = np.clip((setting.v - setting.horizon) / 0.4, 0, 1)
    sand = mix(mix((0.93, 0.68, 0.40), (0.84, 0.52, 0.28), depth), (0.66, 0.36, 0.22), 0.6 * ripple)
    setting.canvas.fill(setting.ridge(0.07, 0.5, 2), sand)


def snow(setting: Setting) -> None:
    """White mountains and drifts."""
    setting.sky((0.60, 0.68, 0.80), (0.86, 0.90, 0.95))
    for k in range(3):
        peak, foot = (0.15 + 0.35 * k + 0.1 * setting.chance(k)) * setting.width, setting.horizon + 0.02
        high = 0.20 + 0.12 * setting.chance(5 + k)
        mountain = polygon(setting.u, setting.v, [(peak - 0.3, foot), (peak, foot - high), (peak + 0.3, foot)])
        setting.canvas.fill(mountain, (0.50, 0.57, 0.70))
        jag = 0.02 * noise(setting.u * 40, setting.seed + k)
        setting.canvas.fill(np.maximum(mountain, setting.v - (foot - 0.62 * high) - jag), (0.97, 0.98, 1.0))
    drift = noise(setting.u / 0.3, setting.seed + 3) * 0.1
    line = setting.canvas.stripes(setting.v + drift, 0.07 * setting.texture, 0.3)
    cover, _ = blobs(setting.canvas, setting.u, setting.v, 0.02 * setting.texture, setting.seed)
    ground = mix(mix((0.97, 0.98, 1.0), (0.80, 0.86, 0.95), 0.6 * line), (0.72, 0.80, 0.92), 0.3 * (1 - cover))
    setting.canvas.fill(setting.ridge(0.06, 0.5, 2), ground)


def flakes(setting: Setting) -> None:
    """Falling snow."""
    setting.dots(0.05, 0.006, (1.0, 1.0, 1.0), 0.7, 2.0, drift=SNOW_SPEED * setting.time)


def square(setting: Setting) -> None:
    """An old town's arches at dusk behind rows of cobbles."""
    setting.sky((0.30, 0.24, 0.46), (0.88, 0.60, 0.58))
    wall_top = setting.horizon - 0.10
    setting.canvas.fill(wall_top - setting.v + 0 * setting.u, (0.36, 0.29, 0.38))
    period = 0.14
    within = (setting.u + setting.chance(2)) % period - period / 2
    arch = np.minimum(
        np.maximum(np.abs(within) - 0.035, wall_top + 0.06 - setting.v),
        np.sqrt(within**2 + (setting.v - wall_top - 0.06) ** 2) - 0.035,
    )
    lit = hash01(np.floor((setting.u + setting.chance(2)) / period), np.zeros_like(setting.u), setting.seed) > 0.5
    setting.canvas.fill(arch, mix((0.20, 0.15, 0.24), (0.98, 0.80, 0.46), lit * np.ones_like(setting.v)))
    size = 0.05 * setting.texture
    row = np.floor((setting.v - setting.horizon) / (0.7 * size))
    across = setting.u / size + 0.5 * (row % 2)
    column = np.floor(across)
    shade = hash01(column, row, setting.seed)
    du, dv = 2 * (across - column) - 1, 2 * ((setting.v - setting.horizon) / (0.7 * size) - row) - 1
    stone = np.clip(1.25 - (np.abs(du) ** 3 + np.abs(dv) ** 3), 0.0, 1.0)
    keep = setting.canvas.fade(0.5 * size)
    tone = mix((0.50, 0.46, 0.50), (0.68, 0.61, 0.60), 0.5 + (shade - 0.5) * keep)
    cobbles = mix((0.27, 0.24, 0.30), tone, 0.78 + (stone - 0.78) * keep)
    setting.canvas.fill(setting.horizon - setting.v + 0 * setting.u, cobbles)


class Part(NamedTuple):
    """A layer of a background, and whether it changes with time."""

    paint: Callable[[Setting], None]
    moves: bool = False


BACKGROUND_PARTS: dict[str, tuple[Part, ...]] = {
    "meadow": (Part(meadow_sky), Part(meadow_clouds, True), Part(meadow_ground)),
    "night": (Part(night_sky), Part(night_stars, True), Part(night_ground)),
    "sea": (Part(sea_sky), Part(sea_clouds, True), Part(waves, True)),
    "desert": (Part(desert),),
    "snow": (Part(snow), Part(flakes, True)),
    "square": (Part(square),),
}


def ground_shadow(canvas: Canvas, x: float, foot: float, radius: float) -> None:
    """A soft dark oval where an object stands."""
    view = canvas.view(x, foot, radius, reach=1.4)
    if view is not None:
        cover = view.soft(ellipse(view.x, view.y, 0.08, 0.0, 1.0, 0.16), 0.2) * 0.38
        view.fill(-np.ones_like(cover), (0.08, 0.07, 0.12), cover)
