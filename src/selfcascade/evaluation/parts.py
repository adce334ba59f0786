"""Long sampling in parts: each is a file that says what it holds, so it can be shared and goes on where it was cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from selfcascade.media.whole_files import write_whole
from selfcascade.processes import Processes, appears


class Parts:
    """Tensors whose rows lie in files, group by group; they are read where they are asked for.

    Attributes:
        paths: The files, in order.
        groups: The rows of each.
    """

    def __init__(self, paths: Sequence[Path], groups: Sequence[range]) -> None:
        self.paths, self.groups = list(paths), list(groups)

    def rows(self, name: str, wanted: range) -> Tensor:
        """The rows `wanted` of one tensor, in memory of their own."""
        found: list[Tensor] = []
        for path, group in zip(self.paths, self.groups, strict=True):
            first, stop = max(group.start, wanted.start), min(group.stop, wanted.stop)
            if first < stop:
                with safe_open(path, "pt") as file:
                    found.append(file.get_slice(name)[first - group.start : stop - group.start].clone())
        return torch.cat(found)

    def each(self, name: str, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` rows of one tensor, or all, one file's at a time."""
        for group in self.groups:
            stop = group.stop if count is None else min(group.stop, self.groups[0].start + count)
            if group.start < stop:
                yield self.rows(name, range(group.start, stop))

    def pictures(self, count: int) -> Iterator[Tensor]:
        """The first `count` of the "pictures", bytes, as floats in [0, 1]; one part at a time is read."""
        return (part.float() / 255 for part in self.each("pictures", count))


class Rows:
    """Rows that come in parts and are held once, each tensor in one place.

    Args:
        capacity: How many rows there are at most.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._held: dict[str, Tensor] = {}
        self._filled: dict[str, int] = {}

    def add(self, part: Mapping[str, Tensor]) -> None:
        """The next rows of these tensors."""
        for name, value in part.items():
            if name not in self._held:
                self._held[name] = value.new_empty((self.capacity, *value.shape[1:]))
            begin = self._filled.get(name, 0)
            self._held[name][begin : begin + len(value)] = value
            self._filled[name] = begin + len(value)

    def tensors(self, count: int) -> dict[str, Tensor]:
        """The first `count` rows of all."""
        return {name: value[:count] for name, value in self._held.items()}


def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same names, concatenated along the first axis."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def in_parts(
    make: Callable[[range], dict[str, Tensor]],
    groups: Sequence[range],
    folder: Path,
    title: str,
    settings: str = "",
    processes: Processes | None = None,
) -> Parts:
    """Writes what `make` gives for each group to a file of its own; groups whose file holds them are not made again.

    What is left is shared out between the processes. A file that is damaged, or of another group or other settings, is
    written anew.

    Args:
        make: Tensors of a group, with a row for each of its members.
        groups: In order.
        folder: Folder of the files, on a disk that all processes share.
        title: Title of the progress bar.
        settings: Names all that the tensors depend on.
        processes: None is this process alone.

    Returns:
        The files of all groups; in all processes, once all are there.

    Raises:
        TogetherError: A process failed; or it does not see the others' files.
    """
    processes = processes or Processes()
    index, count = processes.process_index, processes.num_processes
    paths = [folder / f"{number:05d}.safetensors" for number in range(len(groups))]
    says = [{"settings": settings, "first": str(group.start), "count": str(len(group))} for group in groups]
    # Each reads a share of the files, so that none is read twice.
    there = [number for number in range(index, len(groups), count) if _holds(paths[number], says[number])]
    whole = {number for own in processes.gathered(there) for number in own}
    left = [number for number in range(len(groups)) if number not in whole][index::count]

    def make_own() -> None:
        for number in tqdm(left, title, disable=None if processes.is_main_process else True):
            _write(paths[number], make(groups[number]), says[number])

    def see_all() -> None:
        lost = next((path for path in paths if not appears(path)), None)
        if lost is not None:
            raise ValueError(f"{str(lost)!r}, which another process has written, is not seen here")

    processes.together(make_own)
    processes.together(see_all)
    return Parts(paths, groups)


def cached(
    path: Path, make: Callable[[], Iterable[dict[str, Tensor]]], rows: int, like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The parts that `make` yields, concatenated along the first axis; computed once, then read from that file.

    Args:
        path: The file; one that is damaged, or does not hold all that is asked for, is written anew.
        make: Yields the parts.
        rows: How many there are of each tensor.
        like: By name, tensors with rows of the shape that those in the file must have.
    """
    shapes = {name: [rows, *value.shape[1:]] for name, value in like.items()}
    found = _header(path)[1]
    said = _header(path)[0].get("sha256")
    changed = said is not None and said != _digest_of(path)  # files of earlier versions do not say it
    if changed or any(found.get(name) != shape for name, shape in shapes.items()):
        with torch.no_grad():
            held = Rows(rows)
            for part in make():
                held.add(part)
        _write(path, held.tensors(rows), {})
    return load_file(path)


def _write(path: Path, tensors: dict[str, Tensor], says: dict[str, str]) -> None:
    held = {name: value.contiguous() for name, value in tensors.items()}
    digest = _digest(held.items())
    # One entry: several would come in any order, and make other bytes each time.
    said = {"part": json.dumps({**says, "sha256": digest}, sort_keys=True)}
    write_whole(path, lambda aside: save_file(held, aside, said))


def _holds(path: Path, says: dict[str, str]) -> bool:
    """Whether a file is whole, to the last bit, and says of itself what it should."""
    said, shapes = _header(path)
    digest = said.pop("sha256", None)
    if digest is None or said != says or any(shape[:1] != [int(says["count"])] for shape in shapes.values()):
        return False
    return digest == _digest_of(path)


def _digest_of(path: Path) -> str:
    """The digest of the tensors in a file; empty where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return _digest((name, file.get_tensor(name)) for name in names)
    except (OSError, SafetensorError):
        return ""


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of tensors with their names, types and shapes, whatever their order."""
    own: list[str] = []
    for name, value in tensors:
        digest = hashlib.sha256(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        data: Any = value.flatten().view(torch.uint8).numpy()
        digest.update(data)
        own.append(digest.hexdigest())
    return hashlib.sha256(" ".join(sorted(own)).encode()).hexdigest()


def _header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """What a file says of itself, and the shapes of its tensors, of which a missing or damaged one has none."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return json.loads((file.metadata() or {}).get("part", "{}")), {
                name: file.get_slice(name).get_shape() for name in names
            }
    except (OSError, SafetensorError, ValueError):
        return {}, {}
