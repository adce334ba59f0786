"""Long sampling in parts: each is a file, whole or absent, so it can be shared and goes on where it was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
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
    """Writes what `make` gives for each group to a file of its own; groups whose file is there are not made again.

    Args:
        make: Tensors of a group, with a row for each of its members.
        groups: In order; the n-th falls to process n mod the number of processes.
        folder: Of the files.
        title: Of the progress bar.
        processes: accelerate's `PartialState`; None is this process alone.

    Returns:
        The files of all groups, in order; in all processes, once all are there.
    """
    processes = processes or SingleProcess()
    paths = [folder / f"{number:05d}.safetensors" for number in range(len(groups))]
    own = range(processes.process_index, len(groups), processes.num_processes)
    left = [number for number in own if not paths[number].exists()]
    for number in tqdm(left, title, disable=None if processes.is_main_process else True):
        made = make(groups[number])
        write_whole(paths[number], lambda aside, made=made: save_file(made, aside))
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


def cached(path: Path, make: Callable[[], Iterable[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The parts that `make` yields, concatenated along the first axis; computed once, then read from that file."""
    if not path.exists():
        with torch.no_grad():
            parts = list(make())
        write_whole(path, lambda aside: save_file(concatenated(parts), aside))
    return load_file(path)
