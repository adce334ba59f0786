"""The prompts of a benchmark, each with the seed of its sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

GROUP, CLIP_GROUP = 20, 1  # a clip takes as long as all pictures of a group
SEED_STEP = 100_000  # number of pictures that a seed can have before it shares noise with the next seed


@dataclass(frozen=True)
class PromptSet:
    """Prompts, and the attributes that their pictures must have, if known.

    Attributes:
        prompts: The captions.
        first_seed: Seed of the first prompt's sample; each further one adds 1.
        truths: The attributes of each prompt's scene; empty if only captions are known.
        frames: Number of frames in each clip; None for pictures.
    """

    prompts: tuple[str, ...]
    first_seed: int
    truths: tuple[dict[str, Any], ...] = ()
    frames: int | None = None

    def __len__(self) -> int:
        return len(self.prompts)

    def head(self, count: int) -> PromptSet:
        """The first `count` prompts."""
        return replace(self, prompts=self.prompts[:count], truths=self.truths[:count])

    def captions(self, indices: Sequence[int]) -> list[str]:
        """The prompts at these indices."""
        return [self.prompts[index] for index in indices]

    def generators(self, indices: Sequence[int]) -> list[torch.Generator]:
        """A seeded generator for each of these prompts."""
        return [torch.Generator().manual_seed(self.first_seed + index) for index in indices]

    def groups(self) -> Iterator[range]:
        """Indices of prompts that are sampled together, group by group."""
        size = GROUP if self.frames is None else CLIP_GROUP
        for begin in range(0, len(self), size):
            yield range(begin, min(begin + size, len(self)))

    @property
    def length(self) -> dict[str, int]:
        """The pipeline's argument for the length of clips; empty for pictures."""
        return {} if self.frames is None else {"num_frames": self.frames}
