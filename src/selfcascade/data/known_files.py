"""Finds files that do not belong to a collection, and files that look like data but are not read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from selfcascade.data.examples import Skip
from selfcascade.media.endings import UNREAD_CLIPS, UNREAD_PICTURES, ending_of

# Files that macOS, Windows and network disks create next to users' files; macOS's "._name" counts as hidden.
CLUTTER = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
ARCHIVES = frozenset({".7z", ".arrow", ".parquet", ".rar", ".tar", ".tfrecord", ".tgz", ".zip"})
COMPRESSED = frozenset({".bz2", ".gz", ".xz", ".zst"})


def is_clutter(path: PurePath) -> bool:
    """Whether a file is hidden or left by an operating system; `path` is relative to the collection's folder."""
    return any(part in CLUTTER or (part.startswith(".") and part != "..") for part in path.parts)


def is_archive(path: PurePath) -> bool:
    """Whether a name is that of an archive, such as "00000.tar.gz"."""
    endings = [ending.casefold() for ending in path.suffixes[-2:]]
    return bool(endings) and (endings[-1] in ARCHIVES or (endings[-1] in COMPRESSED and ".tar" in endings))


def unread(files: Iterable[Path], folder: Path, read: Iterable[Path], other: frozenset[str], noun: str) -> list[Skip]:
    """Skips for files that look like data but are not read, except other formats of a file that is read.

    Args:
        files: All files of the collection.
        folder: The collection's folder.
        read: Files that are read.
        other: Endings of files that only other kinds of models use, in lower case.
        noun: Name of one file of the collection, for messages.
    """
    taken, found = {path.with_suffix("") for path in read}, []
    for path in files:
        ending, key = ending_of(path), path.relative_to(folder).as_posix()
        key = key.encode(errors="backslashreplace").decode()
        if path.with_suffix("") in taken:
            continue
        if ending in UNREAD_PICTURES | UNREAD_CLIPS:
            found.append(Skip(f"{'picture' if ending in UNREAD_PICTURES else 'clip'} format is not read", key))
        elif is_archive(path):
            found.append(Skip(f"archive among {noun}s is not read", key, damaged=False))
        elif ending in other:
            found.append(Skip(f"no {noun}, and not read", key, damaged=False))
    return found
