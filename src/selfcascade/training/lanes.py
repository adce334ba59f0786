"""Shares a run's batches between processes, whose number may change when the run is resumed.

A run has as many lanes as it had processes when it began. A lane is a stream of batches with its own position in the
data. Every optimizer step takes the same batches of the same lanes, whichever process computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from selfcascade.data import Batch, Position, Stream, prefetched


@dataclass(frozen=True)
class Lanes:
    """The lanes that a process computes, or its part of a lane.

    Attributes:
        count: Number of lanes of the run.
        own: Lanes of this process.
        part, parts: With more processes than lanes, the index of this process's part of a batch, and number of parts.
    """

    count: int
    own: tuple[int, ...]
    part: int = 0
    parts: int = 1

    @classmethod
    def shared(cls, count: int, rank: int, processes: int, batch_size: int) -> Lanes:
        """The share of a process.

        Raises:
            ValueError: This many processes cannot share the lanes equally; the message lists numbers that can.
        """
        if count % processes == 0:
            return cls(count, tuple(range(rank, count, processes)))
        if processes % count == 0 and batch_size % (processes // count) == 0:
            return cls(count, (rank % count,), rank // count, processes // count)
        most = count * batch_size
        possible = [n for n in range(1, most + 1) if count % n == 0 or (n % count == 0 and most % n == 0)]
        numbers = ", ".join(map(str, possible))
        raise ValueError(
            f"it was begun by {count} processes with batches of {batch_size}, which {processes} cannot share equally; "
            f"numbers of processes that can: {numbers}"
        )

    def samples(self, step: int, micro: int, rows: int) -> list[int]:
        """Numbers of the samples in this process's part of a batch, counted from the run's beginning.

        Args:
            step: Number of batches of a lane before this one.
            micro: Index among the process's own lanes.
            rows: Number of samples in the whole batch.
        """
        first = step * rows * self.count
        return [first + row * self.count + self.own[micro] for row in self.rows(rows)]

    def rows(self, rows: int) -> range:
        """Rows of a batch that this process computes."""
        size = rows // self.parts
        return range(self.part * size, (self.part + 1) * size)

    def batches(self, stream: Stream, batch_size: int, starts: list[Position]) -> Iterator[tuple[Batch, int]]:
        """Batches of the own lanes in turn, without end, each with the number of samples in the whole batch.

        Args:
            stream: The data.
            batch_size: Number of samples in a whole batch.
            starts: Position of each lane of the run.
        """
        lanes = [stream.batches(batch_size, lane, self.count, starts[lane]) for lane in self.own]

        def in_turn() -> Iterator[Batch]:
            while True:
                yield from (next(lane) for lane in lanes)

        # Worker processes run ahead by themselves, and must not be started from a thread.
        ahead = in_turn() if stream.workers else prefetched(in_turn())
        with closing(ahead):  # type: ignore[type-var]
            for batch in ahead:
                yield self._part_of(batch), len(batch.keys)

    def positions(self, gathered: list[dict[int, Any]]) -> list[Any]:
        """Positions of all lanes in order, from those that each process reports for its own."""
        found = {lane: place for own in gathered for lane, place in own.items()}
        return [found[lane] for lane in range(self.count)]

    def _part_of(self, batch: Batch) -> Batch:
        if self.parts == 1:
            return batch
        rows = self.rows(len(batch.keys))
        chosen = slice(rows.start, rows.stop)
        names = ("pixels", "captions", "keys", "original_sizes", "crops")
        return replace(batch, **{name: getattr(batch, name)[chosen] for name in names})
