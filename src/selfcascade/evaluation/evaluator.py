"""Pictures or clips -> figures: every metric whose features are known, against held-out real samples.

Axis letters: N samples (pictures or clips), D features, F frames, H, W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfcascade.evaluation.parts import Rows, cached
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.metrics.registry import Metric


class BaseReference(NamedTuple):
    """What FID_b and KID_b are measured from: features (M, D) of base samples at their own size (h, w)."""

    features: Tensor
    size: tuple[int, int]


def patch_places() -> torch.Generator:
    """Draws the places of the patches, the same for all samples that are evaluated."""
    return torch.Generator().manual_seed(1)


class Evaluator(ABC):
    """Measures samples of one size against real ones, whose features are cached in a folder.

    Attributes:
        unit: What samples are called in results, "pictures" or "clips".
        metrics: By their names in results.
        part: Samples whose features are computed together.

    Args:
        height, width: Pixels of the samples.
        folder: Folder of the cached features of the real samples.
        real_count: How many real samples there are.
        draws: Number of bootstrap draws behind each interval.
    """

    unit: str
    metrics: dict[str, Metric]
    part: int

    def __init__(self, height: int, width: int, folder: Path, real_count: int, draws: int) -> None:
        self.size, self.folder, self.real_count, self.draws = (height, width), folder, real_count, draws
        self._reference: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the real samples and the detectors, in the name of the cached file."""

    @property
    @abstractmethod
    def cache(self) -> Path:
        """The file of the real samples' features."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """The real samples, `real_count` in all, in parts (n, 3, H, W) or (n, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def check(self, samples: Tensor) -> None:
        """Raises ValueError if samples have another size or length than this evaluator is for."""

    @abstractmethod
    def features(self, samples: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        """All features of samples, one row a sample; the generator draws the patches' places."""

    def base_features(self, samples: Tensor, size: Sequence[int]) -> Tensor:
        """Features of samples resized to the base model's size, for metrics against base samples.

        Raises:
            ValueError: There are no such metrics.
        """
        raise ValueError(f"base must be None: {self.unit} are not compared with base samples")

    def base_reference(self, parts: Iterable[Tensor]) -> BaseReference:
        """What samples are compared with, from base samples that come in parts (n, 3, h, w)."""
        found, size = [], (0, 0)
        for part in parts:
            size = (part.shape[-2], part.shape[-1])
            found.append(self.base_features(part, size))
        return BaseReference(torch.cat(found), size)

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """What a network reads in each sample beside its features; nothing where there is none."""
        return []

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """The metrics of what was read in all samples."""
        return {}

    @torch.no_grad()
    def evaluate(
        self, samples: Tensor | Iterable[Tensor], prompts: PromptSet, base: Tensor | BaseReference | None = None
    ) -> dict[str, Any]:
        """The number of samples, and each metric's figure; `metrics.registry` says what each holds.

        Args:
            samples: (N, 3, H, W) or (N, F, 3, H, W) in [0, 1], of the first N prompts; or parts of them, of which only
                one is in memory at a time. How they are parted changes no figure beyond rounding.
            prompts: What they were sampled from.
            base: Pictures of the base model at its own size, (M, 3, h, w), or what `base_reference` gives for them:
                FID_b and KID_b are measured from those.

        Raises:
            ValueError: The samples have another size or length, or clips are given base samples.
        """
        if isinstance(base, Tensor):
            base = self.base_reference([base])
        corners, rows, readings, count = patch_places(), Rows(len(prompts)), [], 0
        for part in samples.split(self.part) if isinstance(samples, Tensor) else samples:
            self.check(part)
            rows.add(self.features(part, corners))
            if base is not None:
                rows.add({"base_size": self.base_features(part, base.size)})
            readings += self.read(part, prompts.captions(range(count, count + len(part))))
            count += len(part)
        fake = rows.tensors(count)
        real = self.reference({name: value for name, value in fake.items() if name != "base_size"})
        if base is not None:
            real = {**real, "base_size": base.features}
        figures = {
            name: metric.compare(real[metric.feature], fake[metric.feature], self.draws)
            for name, metric in self.metrics.items()
            if metric.compare is not None and metric.feature in fake
        }
        return {self.unit: count, **self.reading_figures(readings, prompts), **figures}

    def reference(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of the real samples, computed at the first call.

        Args:
            like: Features of other samples; a cached file without some of these, or with others, is made anew.
        """
        if not self._reference:
            corners = patch_places()

            def make() -> Iterator[dict[str, Tensor]]:
                return (self.features(part, corners) for part in self.real())

            self._reference = cached(self.cache, make, self.real_count, like)
        return self._reference

    def extracted(self, samples: Tensor) -> dict[str, Tensor]:
        """The features that metrics extract without a network."""
        return {
            metric.feature: metric.extract(samples) for metric in self.metrics.values() if metric.extract is not None
        }
