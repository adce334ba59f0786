"""Cut-outs ready for composition: decoded once, premultiplied, halved repeatedly, with their shadow.

Axis letters: H, W pixels; L the side of a square level.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Array = np.ndarray

SPRITES = Path(__file__).parent / "sprites"
SIDE = 512
SMALLEST = 16
VISIBLE = [0] * 3 + [255] * 253  # whether an opacity counts as visible when a cut-out is cropped
MARGIN = 1  # transparent pixels around a level, towards which its edge is interpolated
# A shadow is made from the level of this side, and extends this share of the diameter beyond the cut-out's square.
SHADOW_LEVEL, SHADOW_REACH = 128, 0.25
# Strength and width (in diameters) of the dark line where the cut-out touches the ground, and of the soft rest.
SHADOW_PARTS = ((0.30, 0.012), (0.38, 0.055))


class Sprite(NamedTuple):
    """A cut-out in a square, filled by its longer side, as pictures with a margin.

    Attributes:
        levels: Mode "RGBa" (colours premultiplied), 512, 256, ... 16 pixels a side, each the box-filtered last one.
        shadow: Mode "L": how much light is removed, for a square 1.5 times as wide.
    """

    levels: tuple[Image.Image, ...]
    shadow: Image.Image

    def level(self, side: float) -> Image.Image:
        """The smallest level of at least that side in pixels, or the largest."""
        return next((level for level in reversed(self.levels) if level.width - 2 * MARGIN >= side), self.levels[0])


def squared(picture: Image.Image) -> Array:
    """A cut-out's visible part in the middle of a square, (512, 512, 4) uint8, premultiplied.

    Raises:
        ValueError: Nothing of it is visible.
    """
    box = picture.getchannel("A").point(VISIBLE).getbbox()
    if box is None:
        raise ValueError("is transparent all over")
    width, height = box[2] - box[0], box[3] - box[1]
    scale = SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    filtered = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    inner = picture.crop(box) if scale == 1 else picture.resize(size, filtered, box=box)
    pixels = np.asarray(inner).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    square = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = pixels.round()
    return square


def prepare(picture: Image.Image) -> Sprite:
    """A cut-out (RGBA, of any size) as a sprite.

    Raises:
        ValueError: Nothing of it is visible.
    """
    exact: list[Array] = [squared(picture).astype(np.float32)]
    while len(exact[-1]) > SMALLEST:
        last = exact[-1]
        exact.append((last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4)
    alpha = next(level for level in exact if len(level) == SHADOW_LEVEL)[..., 3]
    padded = np.pad(alpha, round(SHADOW_REACH * SHADOW_LEVEL))
    shadow = np.zeros_like(padded)
    for strength, width in SHADOW_PARTS:
        blur = gaussian(len(padded), width * SHADOW_LEVEL)
        shadow += strength * (blur @ padded @ blur.T)
    return Sprite(tuple(as_picture(level, "RGBa") for level in exact), as_picture(shadow, "L"))


def as_picture(pixels: Array, mode: str) -> Image.Image:
    """A square of values from 0 to 255 with a margin of zeros."""
    margin = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))[: pixels.ndim]
    padded = np.pad(pixels, margin).round().astype(np.uint8)
    return Image.frombytes(mode, padded.shape[1::-1], padded.tobytes())


def gaussian(side: int, width: float) -> Array:
    """The matrix (side, side) that blurs a column of pixels by a Gaussian of that width."""
    distance = np.arange(side)[:, None] - np.arange(side)[None]
    kernel = np.exp(-0.5 * (distance / width) ** 2)
    return (kernel / kernel.sum(1, keepdims=True).max()).astype(np.float32)


@functools.lru_cache(maxsize=128)
def read_sprite(path: Path) -> Sprite:
    """Reads the cut-out in a file, with a cache.

    Raises:
        ValueError: The file is damaged, or nothing of the cut-out is visible.
    """
    try:
        with Image.open(path) as picture:
            return prepare(picture.convert("RGBA"))
    except Exception as error:  # decoders raise many kinds of errors: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"cut-out {str(path)!r} cannot be used: {error}") from error


@functools.cache
def bundled_sprites() -> Mapping[str, tuple[Path, ...]]:
    """Files of the bundled cut-outs, by kind."""
    rows = json.loads((SPRITES / "index.json").read_text())
    return {row["kind"]: (SPRITES / row["file"],) for row in rows}


@functools.cache
def bundled_categories() -> Mapping[str, tuple[str, ...]]:
    """Kinds of the bundled cut-outs by category: animal, plant, food, vehicle, object."""
    rows = json.loads((SPRITES / "index.json").read_text())
    return {name: tuple(row["kind"] for row in rows if row["category"] == name) for name in _names(rows)}


def _names(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["category"] for row in rows))
