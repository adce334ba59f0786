"""Clips -> figures: their distances from real ones, their frames', and their steadiness, with intervals.

Axis letters: N clips, F frames, D features, H, W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcascade.evaluation.judge import places
from selfcascade.evaluation.parts import joined, kept
from selfcascade.evaluation.questions import Questions
from selfcascade.metrics.distances import Estimate, bootstrap, frechet_distance, random_patches
from selfcascade.metrics.video import CLIPS, FRAMES, clip_distances, flicker, neighbour_distance, relative


class ClipJudge(ABC):
    """Measures clips of one size and length against real ones, whose features are kept in a folder.

    Attributes:
        part: Clips whose features are taken together.

    Args:
        height, width: Of the clips judged.
        folder: The features of the real clips are kept there.
        frames: Of a clip.
        real_count: Real clips; a published FVD has 2,048.
        patch_side: Of the frames' patches, in pixels; None: there is no detector for them.
        frames_compared: Of each clip, evenly spread, for the frames' distances.
        draws: Of the bootstrap that gives the intervals.

    Raises:
        ValueError: There are fewer frames than three, or than are compared.
    """

    part = 20

    def __init__(
        self,
        height: int,
        width: int,
        folder: Path,
        patch_side: int | None,
        frames: int = FRAMES,
        real_count: int = CLIPS,
        frames_compared: int = 4,
        draws: int = 100,
    ) -> None:
        if frames < 3 or not 1 <= frames_compared <= frames:
            raise ValueError(
                f"frames must be 3 or more, and {frames_compared} are compared, so they cannot be {frames}"
            )
        self.size, self.frames, self.folder, self.real_count = (height, width), frames, folder, real_count
        self.patch_side, self.draws = patch_side, draws
        self.compared = torch.linspace(0, frames - 1, frames_compared).round().long()

    @property
    @abstractmethod
    def key(self) -> str:
        """Names the real clips and the detectors, in what is kept of them."""

    @abstractmethod
    def real(self) -> Iterator[Tensor]:
        """The real clips, `real_count` in all, in parts (n, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def clip(self, clips: Tensor) -> Tensor:
        """Features (N, D) of whole clips (N, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def frame(self, frames: Tensor) -> Tensor | None:
        """Features (N, D) of single frames (N, 3, H, W) in [0, 1]; None: no such figures, for want of a detector."""

    @abstractmethod
    def patch(self, patches: Tensor) -> Tensor | None:
        """The same of frames' patches in their own pixels."""

    def read(self, clips: Tensor, captions: Sequence[str]) -> list[Any]:
        """What is read off each clip beside its features; nothing where there is no reader."""
        return []

    def more(self, readings: list[Any], questions: Questions) -> dict[str, Any]:
        """Figures beside the distances, of all clips' readings."""
        return {}

    def features(self, clips: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        """All that is kept of clips, one row a clip; the generator draws the patches' places."""
        return joined([self._features(part.float(), corners) for part in clips.split(self.part)])

    @torch.no_grad()
    def judge(self, clips: Tensor | Iterable[Tensor], questions: Questions) -> dict[str, Any]:
        """Figures of clips, each with a 95 % interval.

        `fvd` and `kvd` are of whole clips. `frame_fid` and `frame_patch_fid` are of single frames, since a clip's
        features tell little of how sharp its frames are. `change` is the distance of neighbouring frames' features,
        `patch_change` the same of patches at one place, `flicker` that of coarse brightness: as multiples of real ones.

        Args:
            clips: (N, F, 3, H, W) in [0, 1], of the first N questions; or parts of them, of which only one is held at a
                time. How they are parted changes no figure beyond rounding.
            questions: What they were to show.

        Raises:
            ValueError: The clips have another size or another number of frames.
        """
        expected, corners, rows, readings, count = (self.frames, 3, *self.size), places(), [], [], 0
        for part in clips.split(self.part) if isinstance(clips, Tensor) else clips:
            if part.ndim != 5 or tuple(part.shape[1:]) != expected:
                raise ValueError(f"clips must be (N, F, C, H, W) with {expected} after N, not {tuple(part.shape)}")
            rows.append(self.features(part, corners))
            readings += self.read(part, questions.captions(range(count, count + len(part))))
            count += len(part)
        real, own = self.of_real, joined(rows)
        found = clip_distances(real["clip"], own["clip"], draws=self.draws)
        for name, full in (("frame", "frame_fid"), ("patch", "frame_patch_fid")):
            if name in own:
                found[full] = self._estimate(frechet_distance, real[name], own[name])
        for name in ("change", "patch_change", "flicker"):
            if name in own:
                found[name] = self._estimate(relative, real[name][:, None], own[name][:, None])
        figures = {name: [estimate.value, estimate.low, estimate.high] for name, estimate in found.items()}
        return {"clips": count, **self.more(readings, questions), **figures}

    @cached_property
    def of_real(self) -> dict[str, Tensor]:
        """The features of the real clips, made at the first call."""
        height, width = self.size
        words = (f"{height}x{width}x{self.frames}", self.real_count, self.patch_side, len(self.compared))
        name, corners = "-".join(map(str, ("real-features-of-clips", self.key, *words))), places()
        return kept(self.folder / f"{name}.safetensors", lambda: (self.features(part, corners) for part in self.real()))

    def _estimate(self, distance: Any, real: Tensor, own: Tensor) -> Estimate:
        # Rows of (N, D), or of (N, frames, D): a clip's frames stay together.
        unit = real[0, ..., 0].numel()
        real, own = (one.flatten(0, -2) for one in (real, own))
        return bootstrap(distance, real, own, torch.Generator().manual_seed(0), self.draws, unit)

    def _features(self, clips: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        found = {"clip": self.clip(clips), "flicker": flicker(clips)}
        seen = {"frame": self.frame(clips.flatten(0, 1)), "patch": None}
        if self.patch_side is not None:
            # One patch a clip, at the same place in all its frames: as if they were channels of one picture.
            cut = random_patches(clips.flatten(1, 2), 1, self.patch_side, corners).unflatten(1, (self.frames, 3))
            seen["patch"] = self.patch(cut.flatten(0, 1))
        for name, change in (("frame", "change"), ("patch", "patch_change")):
            features = seen[name]
            if features is not None:
                features = features.unflatten(0, (len(clips), self.frames))
                found |= {name: features[:, self.compared], change: neighbour_distance(features)}
        return found
