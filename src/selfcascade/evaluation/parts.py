"""Long sampling in parts: each is a file that says what it holds, so it can be shared and goes on where it was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from selfcascade.media.whole_files import write_whole


class SingleProcess:
    """A run without other processes, with the attributes of accelerate's `PartialState`."""

    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        """Returns at once."""


def concatenated(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of the same names, concatenated along the first axis."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def read_parts(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of these files, concatenated along the first axis."""
    return concatenated([load_file(path) for path in paths])


def in_parts(
    make: Callable[[range], dict[str, Tensor]],
    groups: Sequence[range],
    folder: Path,
    title: str,
    processes: Any = None,
) -> list[Path]:
    """Writes what `make` gives for each group to a file of its own; groups whose file holds them are not made again.

    A file that is damaged, or of another group or length, is written anew.

    Args:
        make: Tensors of a group, with a row for each of its members.
        groups: In order; the n-th falls to process n mod the number of processes.
        folder: Folder of the files.
        title: Title of the progress bar.
        processes: accelerate's `PartialState`; None is this process alone.

    Returns:
        The files of all groups, in order; in all processes, once all are there.
    """
    processes = processes or SingleProcess()
    paths = [folder / f"{number:05d}.safetensors" for number in range(len(groups))]
    own = range(processes.process_index, len(groups), processes.num_processes)
    left = [number for number in own if not _holds(paths[number], groups[number])]
    for number in tqdm(left, title, disable=None if processes.is_main_process else True):
        made, said = make(groups[number]), _says(groups[number])
        write_whole(paths[number], lambda aside, made=made, said=said: save_file(made, aside, said))
    processes.wait_for_everyone()
    return paths


def pictures_of(parts: Sequence[Path], count: int) -> Iterator[Tensor]:
    """The first `count` of the "pictures" in these files, bytes, as floats in [0, 1]; one part at a time is read."""
    for path in parts:
        pictures = load_file(path)["pictures"][:count]
        count -= len(pictures)
        yield pictures.float() / 255
        if count == 0:
            return


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
    if any(found.get(name) != shape for name, shape in shapes.items()):
        with torch.no_grad():
            parts = list(make())
        write_whole(path, lambda aside: save_file(concatenated(parts), aside))
    return load_file(path)


def _says(group: range) -> dict[str, str]:
    """What the header of a part says of it."""
    return {"first": str(group.start), "count": str(len(group))}


def _holds(path: Path, group: range) -> bool:
    """Whether a file is whole and has a row for each member of this group."""
    said, shapes = _header(path)
    # Files of earlier versions say nothing; their rows are counted like any others.
    return bool(shapes) and said in ({}, _says(group)) and all(shape[:1] == [len(group)] for shape in shapes.values())


def _header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """What a file says of itself, and the shapes of its tensors, of which a missing or damaged one has none."""
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_slice(name).get_shape() for name in names}
    except (OSError, SafetensorError):
        return {}, {}
