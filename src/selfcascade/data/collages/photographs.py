"""A user's photographs as backgrounds: cropped to the picture's ratio, at a random place and size."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image

from selfcascade.data.collages.names import files_in, texts_in, words_of
from selfcascade.data.collages.textures import Array, Surface
from selfcascade.data.examples import DataError
from selfcascade.media.endings import PICTURES
from selfcascade.media.images import read_image

MAX_ZOOM = 1.6
MAX_PIXELS = 2_000_000  # kept of each photograph


def photographs_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The photographs below a folder, by their names in captions; several may share one.

    Raises:
        DataError: The folder is missing, or has no photographs.
    """
    if not folder.is_dir():
        raise DataError(f"backgrounds {str(folder)!r} is not a folder")
    files = files_in(folder, PICTURES, "backgrounds")
    if not files:
        raise DataError(f"backgrounds {str(folder)!r} has no photographs ({', '.join(sorted(PICTURES))})")
    texts, found = texts_in(folder), dict[str, list[Path]]()
    for path in files:
        found.setdefault(words_of(path, texts), []).append(path)
    return {name: tuple(own) for name, own in found.items()}


def photograph(path: Path, surface: Surface, seed: int) -> Array:
    """The part of a photograph that lies on the surface, (H, W, 3) float32 in [0, 1], box-filtered."""
    rng = np.random.default_rng([seed, 1])
    levels = read_levels(path)
    wide, high = levels[0].size
    unit = min(wide / surface.width, high / surface.height) / rng.uniform(1.0, MAX_ZOOM)  # its pixels to ours
    left = rng.uniform(0, wide - unit * surface.width)
    top = rng.uniform(0, high - unit * surface.height)
    half = surface.pixel / 2
    corner = surface.x[0] - half, surface.y[0] - half, surface.x[-1] + half, surface.y[-1] + half
    reduced = min(len(levels) - 1, max(0, int(math.log2(max(1.0, unit * surface.pixel / 2)))))
    level = levels[reduced]
    box = [(start + unit * float(at)) / 2**reduced for start, at in zip((left, top) * 2, corner, strict=True)]
    limits = (*level.size, *level.size)
    box = [min(max(at, 0.0), float(limit)) for at, limit in zip(box, limits, strict=True)]
    enlarged = unit * surface.pixel < 1
    filtered = Image.Resampling.BICUBIC if enlarged else Image.Resampling.BOX
    cut = level.resize((len(surface.x), len(surface.y)), filtered, box=(box[0], box[1], box[2], box[3]))
    return np.asarray(cut, np.float32) / 255


@functools.lru_cache(maxsize=32)
def read_levels(path: Path) -> tuple[Image.Image, ...]:
    """Reads a photograph, and halves it repeatedly.

    Raises:
        ValueError: The file is damaged.
    """
    picture = read_image(path)
    shrink = math.sqrt(picture.width * picture.height / MAX_PIXELS)
    if shrink > 1:
        size = round(picture.width / shrink), round(picture.height / shrink)
        picture = picture.resize(size, Image.Resampling.BOX)
    levels = [picture]
    while min(levels[-1].size) >= 64:
        levels.append(levels[-1].reduce(2))
    return tuple(levels)
