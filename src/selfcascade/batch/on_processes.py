"""Runs a batch on the processes that accelerate, torchrun or Slurm have started, or on a single one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from selfcascade.batch.batch_plan import Job, Plan, Survey
from selfcascade.batch.beginning import begin, find
from selfcascade.batch.output_folder import Left
from selfcascade.batch.progress import Progress, Tally
from selfcascade.batch.work import Worker
from selfcascade.making import load_cascade

ROUNDS = 3


@dataclass(frozen=True)
class Part:
    """A job's place among independent jobs, such as those of a Slurm array.

    Attributes:
        index: Index of the job, from 0.
        count: Number of jobs.
    """

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Outcome:
    """The state of a batch at the end of a run.

    Attributes:
        rows: Number of rows.
        done: Number of rows that are made or have failed.
        failed: Number of rows that have failed.
        is_main: Whether this process reports for all.
    """

    rows: int
    done: int
    failed: int
    is_main: bool = True


def run_on_processes(
    job: Job, retry: bool = False, part: Part | None = None, note: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Makes the remaining rows of a batch, or this process's share of them.

    Args:
        job: The command's settings.
        retry: Whether failed rows are tried again.
        part: This job's place among others; None for a single job.
        note: Called with a line for the user, in one of the processes.

    Raises:
        BatchError: The batch cannot begin or continue; finished rows are kept.
    """
    from selfcascade.processes import join

    processes, part = join(), part or Part()
    main, shares = processes.is_main_process, part.count * processes.num_processes
    share = part.index * processes.num_processes + processes.process_index
    say: Callable[[str], None] = note if main else lambda _: None
    found = processes.together(lambda: find(job))
    worker = processes.together(lambda: open_worker(job, found, say, processes))
    folder = worker.folder
    if retry:
        processes.main_alone(lambda: reopen(worker))
    with Progress(folder, say if main else None):
        for _ in range(ROUNDS):
            processes.main_alone(folder.finish_whole)
            # Jobs start at different times and see different blocks left, so they share out all blocks.
            left = folder.left() if part.count > 1 else processes.from_main(folder.left() if main else Left())
            shared = Left() if part.count > 1 else left
            for number, (shard, block) in enumerate(shared.blocks(folder.plan)):
                if number % shares == share and left.has(shard, block):
                    worker.make(shard, block)
            processes.wait_for_everyone()
            if part.count > 1 or processes.from_main(not main or folder.is_finished()):
                break
    processes.main_alone(folder.close)
    done, failed = Tally(folder).count()
    return Outcome(folder.plan.rows, done, failed, main)


def open_worker(job: Job, found: Plan | Survey, note: Callable[[str], None], processes: Any = None) -> Worker:
    """A worker with its model loaded, for a batch that has begun."""
    options = job.options
    if processes is not None and processes.num_processes > 1 and options.device is None:
        # `load_model` would give "cpu:0" the default precision of a GPU.
        options = options.changed(device="cpu" if processes.device.type == "cpu" else str(processes.device))
    cascade, options = load_cascade(options)
    folder = begin(job, found, cascade, note)
    return Worker(replace(job, options=options), folder, cascade)


def reopen(worker: Worker) -> None:
    """Marks blocks with failed rows as not made."""
    worker.folder.reopen(lambda shard: [[row.number for row, _ in block] for block in worker.blocks(shard)])
