"""Captioned procedural scenes, rendered at any size from the same vector description."""

from selfcascade.data.scenes.render import render
from selfcascade.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    PLACES,
    SIZES,
    Item,
    Scene,
    caption,
    is_held_out,
    sample_crowd,
    sample_scene,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "PLACES",
    "SIZES",
    "Item",
    "Scene",
    "caption",
    "is_held_out",
    "render",
    "sample_crowd",
    "sample_scene",
]
