"""Packs the rows' files into tar files that are byte for byte the same for the same files."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

FAILED = ".failed"
OF_ROW = re.compile(r"[0-9]{9,}\..+")
CHUNK = 2**20


class Member(NamedTuple):
    """A file to pack: its name, KEY.ending, and its bytes."""

    name: str
    data: bytes


class Held(NamedTuple):
    """Where a packed file's bytes are: inside a tar file, or in a file of its own."""

    name: str
    path: Path
    offset: int
    size: int


def write_tar(file: BinaryIO, members: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """Writes a tar file of (name, size, content), without owner and time."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, size, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = size, 0o644, 0
            tar.addfile(info, content)


def in_memory(members: Iterable[Member]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Members in the form that `write_tar` takes."""
    return ((member.name, len(member.data), io.BytesIO(member.data)) for member in members)


def from_files(held: Iterable[Held]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Packed files in the form that `write_tar` takes; only one is open at a time."""
    for one in held:
        with one.path.open("rb") as file:
            file.seek(one.offset)
            yield one.name, one.size, file


def index(path: Path) -> list[Held]:
    """The files in a tar file.

    Raises:
        OSError, tarfile.TarError: The file cannot be read.
    """
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        return [Held(info.name, path, info.offset_data, info.size) for info in tar if info.isreg()]


def listed(folder: Path) -> list[Held]:
    """The rows' files in a folder, by their names; others, such as a file browser's, are not among them."""
    own = [path for path in sorted(folder.iterdir()) if OF_ROW.fullmatch(path.name)]
    return [Held(path.name, path, 0, path.stat().st_size) for path in own]


def strangers(folder: Path) -> list[Path]:
    """What lies in a folder besides the rows' files; nothing where there is no folder."""
    return [path for path in folder.glob("*") if not OF_ROW.fullmatch(path.name)]


def read(held: Held) -> bytes:
    """The bytes of a packed file."""
    with held.path.open("rb") as file:
        file.seek(held.offset)
        return file.read(held.size)


def copy_out(held: Held, path: Path) -> None:
    """Writes a packed file to `path`."""
    with held.path.open("rb") as source, path.open("wb") as target:
        source.seek(held.offset)
        left = held.size
        while left and (data := source.read(min(CHUNK, left))):
            target.write(data)
            left -= len(data)


def remove(folder: Path) -> None:
    """Removes a folder, even if another process is removing it too."""
    shutil.rmtree(folder, ignore_errors=True)
