"""Pictures -> figures: their distances from real ones, with intervals.

Axis letters: N pictures, D features, H, W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.evaluation.parts import joined, kept
from selfcascade.evaluation.questions import Questions
from selfcascade.metrics.distances import bootstrap, frechet_distance, kernel_distance, random_patches
from selfcascade.metrics.sharpness import octave_energies

PART = 50


def places() -> torch.Generator:
    """Draws the places of the patches, the same for all that is judged."""
    return torch.Generator().manual_seed(1)


class Judge(ABC):
    """Measures pictures of one size against real ones of that size, whose features are kept in a folder.

    Args:
        height, width: Of the pictures judged.
        folder: The features of the real pictures are kept there.
        real_count: Real pictures.
        patch_side: Of the patches, in pixels.
        patches: Of each picture.
        draws: Of the bootstrap that gives the intervals.
    """

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
        self.size, self.folder, self.real_count = (height, width), folder, real_count
        self.patch_side, self.patches, self.draws = patch_side, patches, draws

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the real pictures and the detectors, in what is kept of them."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """The real pictures, `real_count` in all, in parts (n, 3, H, W) in [0, 1]."""

    @abstractmethod
    def whole(self, pictures: Tensor) -> Tensor:
        """Features (N, D) of whole pictures (N, 3, H, W) in [0, 1] of any size."""

    @abstractmethod
    def patch(self, patches: Tensor) -> Tensor:
        """Features (N, D) of patches in their own pixels."""

    def features(self, pictures: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        """All that is kept of pictures, one row a picture; the generator draws the patches' places."""
        patches = random_patches(pictures, self.patches, self.patch_side, corners)
        found = torch.cat([self.patch(part) for part in patches.split(2 * PART)])
        return {
            "whole": self._whole(pictures),
            "patch": found.unflatten(0, (len(pictures), self.patches)),
            "octaves": octave_energies(pictures),
        }

    def read(self, pictures: Tensor, captions: Sequence[str]) -> list[Any]:
        """What is read off each picture beside its features; nothing where there is no reader."""
        return []

    def more(self, found: dict[str, Tensor], readings: list[Any], questions: Questions) -> dict[str, Any]:
        """Figures beside the distances, of all pictures' features and readings."""
        return {}

    @torch.no_grad()
    def judge(
        self, pictures: Tensor | Iterable[Tensor], questions: Questions, base: Tensor | None = None
    ) -> dict[str, Any]:
        """Figures of pictures: distances with 95 % intervals, detail against real pictures, and what else is known.

        Args:
            pictures: (N, 3, H, W) in [0, 1], of the first N questions; or parts of them, of which only one is held at
                a time. How they are parted changes no figure beyond rounding.
            questions: What they were to show.
            base: Pictures of the base model at its own size, (M, 3, h, w): FID_b and KID_b are measured from those.

        Raises:
            ValueError: The pictures have another size.
        """
        corners, rows, readings, count = places(), [], [], 0
        for part in pictures.split(PART) if isinstance(pictures, Tensor) else pictures:
            if tuple(part.shape[-2:]) != self.size:
                raise ValueError(f"pictures must be {self.size} pixels high and wide, not {tuple(part.shape[-2:])}")
            own = self.features(part, corners)
            if base is not None:
                own["small"] = self._whole(interpolate(part, size=base.shape[-2:], mode="area"))
            rows.append(own)
            readings += self.read(part, questions.captions(range(count, count + len(part))))
            count += len(part)
        real, found = self.of_real, joined(rows)
        result: dict[str, Any] = {"pictures": count, **self.more(found, readings, questions)}
        compared = {
            "{}": (real["whole"], found["whole"], 1),
            "patch_{}": (real["patch"].flatten(0, 1), found["patch"].flatten(0, 1), self.patches),
        }
        if base is not None:
            compared["{}_b"] = (self._whole(base), found["small"], 1)
        for name, (reference, own, unit) in compared.items():
            for kind, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
                generator = torch.Generator().manual_seed(0)
                estimate = bootstrap(distance, reference, own, generator, self.draws, unit)
                result[name.format(kind)] = [estimate.value, estimate.low, estimate.high]
        result["detail"] = (found["octaves"].mean(0) / real["octaves"].mean(0)).tolist()
        return result

    @cached_property
    def of_real(self) -> dict[str, Tensor]:
        """The features of the real pictures, made at the first call."""
        height, width = self.size
        words = (self.key, f"{height}x{width}", self.real_count, self.patch_side, self.patches)
        path, corners = self.folder / f"real-pictures-{'-'.join(map(str, words))}.safetensors", places()
        return kept(path, lambda: (self.features(part, corners) for part in self.real()))

    def _whole(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.whole(part) for part in pictures.split(PART)])
