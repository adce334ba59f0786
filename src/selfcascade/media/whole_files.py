"""Files that are whole or absent: written beside their place, and renamed."""

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
    """Lets `write` fill a file beside `path`, then puts it in place in one step; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path.parent) as aside:
        write(aside)
        aside.replace(path)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """An empty file with the permissions of a new one, which is removed afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(".part", temporary_prefix(folder), folder)
    os.close(handle)
    aside = Path(name)
    try:
        aside.chmod(0o666 & ~umask())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def temporary_prefix(folder: Path) -> str:
    """What names of temporary files in a folder begin with; those that killed processes left there are removed."""
    _sweep(os.path.realpath(folder))
    return f".selfcascade-{HOST}-{os.getpid()}-"


@functools.cache  # a folder of a hundred thousand files is looked through once
def _sweep(folder: str) -> None:
    """Removes the temporary files of this machine's processes that are gone.

    Folders stay: one may hold the only frames of an earlier clip, where its replacement was killed half-way.
    """
    for entry in os.scandir(folder):
        owner = OURS.fullmatch(entry.name)
        if owner is None or psutil.pid_exists(int(owner[1])) or entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):  # another process removes it just now, or it belongs to another user
            Path(entry.path).unlink()


def umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
