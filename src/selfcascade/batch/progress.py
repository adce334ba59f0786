"""Progress of a batch over all processes, read from its folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from selfcascade.batch.output_folder import OutputFolder

FIRST, EVERY = 10.0, 60.0


class Tally:
    """Counts the finished rows in the folder; the facts of a finished shard are read once.

    Args:
        folder: The batch's output folder.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self.folder = folder
        self._finished: dict[int, int] = {}  # by shard, the rows that have failed

    def count(self) -> tuple[int, int]:
        """Number of rows that are made or have failed, and number of those that have failed."""
        finished, begun = self.folder.seen()
        for shard in finished - self._finished.keys():
            facts = self.folder.facts(shard)
            if facts is not None:
                self._finished[shard] = len(facts["failed"])
        done = sum(len(self.folder.plan.range(shard)) for shard in self._finished)
        failed = sum(self._finished.values())
        for shard in begun - self._finished.keys():
            for _, rows, failures in self.folder.parts(shard).values():
                done, failed = done + rows, failed + failures
        return done, failed


class Progress:
    """Reports now and then within this context: rows done, pictures per hour and time left, over all processes.

    Args:
        folder: The batch's output folder.
        say: Called with a line; None reports nothing.
        first, every: Seconds until the first line, and between lines.
    """

    def __init__(
        self, folder: OutputFolder, say: Callable[[str], None] | None, first: float = FIRST, every: float = EVERY
    ) -> None:
        self.tally, self.say, self.waits = Tally(folder), say, (first, every)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="selfcascade-progress", daemon=True)

    def __enter__(self) -> Self:
        self._began, self._before = time.monotonic(), self.tally.count()[0]  # no change of the clock moves it
        if self.say is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def line(self) -> str:
        """The current progress in one line."""
        rows, (done, failed) = self.tally.folder.plan.rows, self.tally.count()
        seconds = max(time.monotonic() - self._began, 1e-9)
        words = f"{done:,} of {rows:,} rows{f', {failed:,} of them failed' if failed else ''}"
        if done <= self._before:
            return words
        pace = (done - self._before) / seconds
        return f"{words}; {pace * 3600:,.0f} an hour, {duration((rows - done) / pace)} left"

    def _run(self) -> None:
        wait, last = self.waits[0], ""
        while not self._closed.wait(wait):
            wait = self.waits[1]
            try:
                line = self.line()
            except OSError:  # the folder is gone, for now or for good: the process that writes to it will say so
                continue
            if line != last and self.say is not None:
                self.say(line)
            last = line


def duration(seconds: float) -> str:
    """'2 d 3 h', '2 h 05 min', '3 min', '40 s'."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
