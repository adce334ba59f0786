"""Files that are whole or absent: written beside their place, and renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside `path`, then puts it in place in one step; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path.parent) as aside:
        write(aside)
        aside.replace(path)


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """An empty file with the permissions of a new one, which is removed afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(".part", ".selfcascade-", folder)
    os.close(handle)
    aside = Path(name)
    try:
        aside.chmod(0o666 & ~umask())
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
