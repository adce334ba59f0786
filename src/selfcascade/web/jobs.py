"""The jobs of each visitor: their progress, and requests to stop them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from selfcascade.web.form import across

Report = Callable[[str, float], object]  # what is done, and the share of it that is


class Cancelled(Exception):
    """The visitor stopped what was running, or left."""


class Job:
    """One request that runs.

    Args:
        report: Called with the progress; None reports nothing.
    """

    def __init__(self, report: Report | None = None) -> None:
        self.report, self.stopped, self.heading = report, threading.Event(), ""

    def say(self, heading: str) -> None:
        """Sets the heading for the following steps.

        Raises:
            Cancelled: The job was cancelled.
        """
        self.heading = heading
        if self.stopped.is_set():
            raise Cancelled
        if self.report is not None:
            self.report(heading, 0.0)

    def on_step_end(self, pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A `callback_on_step_end` of diffusers: reports a step, and interrupts a pipeline that is to stop."""
        stage, total = kwargs["stage"], getattr(pipe, "num_timesteps", None) or step + 1
        if self.report is not None:
            name = "base stage" if stage.index == 0 and stage.pivot_step is None else f"stage {stage.index + 1}"
            text = f"{name} of {stage.count}, {across(stage.size)}: step {min(step + 1, total)} of {total}"
            self.report(f"{self.heading}, {text}" if self.heading else text, min(1.0, (step + 1) / total))
        if self.stopped.is_set():
            pipe._interrupt = True
        return {}


class Jobs:
    """The requests that run, by visitor; those that wait their turn are not among them yet."""

    def __init__(self) -> None:
        self.lock, self.running = threading.Lock(), dict[str, set[Job]]()

    @contextlib.contextmanager
    def job(self, visitor: str, report: Report | None = None) -> Iterator[Job]:
        """A job that is registered while it runs, and stopped if its visitor leaves."""
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
        """Stops what runs for a visitor; returns the number of jobs."""
        with self.lock:
            jobs = list(self.running.get(visitor, ()))
        for job in jobs:
            job.stopped.set()
        return len(jobs)
