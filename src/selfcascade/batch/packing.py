"""Files of rows in tar files that are the same, byte for byte, for the same files."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

FAILED = ".failed"
CHUNK = 2**20


class Member(NamedTuple):
    """A file: its name, KEY.ending, and its bytes."""

    name: str
    data: bytes


class Held(NamedTuple):
    """A file inside a tar file, or one of its own: where its bytes are."""

    name: str
    path: Path
    offset: int
    size: int


def write_tar(file: BinaryIO, members: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """A tar file of (name, size, content), with nobody's name and no time in it."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, size, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = size, 0o644, 0
            tar.addfile(info, content)


def in_memory(members: Iterable[Member]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Members as `write_tar` takes them."""
    return ((member.name, len(member.data), io.BytesIO(member.data)) for member in members)


def from_files(held: Iterable[Held]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Files inside others as `write_tar` takes them; one at a time is open."""
    for one in held:
        with one.path.open("rb") as file:
            file.seek(one.offset)
            yield one.name, one.size, file


def index(path: Path) -> list[Held]:
    """The files in a tar file.

    Raises:
        OSError, tarfile.TarError: It cannot be read.
    """
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        return [Held(info.name, path, info.offset_data, info.size) for info in tar if info.isreg()]


def listed(folder: Path) -> list[Held]:
    """The files in a folder, by their names."""
    return [Held(path.name, path, 0, path.stat().st_size) for path in sorted(folder.iterdir())]


def read(held: Held) -> bytes:
    """The bytes of a file inside another."""
    with held.path.open("rb") as file:
        file.seek(held.offset)
        return file.read(held.size)


def copy_out(held: Held, path: Path) -> None:
    """Writes a file inside another to a place of its own."""
    with held.path.open("rb") as source, path.open("wb") as target:
        source.seek(held.offset)
        left = held.size
        while left and (data := source.read(min(CHUNK, left))):
            target.write(data)
            left -= len(data)


def remove(folder: Path) -> None:
    """Removes a folder, whoever else is removing it."""
    shutil.rmtree(folder, ignore_errors=True)
