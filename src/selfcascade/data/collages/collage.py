"""What a collage shows, apart from how it is drawn.

A `Collage` names one or two cut-outs, their places and sizes, and a background. It renders at any size (`render.py`),
has a truth that a composition reader can be checked against, and captions in several phrasings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

PLACES = ("left", "centre", "right", "top", "bottom")
SIZES = ("small", "large")
RELATIONS = ("beside", "above")

PLACE_FRACTION = {
    "left": (0.28, 0.5),
    "centre": (0.5, 0.5),
    "right": (0.72, 0.5),
    "top": (0.5, 0.28),
    "bottom": (0.5, 0.72),
}
SIZE_DIAMETER = {"small": 0.33, "large": 0.5}

# Splits that a combination of kind, place, size and background, or a pair of kinds, belongs to: one in ten is held out.
Split = Literal["train", "tuning", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "tuning", "validation", "test")
_SHARES = 30


@dataclass(frozen=True)
class Item:
    """One cut-out: its words, and its exact position.

    `x` is a fraction of the picture's width, `y` of its height; `diameter` is that of its longer side, in units of the
    square root of the picture's area.

    Attributes:
        turn: Degrees, clockwise.
        flip: Whether it is mirrored.
        seed: Chooses among several cut-outs of the kind.
    """

    kind: str
    size: str
    x: float
    y: float
    diameter: float
    turn: float
    flip: bool
    seed: int


@dataclass(frozen=True)
class Collage:
    """A picture's description: main object first, then the second, if there is one, and the background.

    Attributes:
        texture: Scale of the background's pattern, about 1.
        seed: Seed of the background's random parts.
        place: Place of a single object; None for others.
        relation: Relation of two objects: "beside" or "above"; None for others.
    """

    items: tuple[Item, ...]
    background: str
    texture: float
    seed: int
    place: str | None
    relation: str | None

    @property
    def ordered(self) -> tuple[Item, ...]:
        """The objects from the left, or from the top if one is above the other."""
        along = (lambda item: item.y) if self.relation == "above" else (lambda item: item.x)
        return tuple(sorted(self.items, key=along))

    @property
    def truth(self) -> dict[str, str | int]:
        """The correct reading; `first` and `last` follow the order of `ordered`."""
        reading: dict[str, str | int] = {"count": min(len(self.items), 3), "background": self.background}
        if self.items:
            for name, item in (("first", self.ordered[0]), ("last", self.ordered[-1])):
                reading |= {f"{name}_kind": item.kind, f"{name}_size": item.size}
        for name in ("place", "relation"):
            value = getattr(self, name)
            reading |= {} if value is None else {name: value}
        return reading

    def to_json(self) -> str:
        """The collage as JSON; `from_json` gives an equal one back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Collage:
        """The collage that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "items": tuple(Item(**item) for item in fields["items"])})


def split_of(*words: str) -> Split:
    """The split of a combination of words: 9 in 10 for training, the rest evenly tuning, validation and test."""
    share = int.from_bytes(hashlib.sha256("|".join(words).encode()).digest()[:8]) % _SHARES
    return SPLITS[share + 1] if share < len(SPLITS) - 1 else "train"


def splits_of(collage: Collage) -> set[Split]:
    """The splits of the collage's combinations: each object's, and that of the pair of kinds in any order."""
    found: set[Split] = set()
    if len(collage.items) == 1:
        item = collage.items[0]
        found.add(split_of(item.kind, str(collage.place), item.size, collage.background))
    elif len(collage.items) == 2:
        found.add(split_of(*sorted(item.kind for item in collage.items)))
    return found
