"""Runs a batch on a Ray cluster: Ray Data gives blocks to actors, each of which has loaded the model."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selfcascade.batch.batch_plan import Job, Plan, Survey
from selfcascade.batch.beginning import find
from selfcascade.batch.on_processes import ROUNDS, Outcome, open_worker, reopen
from selfcascade.batch.output_folder import OutputFolder
from selfcascade.batch.progress import Progress, Tally
from selfcascade.batch.refusals import BatchError
from selfcascade.batch.remaining import Left, Numbered
from selfcascade.batch.work import Worker
from selfcascade.options.optional import install

TASKS_PER_WORKER = 64
MOST_TASKS = 10_000
# Ray gives up at the first actor that is killed while it starts, and starts any other again.
DEATHS, MOST_DEATHS = "max_consecutive_actor_init_deaths", 100


class Actor:
    """Runs in its own process. Ray Data restarts a killed one and gives out its blocks again.

    Args:
        place: Working directory of the command; relative paths start there.
        job: The command's settings.
        left: The blocks that were left when they were numbered.
    """

    def __init__(self, place: str, job: Job, left: Left) -> None:
        self.place, self.job, self.left = place, job, left
        self._open: tuple[Worker, Numbered] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Makes the blocks with these numbers, except those that exist already.

        An error that ends the batch is returned: if raised, it would be reworded by Ray.
        """
        try:
            worker, numbers = self._opened()
            for number in batch["id"]:
                shard, block = numbers[int(number)]
                if worker.folder.lacks(shard, block):
                    worker.make(shard, block)
        except ValueError as error:
            return {"fault": [str(error)]}
        return {"fault": [""]}

    def _opened(self) -> tuple[Worker, Numbered]:
        if self._open is None:
            _go_to(self.place)
            worker = open_worker(self.job, find(self.job), lambda _: None)
            self._open = worker, Numbered(worker.plan, self.left)
        return self._open


def run_on_ray(
    job: Job, retry: bool = False, workers: int | None = None, note: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Makes the remaining rows of a batch on the cluster at `RAY_ADDRESS`, or on this machine.

    Args:
        job: The command's settings; all machines must see its files under the same paths.
        retry: Whether failed rows are tried again.
        workers: Number of actors; None means one for each GPU, or one for each CPU without GPUs.
        note: Called with a line for the user.

    Raises:
        BatchError: Ray is not installed, or the batch cannot begin or continue; finished rows are kept.
    """
    found = find(job)
    with _cluster() as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        workers = workers or gpus or max(1, int(resources.get("CPU", 1)))
        need = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        begin = ray.remote(**need, max_calls=1)(_begin)  # in its own process, which frees the GPU when it ends
        folder, notes, fault = ray.get(begin.remote(str(Path.cwd()), job, found, retry))
        for text in notes:
            note(text)
        if fault:
            raise BatchError(fault)
        with Progress(folder, note):
            for _ in range(ROUNDS):
                folder.finish_whole()
                numbers = Numbered(folder.plan, folder.left())
                if not numbers.count:
                    break
                _make(ray, job, numbers, workers, need)
        folder.close()
    done, failed = Tally(folder).count()
    return Outcome(folder.plan.rows, done, failed)


def _begin(place: str, job: Job, found: Plan | Survey, retry: bool) -> tuple[OutputFolder | None, list[str], str]:
    """The output folder, notes for the user, and why the batch cannot begin; run where the model fits."""
    notes: list[str] = []
    try:
        _go_to(place)
        worker = open_worker(job, found, notes.append)
        if retry:
            reopen(worker)
    except ValueError as error:
        return None, notes, str(error)
    return worker.folder, notes, ""


def _make(ray: Any, job: Job, numbers: Numbered, workers: int, need: dict[str, Any]) -> None:
    """Lets actors make all numbered blocks."""
    import numpy as np
    import pyarrow

    tasks = min(numbers.count, MOST_TASKS, TASKS_PER_WORKER * workers)
    # Tables in memory: tasks that read files would wait for the CPUs of the actors, which wait for the tasks.
    tables = [pyarrow.table({"id": part}) for part in np.array_split(np.arange(numbers.count), tasks)]
    made = ray.data.from_arrow(tables).map_batches(
        Actor,
        fn_constructor_args=(str(Path.cwd()), job, numbers.left),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, tasks)),
        **need,
    )
    for told in made.iter_batches(batch_size=None):
        for fault in told["fault"]:
            if fault:
                raise BatchError(str(fault))


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; an existing connection is kept."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BatchError(f"engine ray needs Ray: {install('ray')}") from error
    ours = not ray.is_initialized()
    if ours:
        logging.getLogger("ray").setLevel(logging.ERROR)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    kept = {name: getattr(context, name) for name in ("enable_progress_bars", DEATHS) if hasattr(context, name)}
    context.enable_progress_bars = False
    if DEATHS in kept:  # earlier versions have no such setting
        setattr(context, DEATHS, MOST_DEATHS)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        for name, value in kept.items():
            setattr(context, name, value)
        if ours:
            ray.shutdown()


def _go_to(place: str) -> None:
    try:
        os.chdir(place)
    except OSError as error:
        raise BatchError(f"{place!r}, where the command was given, is not on all machines: {error.strerror}") from error
