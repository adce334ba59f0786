"""A folder of pictures with captions: a .txt beside each, or one metadata.jsonl or metadata.csv a folder."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.examples import DataError, Entry, Skip
from selfcascade.images import read_image

EXTENSIONS = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
CAPTION_KEYS = ("text", "caption", "prompt")
MAX_CAPTION_BYTES = 64_000


class FolderSource:
    """Pictures below a folder, at any depth; no symbolic link and no metadata path leads out of it.

    Args:
        folder: Read once, on construction; pictures are opened when they are used.
        min_size: Smaller pictures are filtered out; None takes all.

    Raises:
        DataError: The folder is missing, or has no pictures.
    """

    def __init__(self, folder: Path, min_size: Size | None = None) -> None:
        if not folder.is_dir():
            raise DataError(f"train_data {str(folder)!r} is no folder")
        self.folder, self.min_size = folder.resolve(), min_size
        self.captions: dict[Path, str | Skip] = {}
        listed = [path for path in sorted(self.folder.rglob("*")) if path.name in ("metadata.jsonl", "metadata.csv")]
        for path in listed:
            self._read_metadata(path)
        self.pictures = sorted(
            {path for path in self.folder.rglob("*") if path.suffix.lower() in EXTENSIONS} | self.captions.keys()
        )
        if not self.pictures:
            raise DataError(f"train_data {str(folder)!r} has no pictures ({', '.join(sorted(EXTENSIONS))})")

    def entries(self, seed: int, epoch: int, first: int = 0) -> Iterator[Entry | Skip]:
        """All pictures in an order drawn from seed and epoch."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.pictures))
        for row in order[first:]:
            path = self.pictures[int(row)]
            try:
                caption = self._caption(path)
            except Skip as skip:
                yield skip
                continue
            yield Entry(self._key(path), caption, functools.partial(self._load, path))

    def _caption(self, path: Path) -> str:
        key, known = self._key(path), self.captions.get(path)
        if isinstance(known, Skip):
            raise known
        if not path.resolve().is_relative_to(self.folder):
            raise Skip("leads out of the folder", key)
        if not path.is_file():
            raise Skip("picture is missing", key)
        if known is not None:
            return known
        beside = path.with_suffix(".txt")
        if not beside.is_file() or not beside.resolve().is_relative_to(self.folder):
            raise Skip("caption is missing", key)
        return decode_caption(beside.read_bytes()[: MAX_CAPTION_BYTES + 1], key)

    def _load(self, path: Path) -> Image.Image:
        try:
            image = read_image(path)
        except ValueError as error:
            raise Skip(picture_fault(str(error)), self._key(path)) from error
        check_large(image, self.min_size, self._key(path))
        return image

    def _read_metadata(self, path: Path) -> None:
        for number, row in enumerate(_rows(path, self._key(path)), 1):
            key = f"{self._key(path)}:{number}"
            if isinstance(row, Skip):
                self.captions[path / f"line {number}"] = row
                continue
            name = row.get("file_name")
            words = next((str(row[word]).strip() for word in CAPTION_KEYS if isinstance(row.get(word), str)), "")
            picture = path.parent / str(name)
            if not isinstance(name, str) or not name:
                self.captions[path / f"line {number}"] = Skip("metadata names no file", key)
            elif not picture.resolve().is_relative_to(self.folder):
                self.captions[path / f"line {number}"] = Skip("leads out of the folder", key)
            elif picture in self.captions:
                self.captions[path / f"line {number}"] = Skip("listed twice", key)
            else:
                self.captions[picture] = words or Skip("caption is missing", key)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def decode_caption(data: bytes, key: str) -> str:
    """A caption file's words.

    Raises:
        Skip: It is empty, too long or not UTF-8.
    """
    if len(data) > MAX_CAPTION_BYTES:
        raise Skip("caption is too long", key)
    try:
        words = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise Skip("caption is not UTF-8", key) from error
    if not words:
        raise Skip("caption is missing", key)
    return words


def picture_fault(error: str) -> str:
    """A reason that all pictures with the same fault share, from the error that reading one gave."""
    for words, reason in (
        ("0 bytes", "picture is empty"),
        ("megapixels", "picture is too large"),
        ("or more", "picture is too small to read"),
        ("not read; save", "picture format is not read"),
        ("not a picture", "no picture"),
        ("colour mode", "colour mode is not supported"),
    ):
        if words in error:
            return reason
    return "picture is damaged"


def check_large(image: Image.Image, min_size: Size | None, key: str) -> None:
    """Raises Skip, as a filter, if the picture's area or shorter side is below the target's."""
    if min_size is not None and (image.width * image.height < min_size.area or min(image.size) < min(min_size) * 0.7):
        raise Skip("smaller than the target", key, damaged=False)


def _rows(path: Path, key: str) -> Iterator[dict[str, Any] | Skip]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        yield Skip("metadata is not UTF-8", key)
        return
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines())
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else Skip("bad JSON", f"{key}:{number}")
