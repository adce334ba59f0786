"""Captions of collages."""

from __future__ import annotations

import numpy as np

from selfcascade.data.collages.assets import Assets, bundled_assets
from selfcascade.data.collages.collage import Collage, Item

PLACE_PHRASES = {
    "left": ("on the left", "to the left", "at the left side"),
    "centre": ("in the centre", "in the middle", "at the centre"),
    "right": ("on the right", "to the right", "at the right side"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
}
RELATION_PHRASES = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def caption(collage: Collage, seed: int = 0, crop: bool = False, assets: Assets | None = None) -> str:
    """A natural caption of the collage; `seed` chooses the phrasing.

    With `crop` it describes a window of the picture, without place and size, which a window does not show.

    Raises:
        ValueError: The collage has neither one object with a place nor two with a relation, such as a crowd.
    """
    rng = np.random.default_rng([seed, 3])
    phrases = (assets or bundled_assets()).backgrounds[collage.background]
    ground = phrases[int(rng.integers(len(phrases)))]
    if crop:
        what = " and ".join(_with_article(item.kind) for item in collage.items)
        return f"close up of {what} {ground}" if what else f"close up {ground}"
    if collage.place is None and collage.relation is None:
        raise ValueError(f"a collage of {len(collage.items)} objects without place or relation has no caption")
    what = _sized(collage.items[0])
    if collage.relation is not None:
        both = f"{what} {_link(collage, rng)} {_sized(collage.items[1])}"
        return _joined(both, ground, int(rng.integers(3)))
    places = PLACE_PHRASES[str(collage.place)]
    place = places[int(rng.integers(len(places)))]
    form = int(rng.integers(5))
    if form == 0:
        return f"{what} {place}, {ground}"
    if form == 1:
        return f"{ground}, {what} {place}"
    if form == 2:
        return f"a picture of {what} {ground}, {place}"
    if form == 3:
        return f"{place}, {what} {ground}"
    return f"{what} {ground}, {place}"


def _joined(what: str, ground: str, form: int) -> str:
    return (f"{what}, {ground}", f"{ground}, {what}", f"a picture of {what}, {ground}")[form]


def _link(collage: Collage, rng: np.random.Generator) -> str:
    main, other = collage.items
    if collage.relation == "beside":
        side = "left" if main.x < other.x else "right"
    else:
        side = "above" if main.y < other.y else "below"
    links = RELATION_PHRASES[side]
    return links[int(rng.integers(len(links)))]


def _sized(item: Item) -> str:
    return f"a {item.size} {item.kind}"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0].lower() in 'aeiou' and not kind.startswith('uni') else 'a'} {kind}"
