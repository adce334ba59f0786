"""What is asked: prompts, each with the seed of its picture or clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

GROUP, CLIP_GROUP = 20, 1  # a clip takes as long as all pictures of a group
SEED_STEP = 100_000  # pictures that a seed can have before another seed's noise comes again


@dataclass(frozen=True)
class Questions:
    """Prompts, and what is to be seen in their pictures where that is known.

    Attributes:
        prompts: The captions.
        first: Seed of the first one's picture; the next one's is one more.
        truths: The attributes that each picture is to have; empty where captions are all that is known.
        frames: Of each clip; None where pictures are asked for.
    """

    prompts: tuple[str, ...]
    first: int
    truths: tuple[dict[str, Any], ...] = ()
    frames: int | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def first_of(self, count: int) -> Questions:
        """The first of them."""
        return replace(self, prompts=self.prompts[:count], truths=self.truths[:count])

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The prompts of these."""
        return [self.prompts[index] for index in indices]

    def generators(self, indices: Sequence[int]) -> list[torch.Generator]:
        """A generator for each picture."""
        return [torch.Generator().manual_seed(self.first + index) for index in indices]

    def groups(self) -> Iterator[range]:
        """The questions in groups that are answered together."""
        size = GROUP if self.frames is None else CLIP_GROUP
        for begin in range(0, len(self), size):
            yield range(begin, min(begin + size, len(self)))

    @property
    def length(self) -> dict[str, int]:
        """What pipelines are told of clips' length; nothing of pictures."""
        return {} if self.frames is None else {"num_frames": self.frames}
