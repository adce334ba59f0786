"""Which files of a collection are none of it, and which look like data that is not read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from selfcascade.data.examples import Skip
from selfcascade.media.endings import UNREAD_CLIPS, UNREAD_PICTURES, ending_of

# What a Mac, Windows and network disks leave beside users' files; a Mac's "._name" is found by its dot.
CLUTTER = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})
ARCHIVES = frozenset({".7z", ".arrow", ".parquet", ".rar", ".tar", ".tfrecord", ".tgz", ".zip"})
COMPRESSED = frozenset({".bz2", ".gz", ".xz", ".zst"})


def is_clutter(path: PurePath) -> bool:
    """Whether a file is hidden, or one that systems leave behind; `path` begins in the collection's folder."""
    return any(part in CLUTTER or (part.startswith(".") and part != "..") for part in path.parts)


def is_archive(path: PurePath) -> bool:
    """Whether a name is that of files packed together, as "00000.tar.gz" is."""
    endings = [ending.casefold() for ending in path.suffixes[-2:]]
    return bool(endings) and (endings[-1] in ARCHIVES or (endings[-1] in COMPRESSED and ".tar" in endings))


def unread(files: Iterable[Path], folder: Path, read: Iterable[Path], other: frozenset[str], noun: str) -> list[Skip]:
    """Those of the files that look like data and are not read; another form of one that is read is not among them.

    Args:
        files: In the collection's folder, `folder`.
        read: What is read.
        other: Endings of files that only other models learn from, in lower case.
        noun: What the collection is of.
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
