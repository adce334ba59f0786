"""Features of very many samples. Their rows lie in a file and are read in blocks, so that memory holds only a few.

The file is read rather than mapped, because mapped pages count as the process's own memory.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

LARGE = 32 * 2**20  # bytes; larger features stay in a file


class FeatureFile:
    """Rows of a float32 tensor in an open file.

    Args:
        file: The file, open for reading. It stays open as long as these rows are used.
        offset: Byte at which the first row begins.
        shape: Shape of the tensor.

    Attributes:
        shape: Shape of the tensor.
    """

    def __init__(self, file: BinaryIO, offset: int, shape: tuple[int, ...]) -> None:
        self.file, self.offset, self.shape = file, offset, shape
        self.ndim, self.dtype = len(shape), torch.float32

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return 4 * math.prod(self.shape)

    def __getitem__(self, rows: slice) -> Tensor:
        """Reads a range of rows into memory."""
        start, stop, _ = rows.indices(len(self))
        found = torch.empty(max(0, stop - start), *self.shape[1:])
        self.file.seek(self.offset + start * 4 * math.prod(self.shape[1:]))
        room: Any = found.flatten().view(torch.uint8).numpy()
        if self.file.readinto(room) != len(room):  # type: ignore[attr-defined]
            raise OSError(f"the file of features ends before row {stop}")
        return found


Features = Tensor | FeatureFile


def blocks(features: Features, rows: int) -> Iterator[Tensor]:
    """Yields the features in blocks of `rows` rows. One block at a time is in memory."""
    for start in range(0, len(features), rows):
        yield features[start : start + rows]


class Rows:
    """Collects rows of several tensors, part by part. Large tensors go to a nameless file, which goes with the process.

    Args:
        folder: Where the files are. It is made if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, list[Tensor]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, part: Mapping[str, Tensor]) -> None:
        """Adds the next rows of these tensors."""
        for name, value in part.items():
            count = self._shapes[name][0] if name in self._shapes else 0
            self._shapes[name] = (count + len(value), *value.shape[1:])
            if name in self._files:
                self._files[name].seek(0, os.SEEK_END)  # rows may have been read in between
                _append(self._files[name], value)
                continue
            self._held.setdefault(name, []).append(value)
            if value.dtype == torch.float32 and sum(one.nbytes for one in self._held[name]) > LARGE:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._files[name] = _nameless(self.folder)
                for one in self._held.pop(name):
                    _append(self._files[name], one)

    def tensors(self, count: int | None = None) -> dict[str, Features]:
        """Returns all tensors, or the first `count` rows of each."""
        found: dict[str, Features] = {}
        for name, shape in self._shapes.items():
            rows = shape[0] if count is None else min(count, shape[0])
            if name in self._files:
                self._files[name].flush()
                found[name] = FeatureFile(self._files[name], 0, (rows, *shape[1:]))
            else:
                found[name] = torch.cat(self._held[name])[:rows]
        return found


def read_features(path: Path) -> dict[str, Features]:
    """Reads the tensors of a safetensors file. Large ones stay in the file.

    Raises:
        OSError, SafetensorError, ValueError: The file cannot be read.
    """
    found: dict[str, Features] = {}
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        with safe_open(path, "pt") as held:  # checks the header
            places = json.loads(file.read(size))
            for name in held.keys():  # noqa: SIM118  # not a dictionary
                begin, end = places[name]["data_offsets"]
                if places[name]["dtype"] == "F32" and end - begin > LARGE:
                    shape = tuple(places[name]["shape"])
                    found[name] = FeatureFile(path.open("rb"), 8 + size + begin, shape)
                else:
                    found[name] = held.get_tensor(name)
    return found


def write_features(path: Path, tensors: Mapping[str, Features], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file of tensors that need not fit into memory together."""
    # The widest types first, as safetensors orders them, so that each tensor begins where its type may.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    head: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        dtype = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}[tensors[name].dtype]
        head[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    words = json.dumps(head).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        for name in order:
            for block in blocks(tensors[name], 1024):
                _append(file, block)


def data_of(features: Tensor) -> memoryview:
    """The bytes of a tensor."""
    data: Any = features.contiguous().flatten().view(torch.uint8).numpy()
    return memoryview(data)


def _nameless(folder: Path) -> Any:
    return tempfile.TemporaryFile(dir=folder)


def _append(file: BinaryIO, rows: Tensor) -> None:
    file.write(data_of(rows))
