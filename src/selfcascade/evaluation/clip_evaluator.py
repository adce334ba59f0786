"""Evaluation of clips: distances of clips, of their frames and patches, and their steadiness.

Axis letters: N clips, F frames, D features, H, W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from selfcascade.evaluation.evaluator import Evaluator, Places
from selfcascade.evaluation.parts import concatenated
from selfcascade.metrics.distances import random_patches
from selfcascade.metrics.registry import CLIP_METRICS
from selfcascade.metrics.video import CLIPS, FRAMES, neighbour_distance


class ClipEvaluator(Evaluator):
    """Measures clips of one size and length against real ones.

    `fvd` and `kvd` compare whole clips. `frame_fid` and `frame_patch_fid` compare frames, since features of a clip
    say little about how sharp its frames are. `change` is the distance of neighbouring frames' features, `patch_change`
    the same for patches at one place, `flicker` that of coarse brightness: as multiples of those of real clips.

    Args:
        height, width, folder: See `Evaluator`.
        patch_side: Side of the frames' patches, in pixels; None without a detector for them.
        frames: Number of frames in a clip.
        real_count: Number of real clips; published FVDs use 2,048.
        frames_compared: Number of evenly spaced frames of each clip whose features are compared.
        draws: See `Evaluator`.

    Raises:
        ValueError: There are fewer than three frames, or fewer than are compared.
    """

    unit, metrics, part = "clips", CLIP_METRICS, 20

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
        super().__init__(height, width, folder, real_count, draws)
        self.frames, self.patch_side = frames, patch_side
        self.compared = torch.linspace(0, frames - 1, frames_compared).round().long()

    @abstractmethod
    def clip(self, clips: Tensor) -> Tensor:
        """Features (N, D) of whole clips (N, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def frame(self, frames: Tensor) -> Tensor | None:
        """Features (N, D) of single frames (N, 3, H, W) in [0, 1]; None without a detector."""

    @abstractmethod
    def patch(self, patches: Tensor) -> Tensor | None:
        """Features (N, D) of frames' patches, not resized; None without a detector."""

    @property
    def cache(self) -> Path:
        """File of the real clips' features."""
        height, width = self.size
        words = (f"{height}x{width}x{self.frames}", self.real_count, self.patch_side, len(self.compared))
        return self.folder / f"{'-'.join(map(str, ('real-features-of-clips', self.key, *words)))}.safetensors"

    def check(self, samples: Tensor) -> None:
        """Raises ValueError if clips have another size or another number of frames."""
        expected = (self.frames, 3, *self.size)
        if samples.ndim != 5 or tuple(samples.shape[1:]) != expected:
            raise ValueError(f"clips must be (N, F, C, H, W) with {expected} after N, not {tuple(samples.shape)}")

    def features(self, samples: Tensor, corners: Places) -> dict[str, Tensor]:
        """Features of clips (N, F, 3, H, W), of their frames and patches, and what metrics extract."""
        return concatenated([self._features(part.float(), corners) for part in samples.split(self.part)])

    def _features(self, clips: Tensor, corners: Places) -> dict[str, Tensor]:
        found = {"clip": self.clip(clips), **self.extracted(clips)}
        seen = {"frame": self.frame(clips.flatten(0, 1)), "patch": None}
        if self.patch_side is not None:
            # One patch per clip, at the same place in all frames, by treating frames as channels of one picture.
            cut = random_patches(clips.flatten(1, 2), 1, self.patch_side, corners).unflatten(1, (self.frames, 3))
            seen["patch"] = self.patch(cut.flatten(0, 1))
        for name, change in (("frame", "change"), ("patch", "patch_change")):
            features = seen[name]
            if features is not None:
                features = features.unflatten(0, (len(clips), self.frames))
                found |= {name: features[:, self.compared], change: neighbour_distance(features)}
        return found
