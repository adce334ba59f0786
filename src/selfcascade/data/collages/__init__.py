"""Captioned collages: cut-outs on textured backgrounds, composed at any size from the same description."""

from selfcascade.data.collages.assets import Assets, bundled_assets, open_assets
from selfcascade.data.collages.captions import caption
from selfcascade.data.collages.collage import (
    PLACES,
    RELATIONS,
    SIZES,
    SPLITS,
    Collage,
    Item,
    Split,
    split_of,
    splits_of,
)
from selfcascade.data.collages.render import render
from selfcascade.data.collages.sampling import sample_collage, sample_crowd
from selfcascade.data.collages.sprites import bundled_categories

__all__ = [
    "PLACES",
    "RELATIONS",
    "SIZES",
    "SPLITS",
    "Assets",
    "Collage",
    "Item",
    "Split",
    "bundled_assets",
    "bundled_categories",
    "caption",
    "open_assets",
    "render",
    "sample_collage",
    "sample_crowd",
    "split_of",
    "splits_of",
]
