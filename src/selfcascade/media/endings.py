"""Endings of file names, in lower case with the dot: formats that are read, and similar ones that are not."""

from __future__ import annotations

from pathlib import PurePath

PICTURES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
CLIPS = frozenset({".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
UNREAD_PICTURES = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".exr", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".orf", ".psd", ".raf", ".tga"}
)
UNREAD_CLIPS = frozenset({".3gp", ".m2ts", ".mts", ".mxf", ".ogv", ".vob", ".wmv"})


def ending_of(path: PurePath) -> str:
    """A name's ending in lower case: ".txt" for "a.Txt"."""
    return path.suffix.casefold()
