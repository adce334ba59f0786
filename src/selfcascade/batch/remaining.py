"""The part of a batch that is left to do, in order."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from selfcascade.batch.batch_plan import Plan


@dataclass(frozen=True)
class Left:
    """What was finished at one moment, and so what is left; the same for all processes.

    Attributes:
        finished: Numbers of the finished shards.
        parts: The blocks that are made, by the number of an unfinished shard.
    """

    finished: frozenset[int] = frozenset()
    parts: Mapping[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])

    def blocks(self, plan: Plan) -> Iterator[tuple[int, int]]:
        """(shard, block) of each block that is left, in order."""
        for number, shard in enumerate(plan.shards):
            if number not in self.finished:
                done = self.parts.get(number, frozenset())
                yield from ((number, block) for block in range(shard.blocks) if block not in done)

    def has(self, shard: int, block: int) -> bool:
        """Whether a block is left."""
        return shard not in self.finished and block not in self.parts.get(shard, frozenset())

    def count(self, plan: Plan) -> int:
        """Number of blocks that are left."""
        left = (shard.blocks for number, shard in enumerate(plan.shards) if number not in self.finished)
        return sum(left) - sum(map(len, self.parts.values()))


class Numbered:
    """Numbers the blocks that are left, without a list of all of them."""

    def __init__(self, plan: Plan, left: Left) -> None:
        self.left, self.firsts, self.shards, first = left, list[int](), list[int](), 0
        for number, shard in enumerate(plan.shards):
            if number not in left.finished:
                self.firsts.append(first)
                self.shards.append(number)
                first += shard.blocks - len(left.parts.get(number, ()))
        self.count, self.plan = first, plan

    def __getitem__(self, number: int) -> tuple[int, int]:
        """The (shard, block) with this number."""
        at = bisect.bisect_right(self.firsts, number) - 1
        shard = self.shards[at]
        own = (block for block in range(self.plan.shards[shard].blocks) if self.left.has(shard, block))
        return shard, next(itertools.islice(own, number - self.firsts[at], None))
