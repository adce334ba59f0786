"""The benchmark of scenes: held-out captions, real renders, and the bundled detectors trained on such renders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfcascade.data.scenes import caption, render, sample_scene
from selfcascade.evaluation.image_evaluator import PART, ImageEvaluator
from selfcascade.evaluation.prompts import SEED_STEP, PromptSet
from selfcascade.media.images import file_sha256
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.repetition import repetition
from selfcascade.models import BUNDLED

FIRST_PROMPT, FIRST_BASE_PROMPT, FIRST_REAL = 50_000_000, 55_000_000, 70_000_000


def scene_prompts(count: int, first: int = FIRST_PROMPT) -> PromptSet:
    """The captions of held-out scenes from number `first` on."""
    scenes = [sample_scene(number, held_out=True) for number in range(first, first + count)]
    words = tuple(caption(scene, first + index) for index, scene in enumerate(scenes))
    return PromptSet(words, first, tuple(dict(scene.truth) for scene in scenes))


class ScenesBenchmark:
    """Captions of held-out scenes; real pictures are renders of others."""

    def prompts(self, count: int, seed: int) -> PromptSet:
        """Captions of held-out scenes; each seed has scenes of its own."""
        return scene_prompts(count, FIRST_PROMPT + SEED_STEP * seed)

    def base_prompts(self, count: int) -> PromptSet:
        """Captions that no method samples, for the base samples behind FID_b and KID_b."""
        return scene_prompts(count, FIRST_BASE_PROMPT)

    def evaluator(self, height: int, width: int, folder: Path, real_count: int) -> ImageEvaluator:
        """For pictures of that size."""
        return SceneEvaluator(height, width, folder, real_count)


class SceneEvaluator(ImageEvaluator):
    """Reads the composition off pictures of scenes, and measures their distance from real renders of other scenes.

    FID is of whole pictures, in features of the composition reader, which sees them at 96 pixels and knows no fine
    detail; patch FID is of patches in their own pixels, in features of the patch detector, which knows nothing else.
    The paper's patches are 299 of 1024 pixels; the same share of the side is taken here.

    Args:
        height, width, folder, draws: As in `ImageEvaluator`.
        real_count: Real renders, of held-out scenes other than those of the prompts.
    """

    def __init__(self, height: int, width: int, folder: Path, real_count: int = 1000, draws: int = 100) -> None:
        super().__init__(height, width, folder, real_count, round(0.292 * min(height, width)), draws=draws)
        bundled = BUNDLED.parent
        self.reader = CompositionReader.from_pretrained(str(bundled / "reader"), local_files_only=True).float().eval()
        self.detector = PatchDetector.from_pretrained(str(bundled / "detector"), local_files_only=True).float().eval()
        weights = [bundled / name / "diffusion_pytorch_model.safetensors" for name in ("reader", "detector")]
        self.detectors = [file_sha256(path)[:12] for path in weights]

    @property
    def key(self) -> str:
        """The detectors' weights."""
        return f"scenes-{'-'.join(self.detectors)}"

    def real(self) -> Iterator[Tensor]:
        """Renders."""
        for begin in range(FIRST_REAL, FIRST_REAL + self.real_count, PART):
            numbers = range(begin, min(begin + PART, FIRST_REAL + self.real_count))
            renders = np.stack([render(sample_scene(number, held_out=True), *self.size) for number in numbers])
            yield torch.from_numpy(renders).permute(0, 3, 1, 2).contiguous()

    def whole(self, pictures: Tensor) -> Tensor:
        """The reader's features."""
        return self.reader.features(pictures)

    def patch(self, patches: Tensor) -> Tensor:
        """The patch detector's."""
        return self.detector.features(patches)

    def features(self, samples: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        """As in `ImageEvaluator`, with the score of repetition."""
        repeated = [repetition(self.reader.places(part)) for part in samples.split(PART)]
        return {**super().features(samples, corners), "repetition": torch.cat(repeated)}

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """What the composition reader reads in square pictures; it misreads real renders of other ratios."""
        if self.size[0] != self.size[1]:
            return []
        return [reading for part in samples.split(PART) for reading in self.reader.read(part)]

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """The composition, where it was read."""
        return {"composition": _composition(readings, list(prompts.truths[: len(readings)]))} if readings else {}


def _composition(readings: list[Any], truths: list[dict[str, Any]]) -> dict[str, float]:
    score = accuracy(readings, truths)
    for objects in ("1", "2"):
        rows = [row for row, truth in enumerate(truths) if str(truth["count"]) == objects]
        if rows:
            one = accuracy([readings[row] for row in rows], [truths[row] for row in rows])
            score[f"all_with_{objects}"] = one["all"]
    return score
