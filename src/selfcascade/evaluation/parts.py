"""Samples in parts, so that long sampling can be shared and resumed; each part is a file that describes itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from selfcascade.evaluation.feature_files import Features, Rows, blocks, data_of, read_features, write_features
from selfcascade.media.whole_files import write_whole
from selfcascade.processes import Processes, appears

ROWS_AT_ONCE = 1024  # of features whose digest is computed


class Parts:
    """Tensors whose rows are stored in files, group by group, and read when used.

    Attributes:
        paths: The files, in order.
        groups: The rows in each file.
    """

    def __init__(self, paths: Sequence[Path], groups: Sequence[range]) -> None:
        self.paths, self.groups = list(paths), list(groups)

    def rows(self, name: str, wanted: range) -> Tensor:
        """The rows `wanted` of one tensor, as a copy."""
        found: list[Tensor] = []
        for path, group in zip(self.paths, self.groups, strict=True):
            first, stop = max(group.start, wanted.start), min(group.stop, wanted.stop)
            if first < stop:
                with safe_open(path, "pt") as file:
                    found.append(file.get_slice(name)[first - group.start : stop - group.start].clone())
        return torch.cat(found)

    def each(self, name: str, count: int | None = None) -> Iterator[Tensor]:
        """The first `count` rows of one tensor, or all, one file at a time."""
        for group in self.groups:
            stop = group.stop if count is None else min(group.stop, self.groups[0].start + count)
            if group.start < stop:
                yield self.rows(name, range(group.start, stop))

    def pictures(self, count: int) -> Iterator[Tensor]:
        """The first `count` rows of "pictures", converted from bytes to floats in [0, 1], one part at a time."""
        return (part.float() / 255 for part in self.each("pictures", count))


def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same name, concatenated along the first axis."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def in_parts(
    make: Callable[[range], dict[str, Tensor]],
    groups: Sequence[range],
    folder: Path,
    title: str,
    settings: str = "",
    processes: Processes | None = None,
) -> Parts:
    """Writes the result of `make` for each group to its own file; groups with a valid file are not made again.

    The remaining groups are shared between the processes. A file that is damaged, or that belongs to another group or
    other settings, is written again.

    Args:
        make: Returns the tensors of a group, with one row for each of its members.
        groups: The groups in order.
        folder: Folder of the files, on a disk that all processes share.
        title: Title of the progress bar.
        settings: Digest of everything that the tensors depend on.
        processes: The processes; None for this one only.

    Returns:
        The files of all groups, in all processes, once all exist.

    Raises:
        TogetherError: A process failed, or does not see the others' files.
    """
    processes = processes or Processes()
    index, count = processes.process_index, processes.num_processes
    paths = [folder / f"{number:05d}.safetensors" for number in range(len(groups))]
    says = [{"settings": settings, "first": str(group.start), "count": str(len(group))} for group in groups]
    # Each process reads a share of the files, so that none is read twice.
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
    path: Path, make: Callable[[], Iterable[dict[str, Tensor]]], rows: int, like: Mapping[str, Features]
) -> dict[str, Features]:
    """The parts that `make` yields, concatenated along the first axis: computed once, then read from a file.

    Args:
        path: The file; if it is damaged or incomplete, it is written again.
        make: Yields the parts.
        rows: Number of rows of each tensor.
        like: Tensors by name, whose rows have the shapes that the file's rows must have.
    """
    shapes = {name: [rows, *value.shape[1:]] for name, value in like.items()}
    said, found = _header(path)
    said = said.get("sha256")
    changed = said is not None and said != _digest_of(path)  # files of earlier versions have no digest
    if changed or any(found.get(name) != shape for name, shape in shapes.items()):
        with torch.no_grad():
            held = Rows(path.parent)
            for part in make():
                held.add(part)
        _write(path, held.tensors(rows), {})
    return read_features(path)


def _write(path: Path, tensors: Mapping[str, Features], says: dict[str, str]) -> None:
    # One entry: several would come in any order, and make other bytes each time.
    said = {"part": json.dumps({**says, "sha256": _digest(tensors)}, sort_keys=True)}
    small = {name: value.contiguous() for name, value in tensors.items() if isinstance(value, Tensor)}
    if len(small) == len(tensors):
        write_whole(path, lambda aside: save_file(small, aside, said))
    else:
        write_whole(path, lambda aside: write_features(aside, tensors, said))


def _holds(path: Path, says: dict[str, str]) -> bool:
    """Whether a file is intact, to the last bit, and its metadata is as expected."""
    said, shapes = _header(path)
    digest = said.pop("sha256", None)
    if digest is None or said != says or any(shape[:1] != [int(says["count"])] for shape in shapes.values()):
        return False
    return digest == _digest_of(path)


def _digest_of(path: Path) -> str:
    """The digest of the tensors in a file; empty if it cannot be read."""
    try:
        return _digest(read_features(path))
    except (OSError, SafetensorError, ValueError):
        return ""


def _digest(tensors: Mapping[str, Features]) -> str:
    """The SHA-256 of tensors with their names, types and shapes, whatever their order."""
    own: list[str] = []
    for name, value in tensors.items():
        digest = hashlib.sha256(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        for block in blocks(value, ROWS_AT_ONCE):
            digest.update(data_of(block))
        own.append(digest.hexdigest())
    return hashlib.sha256(" ".join(sorted(own)).encode()).hexdigest()


def _header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """A file's metadata, and the shapes of its tensors; both are empty for a missing or damaged file."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return json.loads((file.metadata() or {}).get("part", "{}")), {
                name: file.get_slice(name).get_shape() for name in names
            }
    except (OSError, SafetensorError, ValueError):
        return {}, {}
