"""Atomic writing: files are written under a temporary name, and renamed once they are complete."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node()) or "host"
OURS = re.compile(rf"\.selfcascade-{HOST}-([0-9]+)-.*")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, then renames it to `path`; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path.parent) as aside:
        write(aside)
        aside.replace(path)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """An empty file with the usual permissions, which is removed afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(".part", temporary_prefix(folder), folder)
    os.close(handle)
    aside = Path(name)
    try:
        aside.chmod(0o666 & ~umask())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def temporary_prefix(folder: Path) -> str:
    """Prefix of temporary files in a folder; leftovers of killed processes are removed."""
    _sweep(os.path.realpath(folder))
    return f".selfcascade-{HOST}-{os.getpid()}-"


@functools.cache  # a folder may have a hundred thousand files
def _sweep(folder: str) -> None:
    """Removes temporary files of this machine's processes that no longer run.

    Folders are kept: one may hold the only frames of an earlier clip, if its replacement was killed half-way.
    """
    for entry in os.scandir(folder):
        owner = OURS.fullmatch(entry.name)
        if owner is None or psutil.pid_exists(int(owner[1])) or entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):  # another process is removing it, or it belongs to another user
            Path(entry.path).unlink()


def umask() -> int:
    """The permissions that this process removes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
