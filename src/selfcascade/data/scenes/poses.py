"""How objects move: along a straight line, and each kind in its own way (boats bob, crowns sway).

Coordinates are those of `canvas.py`; an object fills [-1, 1] x [-1, 1], and +v points down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfcascade.data.scenes.canvas import Canvas
from selfcascade.data.scenes.scene import Item

MIDDLE = 1.0  # seconds from the start of a clip to the moment that shows the still scene
HEADINGS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0), "still": (0.0, 0.0)}
SWING_PACE = {"boat": 0.75, "fish": 1.6, "tree": 0.55, "flower": 0.7, "balloon": 0.4}  # swings per second
BOB, ROLL, WAG, SWAY, BEND, LEAN = 0.045, 0.06, 0.13, 0.09, 0.12, 0.04


@dataclass(frozen=True)
class Motion:
    """How one object moves.

    Attributes:
        direction: "left", "right", "up", "down" or "still".
        speed: Widths of the picture per second, or heights for up and down.
        phase: Phase of its swing, in turns.
    """

    direction: str
    speed: float
    phase: float

    def place(self, item: Item, time: float) -> tuple[float, float]:
        """The item's x and y at a time, as fractions of the picture; it passes its own place at `MIDDLE`."""
        across, down = HEADINGS[self.direction]
        way = self.speed * (time - MIDDLE)
        return item.x + across * way, item.y + down * way

    def swing(self, kind: str, time: float) -> float:
        """Position of an object of this kind in its swing, from -1 to 1; 0 for kinds that do not swing."""
        pace = SWING_PACE.get(kind)
        return 0.0 if pace is None else float(np.sin(2 * np.pi * (pace * time + self.phase)))

    def visible(self, kind: str) -> bool:
        """Whether anything of an object of this kind changes with time."""
        return self.direction != "still" or kind in SWING_PACE


def lift(kind: str, swing: float) -> float:
    """How far a swing moves the whole object down, in units of its radius."""
    return BOB * swing if kind == "boat" else 0.0


def bend(view: Canvas, kind: str, swing: float) -> Canvas:
    """The view in coordinates bent by the swing of an object of this kind, so that its painter can ignore it.

    A fish wags its tail, a boat rolls about its waterline, a balloon leans, a tree and a flower bend from the foot.
    """
    u, v = view.x, view.y
    if kind == "fish":
        v = v - WAG * swing * np.maximum(u + 0.1, 0.0) ** 2
    elif kind == "boat":
        u, v = u + ROLL * swing * (v - 0.75), v - ROLL * swing * u
    elif kind == "balloon":
        u = u + LEAN * swing * v
    elif kind in ("tree", "flower"):
        u = u - (SWAY if kind == "tree" else BEND) * swing * np.clip((1.0 - v) / 2, 0.0, 1.1) ** 1.5
    return Canvas(view.image, u, v, view.pixel)
