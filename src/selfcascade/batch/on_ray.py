"""A batch on a Ray cluster: Ray Data hands blocks to actors, each of which holds the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from selfcascade.batch.batch_plan import Job
from selfcascade.batch.beginning import find
from selfcascade.batch.on_processes import Outcome, open_worker, reopen
from selfcascade.batch.output_folder import OutputFolder
from selfcascade.batch.progress import Progress, Tally
from selfcascade.batch.refusals import BatchError
from selfcascade.batch.remaining import Left, Numbered

ROUNDS = 3
MOST_TASKS = 10_000


class Actor:
    """What Ray Data keeps in a process of its own; a killed one is started again, and its blocks are given again.

    Args:
        job: What the command says.
        left: What was left when the blocks were numbered.
    """

    def __init__(self, job: Job, left: Left) -> None:
        self.worker = open_worker(job, find(job), lambda _: None)
        self.numbers = Numbered(self.worker.plan, left)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Makes the blocks of these numbers, but those that are there."""
        for number in batch["id"]:
            shard, block = self.numbers[int(number)]
            if self.worker.folder.lacks(shard, block):
                self.worker.make(shard, block)
        return batch


def run_on_ray(
    job: Job, retry: bool = False, workers: int | None = None, note: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Makes what is left of a batch on the cluster that `RAY_ADDRESS` names, or on this machine.

    Args:
        job: What the command says; its files are where all machines see them.
        retry: Whether rows that have failed are made again.
        workers: How many actors; None is one for each GPU, or one for each CPU where there is no GPU.
        note: Called with a line for the reader.

    Raises:
        BatchError: Ray is not installed, or the batch cannot begin or go on; what is finished is kept.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BatchError("engine ray needs Ray: pip install 'selfcascade[ray]'") from error
    found = find(job)
    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    workers = workers or gpus or max(1, int(resources.get("CPU", 1)))
    need: dict[str, Any] = {"num_gpus": 1} if gpus else {"num_cpus": 1}

    def prepare() -> tuple[OutputFolder, list[str]]:
        notes: list[str] = []
        worker = open_worker(job, found, notes.append)
        if retry:
            reopen(worker)
        return worker.folder, notes

    folder, notes = _asked(ray, ray.remote(**need, max_calls=1)(prepare).remote())
    for text in notes:
        note(text)
    with Progress(folder, note):
        for _ in range(ROUNDS):
            folder.finish_whole()
            numbers = Numbered(folder.plan, folder.left())
            if not numbers.count:
                break
            tasks = min(numbers.count, MOST_TASKS)
            given = ray.data.range(numbers.count, override_num_blocks=tasks)
            made = given.map_batches(
                Actor,
                fn_constructor_args=(job, numbers.left),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(workers, tasks)),
                **need,
            )
            for _ in made.iter_batches(batch_size=None):
                pass
    folder.close()
    done, failed = Tally(folder).count()
    return Outcome(folder.plan.rows, done, failed)


def _asked(ray: Any, reference: Any) -> Any:
    """What a task of Ray's returns; its own error as it was raised there."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, ValueError) else error
        raise cause from None
