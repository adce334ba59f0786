"""Draws collages from a seed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from selfcascade.data.collages.assets import Assets, bundled_assets
from selfcascade.data.collages.collage import (
    PLACE_FRACTION,
    PLACES,
    SIZE_DIAMETER,
    SIZES,
    SPLITS,
    Collage,
    Item,
    Split,
    split_of,
)

PAIR_SHARE = 0.4
PAIR_SHRINK = 0.88
MAX_TURN = 14.0
MAX_DRAWS = 20_000


def sample_collage(
    seed: int, split: Split = "train", second: bool | None = None, assets: Assets | None = None
) -> Collage:
    """A collage drawn from `seed` alone.

    A single object's combination of kind, place, size and background, and the kinds of two objects, belong to the
    split. No two splits share a combination.

    Args:
        seed: Any non-negative integer; the same seed always gives the same collage.
        split: The split that combinations are drawn from.
        second: Whether there is a second object; None lets the seed choose (40 %), unless no pair of kinds belongs to
            the split.
        assets: Cut-outs and backgrounds; None: the bundled ones.

    Raises:
        ValueError: The split is unknown, or the assets are too few for it to have a combination.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    assets = assets or bundled_assets()
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    both = bool(rng.random() < PAIR_SHARE) and _has_pair(assets.kinds, split) if second is None else second
    for _ in range(MAX_DRAWS):
        background = _one_of(rng, assets.background_names)
        if both:
            first, other = (_one_of(rng, assets.kinds) for _ in range(2))
            if first == other or split_of(*sorted((first, other))) != split:
                continue
            places = (("left", "right"), ("top", "bottom"))[int(rng.integers(2))]
            places = places if rng.random() < 0.5 else places[::-1]
            items = tuple(_item(rng, kind, place, True) for kind, place in zip((first, other), places, strict=True))
            place, relation = None, "beside" if "left" in places else "above"
        else:
            kind, place = _one_of(rng, assets.kinds), _one_of(rng, PLACES)
            items, relation = (_item(rng, kind, place, False),), None
            if split_of(kind, place, items[0].size, background) != split:
                continue
        return Collage(items, background, float(rng.uniform(0.8, 1.3)), int(rng.integers(2**31)), place, relation)
    raise ValueError(f"{len(assets.kinds)} kinds of cut-outs are too few for collages of the split {split!r}")


def sample_crowd(seed: int, assets: Assets | None = None) -> Collage:
    """A collage of zero to six objects anywhere, without a caption; it teaches a reader to see repeated objects."""
    assets = assets or bundled_assets()
    rng = np.random.default_rng([seed, len(SPLITS)])
    shrink, alike = rng.uniform(0.55, 1.0), rng.random() < 0.6
    items: list[Item] = []
    for _ in range(int(rng.choice(7, p=(0.06, 0.06, 0.14, 0.2, 0.2, 0.18, 0.16)))):
        item = _item(rng, items[0].kind if alike and items else _one_of(rng, assets.kinds), "centre", False)
        diameter = item.diameter * shrink
        for _ in range(30):
            x, y = (float(place) for place in rng.uniform(0.14, 0.86, 2))
            if all(np.hypot(x - other.x, y - other.y) > 0.5 * (diameter + other.diameter) for other in items):
                items.append(replace(item, x=x, y=y, diameter=diameter))
                break
    return Collage(
        tuple(items),
        _one_of(rng, assets.background_names),
        float(rng.uniform(0.8, 1.3)),
        int(rng.integers(2**31)),
        None,
        None,
    )


@functools.lru_cache(maxsize=16)
def _has_pair(kinds: tuple[str, ...], split: Split) -> bool:
    return any(split_of(*sorted(pair)) == split for pair in itertools.combinations(kinds, 2))


def _item(rng: np.random.Generator, kind: str, place: str, together: bool) -> Item:
    size = _one_of(rng, SIZES)
    x, y = PLACE_FRACTION[place]
    return Item(
        kind=kind,
        size=size,
        x=float(x + rng.uniform(-0.025, 0.025)),
        y=float(y + rng.uniform(-0.025, 0.025)),
        diameter=float(SIZE_DIAMETER[size] * rng.uniform(0.94, 1.06) * (PAIR_SHRINK if together else 1.0)),
        turn=float(rng.uniform(-MAX_TURN, MAX_TURN)),
        flip=bool(rng.random() < 0.5),
        seed=int(rng.integers(2**31)),
    )


def _one_of(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
