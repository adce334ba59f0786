"""Grids of the methods' pictures or clips for the same captions and seeds, with what is wrong in each.

Axis letters: N pictures, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from selfcascade.evaluation.prompts import SEED_STEP
from selfcascade.evaluation.scenes_benchmark import SCENES, Drawn, drawn_collages, scene_prompts
from selfcascade.evaluation.splits import NUMBERS
from selfcascade.media.grids import wrapped
from selfcascade.metrics.composition import CompositionReader
from selfcascade.models import BUNDLED
from selfcascade.report.results import Row, seed_of

INK, GOOD, BAD, PAPER = (24, 24, 27), (21, 128, 61), (190, 24, 60), (255, 255, 255)
LABEL, LINE, GAP, FONT, MOST_LINES = 150, 16, 4, 12, 12
SIDE = 512  # of a picture in a grid, at most


@dataclass(frozen=True)
class Shown:
    """The first pictures of a row.

    Attributes:
        row: The row with its figures.
        pictures: One picture per caption.
        captions: The captions.
        wrong: What the composition reader reads wrongly in each picture, such as "count: 2 for 1"; None if the truth is
            unknown, or the pictures are not square, which the reader does not support.
        clips: Frames of the clips; `pictures` are then their middle frames.
    """

    row: Row
    pictures: list[Image.Image]
    captions: list[str]
    wrong: list[list[str]] | None
    clips: list[list[Image.Image]] | None = None


def shown(rows: Sequence[Row]) -> list[Shown]:
    """Rows that have pictures, with their pictures."""
    return [_open(row) for row in rows if row.sheet is not None]


def of_one_size(rows: Sequence[Shown]) -> dict[tuple[int, int], list[Shown]]:
    """Rows by height and width of their pictures; a row without others of its size is left out."""
    sizes: dict[tuple[int, int], list[Shown]] = {}
    for row in rows:
        sizes.setdefault((row.pictures[0].height, row.pictures[0].width), []).append(row)
    return {size: own for size, own in sizes.items() if len(own) > 1} or sizes


def shown_size(row: Shown) -> tuple[int, int]:
    """Width and height of a row's pictures in a grid."""
    width, height = row.pictures[0].size
    scale = min(1.0, SIDE / max(width, height))
    return round(scale * width), round(scale * height)


def moments(row: Shown, index: int, count: int) -> Shown:
    """A row with `count` evenly spaced frames of one clip as its pictures."""
    assert row.clips is not None
    clip = row.clips[index]
    places = [round(step * (len(clip) - 1) / max(1, count - 1)) for step in range(count)]
    captions = [f"frame {place + 1} of {len(clip)}" for place in places]
    return replace(row, pictures=[clip[place] for place in places], captions=captions, clips=None)


def hardest(rows: Sequence[Shown]) -> list[int]:
    """Indices of captions, those that most methods get wrong first, then those with most wrong attributes."""
    judged = [row.wrong for row in rows if row.wrong is not None]
    count = min(len(row.pictures) for row in rows)

    def failures(index: int) -> tuple[int, int]:
        return -sum(bool(wrong[index]) for wrong in judged), -sum(len(wrong[index]) for wrong in judged)

    return sorted(range(count), key=failures)


def grid(rows: Sequence[Shown], columns: Sequence[int]) -> Image.Image:
    """A grid with one method per row and one caption per column; below each picture is the reader's verdict.

    Args:
        rows: At least one row, all of one size and with the same captions.
        columns: Indices of captions.
    """
    width, height = shown_size(rows[0])
    font, line = ImageFont.load_default(FONT), height + LINE + GAP
    heads = [wrapped(rows[0].captions[column], font, width, MOST_LINES) for column in columns]
    top = LINE * max(map(len, heads)) + GAP
    canvas = Image.new("RGB", (LABEL + len(columns) * (width + GAP), top + len(rows) * line), PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, head in enumerate(heads):
        for number, text in enumerate(head):
            draw.text((LABEL + place * (width + GAP), number * LINE), text, INK, font)
    for number, row in enumerate(rows):
        for index, text in enumerate(wrapped(row.row.method, font, LABEL - 2 * GAP, MOST_LINES)):
            draw.text((GAP, top + number * line + index * LINE), text, INK, font)
        for place, column in enumerate(columns):
            left, upper = LABEL + place * (width + GAP), top + number * line
            picture = row.pictures[column]
            canvas.paste(picture if picture.size == (width, height) else picture.resize((width, height)), (left, upper))
            if row.wrong is not None:
                count = len(row.wrong[column])
                draw.text((left, upper + height), f"{count} wrong" if count else "right", BAD if count else GOOD, font)
    return canvas


def _open(row: Row) -> Shown:
    path: Any = row.sheet
    captions = path.with_suffix(".txt").read_text().removesuffix("\n").split("\n")
    sheets = _frames(path, row.results[0]["fps"] if row.clips else 0.0)
    if sheets[0].width % len(captions):
        raise ValueError(f"{path} is {sheets[0].width} pixels wide, no multiple of its {len(captions)} captions")
    width, height = sheets[0].width // len(captions), sheets[0].height
    boxes = [(width * index, 0, width * (index + 1), height) for index in range(len(captions))]
    clips = [[sheet.crop(box) for sheet in sheets] for box in boxes]
    pictures = [clip[len(clip) // 2] for clip in clips]
    if row.clips:
        return Shown(row, pictures, captions, None, clips)
    return Shown(row, pictures, captions, _wrong(pictures, captions, seed_of(path)))


def _frames(path: Path, fps: float) -> list[Image.Image]:
    """The frames of a sheet; a longer frame, into which equal ones were joined, is repeated."""
    frames = []
    with Image.open(path) as sheet:
        for frame in ImageSequence.Iterator(sheet):
            frames.append(frame.convert("RGB"))  # this also reads the frame's duration
            frames += frames[-1:] * (round(frame.info.get("duration", 0) * fps / 1000) - 1)
    return frames


def _wrong(pictures: Sequence[Image.Image], captions: list[str], seed: int) -> list[list[str]] | None:
    """What the reader reads wrongly, compared with the scenes or collages of these captions."""
    if pictures[0].width != pictures[0].height:
        return None
    for drawn in (SCENES, drawn_collages()):
        truths = _truths(drawn, tuple(captions), seed)
        if truths is not None:
            pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))  # (N, H, W, 3)
            readings = _reader(drawn.reader).read(pixels.permute(0, 3, 1, 2).float() / 255)
            return [_differences(reading, truth) for reading, truth in zip(readings, truths, strict=True)]
    return None


def _differences(reading: dict[str, str], truth: dict[str, Any]) -> list[str]:
    """Differences in words; for a single object, which is both first and last, only the first is named."""
    lone = str(truth.get("count")) == "1"
    names = [name for name in truth if not (lone and name.startswith("last_"))]
    pairs = [(name, str(reading[name]), str(truth[name])) for name in names]
    return [f"{name.replace('_', ' ')}: {read} for {true}" for name, read, true in pairs if read != true]


def _truths(drawn: Drawn, captions: tuple[str, ...], seed: int) -> list[dict[str, Any]] | None:
    """The attributes, if a set's captions begin with these, for this seed or for a training."""
    starts = [numbers.prompt for numbers in NUMBERS.values()]
    for first in (*starts, *(start + SEED_STEP * seed for start in starts if seed)):
        prompts = scene_prompts(len(captions), first, drawn)
        if prompts.prompts == captions:
            return list(prompts.truths)
    return None


@cache
def _reader(name: str) -> Any:
    folder = str(BUNDLED.parent / name)
    return CompositionReader.from_pretrained(folder, local_files_only=True).float().eval()
