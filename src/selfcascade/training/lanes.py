"""How the processes of now share the batches that a run was begun with, so that their number may change on the way.

A run has as many lanes as it had processes when it began. Each is a stream of its own, with its own place in the data;
every optimizer step takes the same batches of the same lanes, whoever computes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from selfcascade.data import Batch, Position, Stream, prefetched


@dataclass(frozen=True)
class Lanes:
    """The lanes that a process computes, or its part of one.

    Attributes:
        count: Lanes of the run.
        own: Those of this process.
        part, parts: With more processes than lanes, the number of this part of each batch, and of how many.
    """

    count: int
    own: tuple[int, ...]
    part: int = 0
    parts: int = 1

    @classmethod
    def shared(cls, count: int, rank: int, processes: int, batch_size: int) -> Lanes:
        """The share of a process.

        Raises:
            ValueError: The lanes cannot be shared equally by this many processes; those that can are named.
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
        """Numbers, from the run's beginning, of the samples of a part of a batch.

        Args:
            step: Optimizer steps before it, times the batches of a lane in each, plus those of this step before it.
            micro: Which of the process's own lanes it is of.
            rows: Samples of the whole batch.
        """
        first = step * rows * self.count
        return [first + row * self.count + self.own[micro] for row in self.rows(rows)]

    def rows(self, rows: int) -> range:
        """Which rows of a batch are computed here."""
        size = rows // self.parts
        return range(self.part * size, (self.part + 1) * size)

    def batches(self, stream: Stream, batch_size: int, starts: list[Position]) -> Iterator[tuple[Batch, int]]:
        """One batch of each own lane after the other, without end, each with the samples of the whole batch.

        Args:
            stream: The data.
            batch_size: Samples of a whole batch.
            starts: Of each lane of the run, where it goes on.
        """
        lanes = [stream.batches(batch_size, lane, self.count, starts[lane]) for lane in self.own]

        def in_turn() -> Iterator[Batch]:
            while True:
                yield from (next(lane) for lane in lanes)

        # Processes that decode are ahead by themselves, and must not be started by a thread.
        ahead = in_turn() if stream.workers else prefetched(in_turn())
        with closing(ahead):  # type: ignore[type-var]
            for batch in ahead:
                yield self._part_of(batch), len(batch.keys)

    def positions(self, gathered: list[dict[int, Any]]) -> list[Any]:
        """The lanes' places in order, from those that each process says of its own."""
        found = {lane: place for own in gathered for lane, place in own.items()}
        return [found[lane] for lane in range(self.count)]

    def _part_of(self, batch: Batch) -> Batch:
        if self.parts == 1:
            return batch
        rows = self.rows(len(batch.keys))
        chosen = slice(rows.start, rows.stop)
        names = ("pixels", "captions", "keys", "original_sizes", "crops")
        return replace(batch, **{name: getattr(batch, name)[chosen] for name in names})
