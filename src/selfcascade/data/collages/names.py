"""Names for a user's files in captions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from selfcascade.data.decode import MAX_CAPTION_BYTES, printable
from selfcascade.data.known_files import is_clutter
from selfcascade.media.endings import PICTURES, UNREAD_PICTURES, ending_of


def files_in(folder: Path, endings: frozenset[str], option: str) -> list[Path]:
    """Files below a folder with these endings, sorted, without hidden files and links that lead out of it.

    A warning lists pictures in formats that are not supported; it calls the folder `option`.
    """
    inside = folder.resolve()
    files = [path for path in _files(folder) if path.resolve().is_relative_to(inside)]
    lost = [path.name for path in files if ending_of(path) in (PICTURES | UNREAD_PICTURES) - endings]
    if lost:
        words = f"{option} {printable(str(folder))!r}: {len(lost)} pictures are not read here"
        warnings.warn(f"{words} ({printable(lost[0])}, ...)", stacklevel=2)
    return [path for path in files if ending_of(path) in endings]


def texts_in(folder: Path) -> dict[Path, Path]:
    """The .txt files below a folder, by their paths without the ending."""
    return {path.with_suffix(""): path for path in _files(folder) if ending_of(path) == ".txt"}


def words_of(path: Path, texts: Mapping[Path, Path]) -> str:
    """The first sentence of the .txt next to a file, without its full stop, or the words of the file's name."""
    beside = texts.get(path.with_suffix(""))
    if beside is not None:
        with beside.open("rb") as file:
            line = file.read(MAX_CAPTION_BYTES).decode("utf-8", errors="replace").lstrip().partition("\n")[0]
        words = re.split(r"[.!?;]+(?:\s|$)", line)[0].strip()
        if words:
            return words
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", path.stem)  # RedApple
    return re.sub(r"[\W_]+", " ", apart).strip() or path.stem


def noun(words: str) -> str:
    """A name without its article: "A red apple" is "red apple"."""
    bare = re.sub(r"^(a|an|the|some)\s+", "", words.strip(), flags=re.IGNORECASE)
    return bare[:1].lower() + bare[1:] if bare[1:2].islower() else bare


def _files(folder: Path) -> list[Path]:
    named = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in named if not is_clutter(path.relative_to(folder))]
