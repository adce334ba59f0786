"""The processes that a launcher started together: accelerate's, torchrun, mpirun, or srun with one of them."""

from __future__ import annotations

import functools
import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from selfcascade.processes.errors import TogetherError

T = TypeVar("T")

# One process may evaluate thirty thousand pictures while the others wait; a dead process is noticed at once anyway.
PATIENCE = timedelta(days=7)
# Seconds until other machines see a new file; NFS caches a folder's content for a minute.
LATENESS = 90.0
# Variables in which launchers state their number of processes; for Slurm, the number in the step that `srun` started.
LAUNCHED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# Without one of these variables a process does not know its index.
PLACES = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")


class Processes:
    """A process's place among those of a run, and their collective operations.

    All processes must call every method, in the same order. Waiting never times out while another process works.

    Attributes:
        process_index, num_processes, is_main_process: The same as in accelerate.
        device: Device of this process.
    """

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | None = None, group: Any = None) -> None:
        self.process_index, self.num_processes, self.is_main_process = index, count, index == 0
        self.device, self._group = device or torch.device("cpu"), group

    def wait_for_everyone(self) -> None:
        """Returns once all processes have called this."""
        self.gathered(None)

    def end(self) -> None:
        """Ends the group, so that no process keeps waiting for another."""
        if self.num_processes > 1:
            self.wait_for_everyone()
            PartialState().destroy_process_group()

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in their order."""
        if self.num_processes == 1:
            return [value]
        found: list[Any] = [None] * self.num_processes
        dist.all_gather_object(found, value, self._group)
        return found

    def from_main(self, value: T) -> T:
        """The main process's value."""
        return self.gathered(value if self.is_main_process else None)[0]

    def tensors_from_main(self, tensors: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """The main process's tensors by name, on the CPU; the other processes give None."""
        if self.num_processes == 1:
            return dict(tensors or {})
        kinds = None if tensors is None else [(name, value.shape, value.dtype) for name, value in tensors.items()]
        found: dict[str, torch.Tensor] = {}
        for name, shape, dtype in self.from_main(kinds) or []:
            given = None if tensors is None else tensors[name].detach().cpu().contiguous()
            found[name] = torch.empty(shape, dtype=dtype) if given is None else given
            dist.broadcast(found[name], 0, group=self._group)
        return found

    def together(self, work: Callable[[], T]) -> T:
        """Runs `work`, and returns its result once it has succeeded in every process.

        Raises:
            TogetherError: It failed in one of several processes; the message says which, and why.
        """
        if self.num_processes == 1:
            return work()
        value: Any = None
        failure: Exception | None = None
        try:
            value = work()
        except Exception as error:
            failure = error
        words = None if failure is None else str(failure) if isinstance(failure, ValueError) else _named(failure)
        found = self.gathered((platform.node(), words))
        if all(said is None for _, said in found):
            return value
        if failure is not None and all(said == words for _, said in found):
            raise TogetherError(str(words), self.is_main_process) from failure
        places = [f"process {index} on {host}: {said}" for index, (host, said) in enumerate(found) if said is not None]
        raise TogetherError("; ".join(places), self.is_main_process) from failure

    def main_alone(self, work: Callable[[], object]) -> None:
        """Runs `work` in the main process while the others wait; if it fails, all end."""
        self.together(work if self.is_main_process else lambda: None)

    def of_main(self, work: Callable[[], T]) -> T:
        """Runs `work` in the main process, and returns its result in all; if it fails, all end."""
        value: Any = self.together(work if self.is_main_process else lambda: None)
        return self.from_main(value)

    def check_shared(self, folder: Path, what: str) -> None:
        """Raises TogetherError unless all processes see the same folder, which is made if it is missing.

        Args:
            folder: The folder.
            what: Name of the folder in messages.
        """
        if self.num_processes == 1:
            return
        path = folder / f".selfcascade-{self.from_main(uuid.uuid4().hex)}"

        def see() -> None:
            if not appears(path):
                raise ValueError(f"{what} {str(folder)!r} must be on a disk that all processes share")

        self.main_alone(lambda: (folder.mkdir(parents=True, exist_ok=True), path.touch()))
        try:
            self.together(see)
        finally:
            if self.is_main_process:
                path.unlink(missing_ok=True)

    def check_agreement(self, facts: Mapping[str, Any]) -> None:
        """Raises TogetherError unless all processes have the same facts; the message says what differs, and where.

        Args:
            facts: Values by name; they are compared as text.
        """
        found = self.gathered((platform.node(), {name: str(value) for name, value in facts.items()}))
        names = list(dict.fromkeys(name for _, own in found for name in own))
        differing = [name for name in names if len({own.get(name) for _, own in found}) > 1]
        if not differing:
            return
        words = [
            f"{name} is {_by_value([(host, own.get(name, 'missing')) for host, own in found])}" for name in differing
        ]
        raise TogetherError(f"the processes of this run do not agree: {'; '.join(words)}", self.is_main_process)


def appears(path: Path, seconds: float | None = None) -> bool:
    """Whether a file exists, or appears within some seconds, since network file systems show new files late."""
    end = time.monotonic() + (LATENESS if seconds is None else seconds)
    while not path.exists():
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True


def join() -> Processes:
    """Joins the processes that were launched together; on CPUs the group uses gloo.

    Raises:
        ValueError: A launcher has started several processes, but no group: each would take itself for the only one.
    """
    name, count = _said(os.environ)
    placed = any(place in os.environ for place in PLACES)
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    on_cpu = on_cpu or (count > 1 and placed and not torch.accelerator.is_available())
    state = PartialState(cpu=on_cpu) if placed or count == 1 else None
    if state is None or count > state.num_processes:
        raise ValueError(
            f"{name} says that {count} processes were started, but they form no group and would overwrite each other's "
            f"work; start them by accelerate launch or torchrun, or a single one with {name}=1"
        )
    group = None if state.num_processes == 1 else _patient(dist.group.WORLD)
    return Processes(state.process_index, state.num_processes, state.device, group)


@functools.lru_cache(maxsize=1)
def _patient(world: Any) -> Any:
    """A group of the same processes without time-outs; on CPUs, so that no accelerator is busy while waiting."""
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _said(environment: Mapping[str, str]) -> tuple[str, int]:
    """The variable in which a launcher states its number of processes, and the number."""
    slurm = next((name for name in SLURM if name in environment), SLURM[-1])
    counts = {name: _whole(environment.get(name)) for name in (*LAUNCHED, slurm)}
    name = max(counts, key=lambda name: counts[name])
    return name, counts[name]


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 1


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _by_value(found: Sequence[tuple[str, str]]) -> str:
    """The processes' values, each with the processes that have it."""
    holders: dict[str, list[str]] = {}
    for index, (host, value) in enumerate(found):
        holders.setdefault(value, []).append(f"{index} on {host}")
    parts = []
    for value, places in holders.items():
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        parts.append(f"{value} in process {', '.join(places[:2])}{more}")
    return ", ".join(parts)
