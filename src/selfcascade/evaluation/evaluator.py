"""Evaluates pictures or clips: every metric whose features are available, against held-out real samples.

Axis letters: N samples (pictures or clips), D features, F frames, H, W pixels.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfcascade.evaluation.feature_files import Features, Rows
from selfcascade.evaluation.large_sets import figure, is_large, sample_kernel_in_blocks
from selfcascade.evaluation.parts import cached
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.evaluation.revisions import PROTOCOL
from selfcascade.metrics.kernels import distance_with_interval
from selfcascade.metrics.registry import Metric


class BaseReference(NamedTuple):
    """Reference of FID_b and KID_b: features (M, D) of base samples at their own size (h, w)."""

    features: Features
    size: tuple[int, int]


class Judged(NamedTuple):
    """What was found in samples.

    Attributes:
        figures: The figures that `Evaluator.evaluate` returns.
        features: Features by name, with one row per sample.
        readings: What a network read in each sample; empty where none reads.
    """

    figures: dict[str, Any]
    features: dict[str, Features]
    readings: list[Any]


Places = torch.Generator | Iterator[torch.Generator]


class Evaluator(ABC):
    """Measures samples of one size against real ones; the real ones' features are cached in a folder.

    Attributes:
        unit: Name of samples in results, "pictures" or "clips".
        metrics: The metrics, by their names in results.
        part: Number of samples whose features are computed together.
        protocol: Number of the rules. 1: one generator draws the places of all patches. 2: by the sample's own seed,
            and kernel distances leave out pairs of patches of one sample.

    Args:
        height, width: Pixels of the samples.
        folder: Folder for the real samples' features.
        real_count: Number of real samples.
        draws: Number of bootstrap draws for each interval.
    """

    unit: str
    metrics: dict[str, Metric]
    part: int
    protocol: int = 1

    def __init__(self, height: int, width: int, folder: Path, real_count: int, draws: int) -> None:
        self.size, self.folder, self.real_count, self.draws = (height, width), folder, real_count, draws
        self._reference: dict[str, Features] = {}

    @property
    @abstractmethod
    def key(self) -> str:
        """Identifies the real samples and the detectors, for the name of the cached file."""

    @property
    @abstractmethod
    def cache(self) -> Path:
        """File of the real samples' features."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """The `real_count` real samples, in parts (n, 3, H, W) or (n, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def check(self, samples: Tensor) -> None:
        """Raises ValueError if samples do not have this evaluator's size or length."""

    @abstractmethod
    def features(self, samples: Tensor, corners: Places) -> dict[str, Tensor]:
        """All features of samples, one row a sample; the generators draw the patches' places."""

    def base_features(self, samples: Tensor, size: Sequence[int]) -> Tensor:
        """Features of samples resized to the base model's size, for metrics against base samples.

        Raises:
            ValueError: These samples have no such metrics.
        """
        raise ValueError(f"base must be None: {self.unit} are not compared with base samples")

    def base_reference(self, parts: Iterable[Tensor]) -> BaseReference:
        """The reference of FID_b and KID_b, from base samples in parts (n, 3, h, w)."""
        rows, size = Rows(self.folder), (0, 0)
        for part in parts:
            size = (part.shape[-2], part.shape[-1])
            rows.add({"base_size": self.base_features(part, size)})
        return BaseReference(rows.tensors()["base_size"], size)

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """What a network reads in each sample, besides features; empty without such a network."""
        return []

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """The metrics computed from the readings of all samples."""
        return {}

    @torch.no_grad()
    def evaluate(
        self, samples: Tensor | Iterable[Tensor], prompts: PromptSet, base: Tensor | BaseReference | None = None
    ) -> dict[str, Any]:
        """The number of samples, and the figure of each metric in the form that `metrics.registry` describes.

        Args:
            samples: Samples of the first N prompts, (N, 3, H, W) or (N, F, 3, H, W) in [0, 1]; or an iterable of parts,
                of which only one is in memory at a time. The split changes figures by rounding only.
            prompts: The prompts of the samples.
            base: Pictures of the base model at its own size, (M, 3, h, w), or their `base_reference`, for FID_b and
                KID_b.

        Raises:
            ValueError: The samples have another size or length, or base samples are given for clips.
        """
        return self.judge(samples, prompts, base).figures

    @torch.no_grad()
    def judge(
        self, samples: Tensor | Iterable[Tensor], prompts: PromptSet, base: Tensor | BaseReference | None = None
    ) -> Judged:
        """As `evaluate`, with what the figures are of."""
        if isinstance(base, Tensor):
            base = self.base_reference([base])
        corners, rows, readings, count = self.places(prompts.first_seed), Rows(self.folder), [], 0
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
            name: self._figure(name, metric, real[metric.feature], fake[metric.feature])
            for name, metric in self.metrics.items()
            if metric.compare is not None and metric.feature in fake
        }
        return Judged({self.unit: count, **self.reading_figures(readings, prompts), **figures}, fake, readings)

    def _figure(self, name: str, metric: Metric, real: Features, fake: Features) -> Any:
        if metric.is_kernel and self.protocol > 1:
            if is_large(real, fake):
                return sample_kernel_in_blocks(real, fake, self.draws)
            return distance_with_interval(real[:], fake[:], self.draws)
        return figure(name, metric, real, fake, self.draws)

    def places(self, first: int) -> Places:
        """Draws the places of the patches of samples whose seeds are `first` and the next ones."""
        if self.protocol == 1:
            return torch.Generator().manual_seed(1)
        return (torch.Generator().manual_seed(seed) for seed in itertools.count(first))

    def reference(self, like: Mapping[str, Features]) -> dict[str, Features]:
        """Features of the real samples, computed at the first call.

        Args:
            like: Features of other samples; a cached file with other features is made again.
        """
        if not self._reference:
            corners = self.places(0)

            def make() -> Iterator[dict[str, Tensor]]:
                return (self.features(part, corners) for part in self.real())

            places = "" if self.protocol == 1 else "-own-places"
            path = self.cache.with_stem(f"{self.cache.stem}{places}-protocol-{PROTOCOL}")
            self._reference = cached(path, make, self.real_count, like)
        return self._reference

    def extracted(self, samples: Tensor) -> dict[str, Tensor]:
        """Features that metrics extract without a network."""
        return {
            metric.feature: metric.extract(samples) for metric in self.metrics.values() if metric.extract is not None
        }
