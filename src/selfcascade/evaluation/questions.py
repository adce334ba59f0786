"""What is asked: prompts, each with the seed of its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

GROUP = 20


@dataclass(frozen=True)
class Questions:
    """Prompts, and what is to be seen in their pictures where that is known.

    Attributes:
        prompts: The captions.
        first: Seed of the first one's picture; the next one's is one more.
        truths: The attributes that each picture is to have; empty where captions are all that is known.
    """

    prompts: tuple[str, ...]
    first: int
    truths: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def first_of(self, count: int) -> Questions:
        """The first of them."""
        return Questions(self.prompts[:count], self.first, self.truths[:count])

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The prompts of these."""
        return [self.prompts[index] for index in indices]

    def generators(self, indices: Sequence[int]) -> list[torch.Generator]:
        """A generator for each picture."""
        return [torch.Generator().manual_seed(self.first + index) for index in indices]

    def groups(self) -> Iterator[range]:
        """The questions in groups that are answered together."""
        for begin in range(0, len(self), GROUP):
            yield range(begin, min(begin + GROUP, len(self)))
