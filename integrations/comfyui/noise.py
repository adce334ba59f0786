"""Noise of a cascade's stages from one seed, for each picture of a batch the same whatever the batch."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.sample
import torch
from torch import Tensor


class Noises:
    """The first noise is KSampler's; after it each picture's own generator continues.

    For a single picture this is one generator that draws for stage after stage, as in the library.

    Args:
        seed: Seed, as for KSampler.
        first: Latents of the first stage that noise is drawn for, (B, C, h, w).
        numbers: The `batch_index` of the latents; None: 0, 1, 2, ...
    """

    def __init__(self, seed: int, first: Tensor, numbers: Sequence[int] | None) -> None:
        self.seed, self.shape = seed, first.shape
        self.first: Tensor | None = comfy.sample.prepare_noise(first, seed, numbers)
        self.numbers = list(range(len(first))) if numbers is None else list(numbers)
        self.generators: dict[int, torch.Generator] = {}

    def draw(self, latents: Tensor) -> Tensor:
        """Noise for latents of the next stage, (B, C, h', w')."""
        if self.first is not None:
            first, self.first = self.first, None
            return first
        drawn = {number: torch.randn((1, *latents.shape[1:]), generator=self._of(number)) for number in {*self.numbers}}
        return torch.cat([drawn[number] for number in self.numbers])

    def _of(self, number: int) -> torch.Generator:
        if number not in self.generators:
            self.generators[number] = torch.Generator().manual_seed(self.seed)
            for _ in range(number + 1):
                torch.randn((1, *self.shape[1:]), generator=self.generators[number])
        return self.generators[number]
