"""The kinds of drawn pictures, called worlds, that the bundled model is trained on, behind one interface.

A world makes a picture's description from a number, renders it at any size, captions it and states its truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from common import CONFIG
from selfcascade.data import collages, scenes

TRUTHS = (
    "count",
    "background",
    "place",
    "relation",
    *(f"{end}_{name}" for end in ("first", "last") for name in ("kind", "colour", "size")),
)


class World(NamedTuple):
    """A kind of drawn pictures.

    Attributes:
        name: Name, with which a caption may begin.
        sample: Maps a number to a description for training.
        held_out: Maps a number to a held-out description.
        render: Maps (description, height, width, window or None) to (H, W, 3) float32 in [0, 1].
        caption: Maps (description, phrasing, crop) to a caption; for a crop it has neither place nor size.
        reach: An object's radius, in units of the square root of the picture's area.
        words: All values of each attribute of a truth.
    """

    name: str
    sample: Callable[[int], Any]
    held_out: Callable[[int], Any]
    render: Callable[..., np.ndarray]
    caption: Callable[[Any, int, bool], str]
    reach: Callable[[Any], float]
    words: dict[str, tuple[str, ...]]


def _both(kinds: tuple[str, ...], sizes: tuple[str, ...], colours: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    words = {"kind": kinds, "size": sizes, **({"colour": colours} if colours else {})}
    return {f"{end}_{name}": value for end in ("first", "last") for name, value in words.items()}


SCENES = World(
    name="scene",
    sample=scenes.sample_scene,
    held_out=lambda number: scenes.sample_scene(number, held_out=True),
    render=scenes.render,
    caption=scenes.caption,
    reach=lambda item: item.radius,
    words={
        "count": ("1", "2"),
        "background": scenes.BACKGROUNDS,
        "place": scenes.PLACES,
        **_both(scenes.KINDS, scenes.SIZES, scenes.COLOURS),
    },
)
COLLAGES = World(
    name="collage",
    sample=collages.sample_collage,
    held_out=lambda number: collages.sample_collage(number, "validation"),
    render=collages.render,
    caption=collages.caption,
    reach=lambda item: item.diameter / 2,
    words={
        "count": ("1", "2"),
        "background": collages.bundled_assets().background_names,
        "place": collages.PLACES,
        "relation": collages.RELATIONS,
        **_both(collages.bundled_assets().kinds, collages.SIZES),
    },
)
WORLDS = {name: {"scene": SCENES, "collage": COLLAGES}[name] for name in CONFIG["worlds"]}


def labels() -> dict[str, list[str]]:
    """All words of each attribute in any world."""
    found: dict[str, list[str]] = {}
    for name in TRUTHS:
        words = [word for world in WORLDS.values() for word in world.words.get(name, ())]
        if words:
            found[name] = list(dict.fromkeys(words))
    return found


class Window(NamedTuple):
    """A part of a large render.

    Attributes:
        top, left: Corner of the window, in pixels of the whole render.
        shown: Description of what is visible.
    """

    top: int
    left: int
    shown: Any


def draw_window(world: World, scene: Any, side: int, window: int, rng: np.random.Generator) -> Window:
    """A window of `window` pixels in a render of `side` pixels, in three of four cases around an object."""
    if rng.random() < 0.75:
        item = scene.items[int(rng.integers(len(scene.items)))]
        spread = 0.5 * world.reach(item) * side
        corner = np.array([item.y, item.x]) * side - window / 2 + rng.normal(0, spread, 2)
    else:
        corner = rng.uniform(0, side - window, 2)
    top, left = (int(edge) for edge in np.clip(corner, 0, side - window))
    y, x, half = (top + window / 2) / side, (left + window / 2) / side, window / 2 / side
    seen = tuple(item for item in scene.items if max(abs(item.x - x), abs(item.y - y)) < half + 0.4 * world.reach(item))
    unplaced = {name: None for name in ("place", "relation") if hasattr(scene, name)}
    return Window(top, left, replace(scene, items=seen, **unplaced))
