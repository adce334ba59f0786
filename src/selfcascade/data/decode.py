"""Decodes captions and pictures from untrusted bytes; any fault raises `Skip` with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Protocol

from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.examples import Sample, Skip
from selfcascade.media.endings import CLIPS, PICTURES
from selfcascade.media.images import decode_image

MAX_CAPTION_BYTES = 64_000
# At a ratio of 1:2, a picture of the target's area has a shorter side of 0.707 times the target's.
SHORTEST = 0.7


class Media(Protocol):
    """The kind of files in a collection, and how to read one.

    Attributes:
        noun: Name of one file, for messages.
        extensions: Endings of the files, with the dot, in lower case.
        others: Endings of files that only other kinds of models use.
    """

    noun: ClassVar[str]
    extensions: ClassVar[frozenset[str]]
    others: ClassVar[frozenset[str]]

    def load(self, path: Path, key: str, draw: str) -> Sample:
        """The file's sample; `draw` seeds what is random about it.

        Raises:
            Skip: The file cannot be used.
        """
        ...


@dataclass(frozen=True)
class PictureFiles:
    """Picture files; those smaller than `min_size` are left out."""

    min_size: Size | None = None
    noun: ClassVar[str] = "picture"
    extensions: ClassVar[frozenset[str]] = PICTURES
    others: ClassVar[frozenset[str]] = CLIPS - PICTURES

    def load(self, path: Path, key: str, draw: str) -> Image.Image:
        """The whole picture; nothing about it is random."""
        try:
            with path.open("rb") as file:
                return decode_picture(file, self.min_size, key)
        except OSError as error:
            raise Skip("picture cannot be read", key) from error


def check_inside(path: Path, folder: Path, key: str) -> None:
    """Raises Skip if a path leads out of a folder, directly or through links; `folder` must be resolved."""
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(folder)
    except ValueError as error:  # a zero byte, which only metadata can name
        raise Skip("bad file name", key) from error
    if not inside:
        raise Skip("leads out of the folder", key)


def decode_caption(data: bytes, key: str) -> str:
    """The caption in the bytes of a file.

    Raises:
        Skip: The caption is missing, too long or not UTF-8.
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


def check_caption(words: object, key: str) -> str:
    """The caption in a metadata field, with the same checks as `decode_caption`."""
    if not isinstance(words, str):
        raise Skip("caption is missing", key)
    try:
        return decode_caption(words.encode(), key)
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise Skip("caption is not UTF-8", key) from error


def decode_picture(file: IO[bytes], min_size: Size | None, key: str) -> Image.Image:
    """Decodes a picture to RGB.

    Raises:
        Skip: The file is empty, damaged, not a picture, in an unsupported format, or smaller than `min_size`.
    """
    if file.seek(0, 2) == 0:
        raise Skip("picture is empty", key)
    file.seek(0)
    try:
        # The sample's own name stays out of the error, whose words are told apart below.
        image = decode_image("", file, key)
    except ValueError as error:
        raise Skip(_fault(str(error)), key) from error
    if is_small(image.width, image.height, min_size):
        raise Skip("smaller than the target", key, damaged=False)
    return image


def is_small(width: float, height: float, min_size: Size | None) -> bool:
    """Whether a picture is too small for every size of the target's area, whatever its ratio."""
    if min_size is None:
        return False
    return width * height < min_size.area or min(width, height) < SHORTEST * min(min_size)


def printable(name: str) -> str:
    """A file's name as text that can be encoded; bytes that are not UTF-8 are escaped."""
    return name.encode(errors="backslashreplace").decode()


def _fault(error: str) -> str:
    """The reason for a skip, the same for all pictures with one fault, from the error of reading it."""
    for words, reason in (
        ("megapixels", "picture is too large"),
        ("or more", "picture is too small to read"),
        ("not read; save", "picture format is not read"),
        ("not a picture", "no picture"),
        ("colour mode", "colour mode is not supported"),
    ):
        if words in error:
            return reason
    return "picture is damaged"
