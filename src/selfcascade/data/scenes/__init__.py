"""Captioned procedural scenes, rendered at any size from the same vector description; still, and in motion."""

from selfcascade.data.scenes.motion import (
    DIRECTIONS,
    SECONDS,
    MovingScene,
    is_held_out_motion,
    sample_moving_scene,
)
from selfcascade.data.scenes.motion_words import MOTION_WORDS, moving_caption
from selfcascade.data.scenes.poses import Motion
from selfcascade.data.scenes.render import render
from selfcascade.data.scenes.render_clip import render_clip
from selfcascade.data.scenes.scene import (
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
    "DIRECTIONS",
    "KINDS",
    "MOTION_WORDS",
    "PLACES",
    "SECONDS",
    "SIZES",
    "Item",
    "Motion",
    "MovingScene",
    "Scene",
    "caption",
    "is_held_out",
    "is_held_out_motion",
    "moving_caption",
    "render",
    "render_clip",
    "sample_crowd",
    "sample_moving_scene",
    "sample_scene",
]
