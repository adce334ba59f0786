"""Evaluation of pictures: distances of whole pictures and patches, and detail.

Axis letters: N pictures, D features, H, W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.evaluation.evaluator import Evaluator, Places
from selfcascade.metrics.distances import random_patches
from selfcascade.metrics.registry import IMAGE_METRICS

PART = 50


class ImageEvaluator(Evaluator):
    """Measures pictures of one size against real ones of that size.

    Args:
        height, width, folder, real_count: See `Evaluator`.
        patch_side: Side of a patch, in pixels.
        patches: Number of patches per picture.
        draws: See `Evaluator`.
    """

    unit, metrics, part = "pictures", IMAGE_METRICS, PART

    def __init__(
        self,
        height: int,
        width: int,
        folder: Path,
        real_count: int,
        patch_side: int,
        patches: int = 3,
        draws: int = 100,
    ) -> None:
        super().__init__(height, width, folder, real_count, draws)
        self.patch_side, self.patches = patch_side, patches

    @abstractmethod
    def whole(self, pictures: Tensor) -> Tensor:
        """Features (N, D) of whole pictures (N, 3, H, W) in [0, 1] of any size."""

    @abstractmethod
    def patch(self, patches: Tensor) -> Tensor:
        """Features (N, D) of patches, not resized."""

    @property
    def cache(self) -> Path:
        """File of the real pictures' features."""
        height, width = self.size
        words = (self.key, f"{height}x{width}", self.real_count, self.patch_side, self.patches)
        return self.folder / f"real-pictures-{'-'.join(map(str, words))}.safetensors"

    def check(self, samples: Tensor) -> None:
        """Raises ValueError if pictures have another size."""
        if tuple(samples.shape[-2:]) != self.size:
            raise ValueError(f"pictures must be {self.size} pixels high and wide, not {tuple(samples.shape[-2:])}")

    def features(self, samples: Tensor, corners: Places) -> dict[str, Tensor]:
        """Features of pictures (N, 3, H, W), of `patches` patches each, and what metrics extract."""
        patches = random_patches(samples, self.patches, self.patch_side, corners)
        found = torch.cat([self.patch(part) for part in patches.split(2 * PART)])
        return {
            "whole": self._whole(samples),
            "patch": found.unflatten(0, (len(samples), self.patches)),
            **self.extracted(samples),
        }

    def base_features(self, samples: Tensor, size: Sequence[int]) -> Tensor:
        """Features (N, D) of pictures resized to (h, w)."""
        same = tuple(samples.shape[-2:]) == tuple(size)
        return self._whole(samples if same else interpolate(samples, size=tuple(size), mode="area"))

    def _whole(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.whole(part) for part in pictures.split(PART)])
