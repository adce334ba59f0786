"""What runs for whom: progress of each stage, and the wish to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

Report = Callable[[str, float], object]  # what is done, and the share of it that is


class Cancelled(Exception):
    """The visitor stopped what was running, or left."""


class Job:
    """One request that runs.

    Args:
        report: Told what is being done; None where nobody looks.
    """

    def __init__(self, report: Report | None = None) -> None:
        self.report, self.stopped, self.heading = report, threading.Event(), ""

    def say(self, heading: str) -> None:
        """What the steps that follow are for.

        Raises:
            Cancelled: It is not wanted any more.
        """
        self.heading = heading
        if self.stopped.is_set():
            raise Cancelled
        if self.report is not None:
            self.report(heading, 0.0)

    def on_step_end(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """As diffusers' `callback_on_step_end`: reports a step, and interrupts the pipeline where it is to stop."""
        stage, total = kwargs["stage"], getattr(pipe, "num_timesteps", None) or step + 1
        if self.report is not None:
            name = "base stage" if stage.index == 0 and stage.pivot_step is None else f"stage {stage.index + 1}"
            text = f"{name} of {stage.count}, {stage.size}: step {min(step + 1, total)} of {total}"
            self.report(f"{self.heading}, {text}" if self.heading else text, min(1.0, (step + 1) / total))
        if self.stopped.is_set():
            pipe._interrupt = True
        return {}


class Jobs:
    """The requests that run or wait for the model, by visitor."""

    def __init__(self) -> None:
        self.lock, self.running = threading.Lock(), dict[str, set[Job]]()

    @contextlib.contextmanager
    def job(self, visitor: str, report: Report | None = None) -> Iterator[Job]:
        """A job for as long as it runs; it is stopped where its visitor left half-way."""
        job = Job(report)
        with self.lock:
            self.running.setdefault(visitor, set()).add(job)
        try:
            yield job
        finally:
            job.stopped.set()
            with self.lock:
                self.running[visitor].discard(job)
                if not self.running[visitor]:
                    del self.running[visitor]

    def cancel(self, visitor: str) -> int:
        """Stops what runs for a visitor; how many jobs that were."""
        with self.lock:
            jobs = list(self.running.get(visitor, ()))
        for job in jobs:
            job.stopped.set()
        return len(jobs)
