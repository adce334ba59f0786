"""Captions of moving scenes: the words of a picture's caption, and what each object does."""

from __future__ import annotations

import numpy as np

from selfcascade.data.scenes.motion import MovingScene
from selfcascade.data.scenes.poses import Motion
from selfcascade.data.scenes.scene import BACKGROUND_PHRASES, Item, place_of

# Words that captions of pictures do not have. "left", "right", "up", "to" and "the" occur there too.
MOTION_WORDS = ("swims", "sails", "floats", "goes", "rises", "sinks", "down", "stands", "still")
VERBS = {"fish": "swims", "boat": "sails", "balloon": "floats"}
RESTS = {"balloon": "floats still"}
# "to the left" is a place in a picture's caption, but a direction here.
MOVING_PLACE_PHRASES = {
    "left": ("on the left", "at the left side"),
    "centre": ("in the centre", "in the middle", "at the centre"),
    "right": ("on the right", "at the right side"),
}


def moving_caption(moving: MovingScene, seed: int = 0) -> str:
    """A natural caption that names each object, its place in the middle of the clip and where it goes.

    It has at most 30 tokens for the bundled model's tokenizer, so that none is cut off. If only one of two objects
    moves, the other is named without a verb.

    Args:
        moving: The scene to describe, with one or two objects.
        seed: Seed that chooses the phrasing.
    """
    rng = np.random.default_rng([seed, 6])
    pairs = sorted(zip(moving.scene.items, moving.motions, strict=True), key=lambda pair: pair[0].x)
    phrases = BACKGROUND_PHRASES[moving.scene.background]
    if len(pairs) > 1:
        return _caption_of_two(pairs, phrases[0], rng)
    item, motion = pairs[0]
    background = str(rng.choice(phrases))
    place = str(rng.choice(MOVING_PLACE_PHRASES[place_of(item)]))
    does = _does(item, motion, rng)
    form = rng.integers(4)
    if form == 0:
        return f"{_what(item)} {place} {does} {background}"
    if form == 1:
        return f"{background}, {_what(item)} {place} {does}"
    if form == 2:
        return f"{place} {_what(item)} {does} {background}"
    return f"{background} {place} {_what(item)} {does}"


def _caption_of_two(pairs: list[tuple[Item, Motion]], background: str, rng: np.random.Generator) -> str:
    moving = [motion.direction != "still" for _, motion in pairs]
    parts = []
    for (item, motion), moves, side in zip(pairs, moving, ("left", "right"), strict=True):
        does = "" if not moves else f" {_goes(motion)}" if all(moving) else f" {_does(item, motion, rng, short=True)}"
        parts.append(f"on the {side} {_what(item)}{does}")
    both = " and ".join(parts)
    return f"{both} {background}" if any(moving) else f"{both}, still, {background}"


def _what(item: Item) -> str:
    return f"a {item.size} {item.colour} {item.kind}"


def _does(item: Item, motion: Motion, rng: np.random.Generator, short: bool = False) -> str:
    """What an object does, with a verb that fits its kind."""
    verb, direction = VERBS.get(item.kind, ""), motion.direction
    if direction in ("left", "right"):
        return f"{verb} {direction}" if short or rng.random() < 0.4 else f"{verb} to the {direction}"
    if item.kind == "fish" and direction != "still" and rng.random() < 0.5:
        return f"{verb} {direction}"
    return {"up": "rises", "down": "sinks", "still": RESTS.get(item.kind, "stands still")}[direction]


def _goes(motion: Motion) -> str:
    """What an object does in few words, for two that both move."""
    return {"up": "rises", "down": "sinks"}.get(motion.direction, f"goes {motion.direction}")
