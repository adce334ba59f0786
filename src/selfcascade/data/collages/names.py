"""What a user's files are called in captions."""

from __future__ import annotations

import re
from pathlib import Path

from selfcascade.data.decode import MAX_CAPTION_BYTES
from selfcascade.data.known_files import is_clutter


def files_in(folder: Path, endings: frozenset[str]) -> list[Path]:
    """The files below a folder with such endings, in order; hidden ones and links that lead out of it are left out."""
    inside = folder.resolve()
    named = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in endings and path.is_file())
    found = (path for path in named if not is_clutter(path.relative_to(folder)))
    return [path for path in found if path.resolve().is_relative_to(inside)]


def words_of(path: Path) -> str:
    """The first sentence of the first line of the .txt beside a file, without its stop, or else its name's words."""
    beside = next((file for file in map(path.with_suffix, (".txt", ".TXT", ".Txt")) if file.is_file()), None)
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
