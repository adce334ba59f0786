"""Scenes: what a picture shows, apart from how it is drawn.

A `Scene` is a vector description. It renders at any size (`render.py`), has a truth that a composition reader can be
checked against, and captions in several phrasings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

KINDS = ("house", "tree", "fish", "balloon", "boat", "flower", "lighthouse", "mushroom")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PLACES = ("left", "centre", "right")
SIZES = ("small", "large")
BACKGROUNDS = ("meadow", "night", "sea", "desert", "snow", "square")

PLACE_FRACTION = {"left": 0.26, "centre": 0.5, "right": 0.74}
SIZE_RADIUS = {"small": 0.155, "large": 0.235}
FLOATING = frozenset({"fish", "balloon"})
HELD_OUT_SHARE = 10

PLACE_PHRASES = {
    "left": ("on the left", "to the left", "at the left side"),
    "centre": ("in the centre", "in the middle", "at the centre"),
    "right": ("on the right", "to the right", "at the right side"),
}
BACKGROUND_PHRASES = {
    "meadow": ("on a meadow", "on a green meadow by day"),
    "night": ("at night", "under the stars at night"),
    "sea": ("over the sea", "above the waves of the sea"),
    "desert": ("in the desert", "in the desert at sunset"),
    "snow": ("in the snow", "in the snow in winter"),
    "square": ("on a cobbled square", "on a cobbled square at dusk"),
}


@dataclass(frozen=True)
class Item:
    """One object: its words, and its exact position.

    `x` is a fraction of the picture's width, `y` of its height; `radius` and everything else is in units of the square
    root of the picture's area, so an object has the same share of the picture at every ratio.
    """

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    hue_shift: float
    texture: float
    flip: bool
    seed: int


@dataclass(frozen=True)
class Scene:
    """A picture's description: main object first, then the second, if there is one, and the background."""

    items: tuple[Item, ...]
    background: str
    texture: float
    seed: int
    place: str | None

    @property
    def truth(self) -> dict[str, str | int]:
        """The correct reading; objects are named by position (first and last from the left)."""
        ordered = sorted(self.items, key=lambda item: item.x)
        reading: dict[str, str | int] = {"count": min(len(ordered), 3), "background": self.background}
        if ordered:
            for name, item in (("first", ordered[0]), ("last", ordered[-1])):
                reading |= {f"{name}_kind": item.kind, f"{name}_colour": item.colour, f"{name}_size": item.size}
        if len(ordered) == 1 and self.place is not None:
            reading["place"] = self.place
        return reading

    def to_json(self) -> str:
        """The scene as JSON; `from_json` gives an equal scene back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The scene that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "items": tuple(Item(**item) for item in fields["items"])})


def is_held_out(kind: str, colour: str, place: str, background: str) -> bool:
    """Whether this combination is held out of every training set (one in ten)."""
    index = KINDS.index(kind) + 3 * COLOURS.index(colour) + 5 * PLACES.index(place) + 7 * BACKGROUNDS.index(background)
    return index % HELD_OUT_SHARE == 0


def sample_scene(seed: int, held_out: bool = False, second: bool | None = None) -> Scene:
    """A scene drawn from `seed` alone.

    Args:
        seed: Any non-negative integer; the same seed always gives the same scene.
        held_out: Whether to draw from the held-out combinations rather than from the trained ones.
        second: Whether there is a second object; None lets the seed choose (35 %).
    """
    rng = np.random.default_rng([seed, int(held_out)])
    if second is None:
        second = bool(rng.random() < 0.35)
    while True:
        background = str(rng.choice(BACKGROUNDS))
        places = ("left", "right") if second else PLACES
        place = str(rng.choice(places))
        main = _sample_item(rng, place, together=second)
        items = (main,)
        if second:
            items += (_sample_item(rng, "right" if place == "left" else "left", together=True),)
        flags = [is_held_out(item.kind, item.colour, place_of(item), background) for item in items]
        if flags[0] if held_out else not any(flags):
            return Scene(items, background, float(rng.uniform(0.75, 1.35)), int(rng.integers(2**31)), place)


def sample_crowd(seed: int) -> Scene:
    """A scene with zero to six objects anywhere, without a caption; it teaches a reader to see repeated objects."""
    rng = np.random.default_rng([seed, 2])
    shrink = rng.uniform(0.45, 1.0)
    items: list[Item] = []
    alike = rng.random() < 0.6
    for _ in range(int(rng.choice(7, p=(0.06, 0.06, 0.14, 0.2, 0.2, 0.18, 0.16)))):
        item = _sample_item(rng, "centre", together=False)
        if alike and items:
            item = replace(item, kind=items[0].kind, colour=items[0].colour)
        for _ in range(30):
            radius = item.radius * shrink
            item = replace(item, x=float(rng.uniform(0.1, 0.9)), y=float(rng.uniform(0.15, 0.88)))
            if all(np.hypot(item.x - o.x, item.y - o.y) > 0.85 * (radius + o.radius) for o in items):
                items.append(replace(item, radius=radius))
                break
    return Scene(tuple(items), str(rng.choice(BACKGROUNDS)), float(rng.uniform(0.75, 1.35)), seed, None)


def caption(scene: Scene, seed: int = 0, crop: bool = False) -> str:
    """A natural caption of the scene; `seed` chooses the phrasing.

    With `crop` it describes a window of the picture, without place and size, which a window does not show.
    """
    rng = np.random.default_rng([seed, 3])
    background = str(rng.choice(BACKGROUND_PHRASES[scene.background]))
    if crop:
        what = " and ".join(f"a {item.colour} {item.kind}" for item in scene.items)
        return f"close up of {what} {background}" if what else f"close up {background}"
    main = scene.items[0]
    place = str(rng.choice(PLACE_PHRASES[scene.place or place_of(main)]))
    what = f"a {main.size} {main.colour} {main.kind}"
    if len(scene.items) > 1:
        other = scene.items[1]
        side = "left" if main.x < other.x else "right"
        link = str(rng.choice((f"{side} of", f"to the {side} of", f"on the {side} of")))
        both = f"{what} {link} a {other.size} {other.colour} {other.kind}"
        return f"{both} {background}" if rng.random() < 0.7 else f"{background}, {both}"
    form = rng.integers(4)
    if form == 0:
        return f"{what} {place} {background}"
    if form == 1:
        return f"{background}, {what} {place}"
    if form == 2:
        return f"a picture of {what} {background}, {place}"
    return f"{place} {what} {background}"


def _sample_item(rng: np.random.Generator, place: str, together: bool) -> Item:
    kind, colour, size = str(rng.choice(KINDS)), str(rng.choice(COLOURS)), str(rng.choice(SIZES))
    radius = SIZE_RADIUS[size] * rng.uniform(0.93, 1.07) * (0.92 if together else 1.0)
    y = rng.uniform(0.36, 0.5) if kind in FLOATING else rng.uniform(0.82, 0.9) - radius
    return Item(
        kind=kind,
        colour=colour,
        size=size,
        x=float(PLACE_FRACTION[place] + rng.uniform(-0.03, 0.03)),
        y=float(y),
        radius=float(radius),
        hue_shift=float(rng.uniform(-1, 1)),
        texture=float(rng.uniform(0.75, 1.35)),
        flip=bool(rng.random() < 0.5),
        seed=int(rng.integers(2**31)),
    )


def place_of(item: Item) -> str:
    """The place whose middle is nearest to the item."""
    return min(PLACE_FRACTION, key=lambda place: abs(PLACE_FRACTION[place] - item.x))
