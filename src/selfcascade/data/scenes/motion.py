"""Moving scenes: what a clip shows, apart from how it is drawn.

A `MovingScene` is a still scene, which a clip shows in its middle, and a motion for each object. Fish, balloons and
boats move. Houses, trees and everything else on the ground stay in place, though crowns and flowers sway.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from selfcascade.data.scenes.poses import HEADINGS, MIDDLE, Motion
from selfcascade.data.scenes.scene import (
    COLOURS,
    HELD_OUT_SHARE,
    KINDS,
    Item,
    Scene,
    place_of,
    sample_scene,
)

DIRECTIONS = ("left", "right", "up", "down", "still")
SECONDS = 2 * MIDDLE
# Odds of each direction for a mover; they make the directions of a clip's first object about equally frequent.
ODDS = {
    "fish": {"left": 0.3, "right": 0.3, "up": 0.2, "down": 0.2},
    "balloon": {"left": 0.15, "right": 0.15, "up": 0.35, "down": 0.35},
    "boat": {"left": 0.45, "right": 0.45, "still": 0.1},
}
# Share of still scenes kept when the main object cannot move: four in five main objects are then movers.
STILL_SHARE = 0.15
TRAVEL = (0.22, 0.36)  # of the width in two seconds: 21 to 34 % from the first of 16 frames to the last
RISE = (0.22, 0.32)  # the same of the height
EDGE = 0.005
# Two objects may come this close, as a share of the sum of their radii, and never change sides.
NEAREST, SIDE_GAP = 0.72, 0.12
TRIES = 12


@dataclass(frozen=True)
class MovingScene:
    """A clip's description.

    Attributes:
        scene: The scene one second into the clip, with objects in the middle of their paths.
        motions: One motion for each item.
    """

    scene: Scene
    motions: tuple[Motion, ...]

    @property
    def truth(self) -> dict[str, str | int]:
        """The scene's truth, with the directions of the first and the last object from the left."""
        ordered = sorted(zip(self.scene.items, self.motions, strict=True), key=lambda pair: pair[0].x)
        ends = (("first_motion", ordered[0]), ("last_motion", ordered[-1])) if ordered else ()
        return self.scene.truth | {name: motion.direction for name, (_, motion) in ends}

    def to_json(self) -> str:
        """The moving scene as JSON; `from_json` gives an equal one back."""
        fields = {"scene": asdict(self.scene), "motions": [asdict(motion) for motion in self.motions]}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> MovingScene:
        """The moving scene that `to_json` wrote."""
        fields = json.loads(text)
        scene = Scene.from_json(json.dumps(fields["scene"]))
        return cls(scene, tuple(Motion(**motion) for motion in fields["motions"]))


def is_held_out_motion(kind: str, colour: str, direction: str) -> bool:
    """Whether a mover of this kind and colour is never seen going this way in training (one in ten)."""
    if kind not in ODDS or direction == "still":
        return False
    index = 3 * KINDS.index(kind) + 7 * COLOURS.index(colour) + 4 * DIRECTIONS.index(direction)
    return index % HELD_OUT_SHARE == 0


def sample_moving_scene(seed: int, held_out: bool = False, second: bool | None = None) -> MovingScene:
    """A moving scene drawn from `seed` alone.

    Args:
        seed: Any non-negative integer; the same seed always gives the same moving scene.
        held_out: Whether the main object's kind, colour, place and background are a combination held out of training;
            if not, neither that nor a motion of `is_held_out_motion` occurs.
        second: Whether there is a second object; None lets the seed choose (35 %).
    """
    rng = np.random.default_rng([seed, int(held_out), 5])
    if second is None:
        second = bool(rng.random() < 0.35)
    while True:
        scene = sample_scene(int(rng.integers(2**53)), held_out, second)
        if scene.items[0].kind not in ODDS and rng.random() > STILL_SHARE:
            continue
        for _ in range(TRIES):
            moving = _set_in_motion(scene, rng)
            if _fits(moving) and (held_out or not any(map(_is_held_out, moving.scene.items, moving.motions))):
                return moving


def facing(item: Item, direction: str) -> Item:
    """The item facing its direction, if that is left or right; fish and boats are painted heading left."""
    return replace(item, flip=direction == "right") if direction in ("left", "right") else item


def _set_in_motion(scene: Scene, rng: np.random.Generator) -> MovingScene:
    """Adds a motion to each item, and moves paths into the picture."""
    items, motions = [], []
    for item in scene.items:
        odds = ODDS.get(item.kind, {"still": 1.0})
        direction = str(rng.choice(list(odds), p=list(odds.values())))
        across = HEADINGS[direction][0] != 0
        travel = 0.0 if direction == "still" else float(rng.uniform(*(TRAVEL if across else RISE)))
        half = travel / 2 + EDGE
        x = _within(item.x, item.radius + (half if across else 0)) if direction != "still" else item.x
        y = item.y if across or direction == "still" else _within(item.y, item.radius + half)
        items.append(facing(replace(item, x=x, y=y), direction))
        motions.append(Motion(direction, travel / SECONDS, float(rng.random())))
    return MovingScene(replace(scene, items=tuple(items)), tuple(motions))


def _within(value: float, margin: float) -> float:
    return float(min(max(value, margin), 1.0 - margin))


def _fits(moving: MovingScene) -> bool:
    """Whether all objects stay inside the picture, apart from each other, and at their places and sides."""
    scene, motions = moving.scene, moving.motions
    places = [scene.place, "right" if scene.place == "left" else "left"][: len(scene.items)]
    if [place_of(item) for item in scene.items] != places:
        return False
    if any(2 * item.radius + motion.speed * SECONDS > 1.0 for item, motion in zip(scene.items, motions, strict=True)):
        return False
    if len(scene.items) < 2:
        return True
    paths = [_path(item, motion) for item, motion in zip(scene.items, motions, strict=True)]
    apart = paths[0] - paths[1]  # (times, 2)
    left = apart[:, 0] * np.sign(scene.items[0].x - scene.items[1].x)
    reach = NEAREST * sum(item.radius for item in scene.items)
    return bool(left.min() > SIDE_GAP and np.hypot(*apart.T).min() > reach)


def _path(item: Item, motion: Motion) -> np.ndarray:
    return np.array([motion.place(item, time) for time in np.linspace(0.0, SECONDS, 17)])


def _is_held_out(item: Item, motion: Motion) -> bool:
    return is_held_out_motion(item.kind, item.colour, motion.direction)
