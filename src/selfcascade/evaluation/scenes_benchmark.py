"""The benchmark of rendered pictures: held-out scenes and collages, real renders, and bundled detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import collages, scenes
from selfcascade.evaluation.evaluator import Places
from selfcascade.evaluation.image_evaluator import PART, ImageEvaluator
from selfcascade.evaluation.prompts import SEED_STEP, PromptSet
from selfcascade.evaluation.splits import NUMBERS, Split
from selfcascade.media.images import file_sha256
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.repetition import repetition
from selfcascade.models import BUNDLED

FIRST_PROMPT, FIRST_BASE_PROMPT = NUMBERS["tuning"]
FIRST_REAL = 70_000_000
PATCHES = 16


class Drawn(NamedTuple):
    """A kind of rendered pictures: how to draw held-out descriptions, render, caption and read them.

    Attributes:
        name: Name of the data.
        sample: Maps a number to a description, always the same.
        render: Renders a description at (height, width), (H, W, 3) float32 in [0, 1].
        caption: Describes it in words; the number chooses the phrasing.
        reader: Folder of the composition reader among the bundled models.
    """

    name: str
    sample: Callable[[int], Any]
    render: Callable[[Any, int, int], np.ndarray]
    caption: Callable[[Any, int], str]
    reader: str

    def renders(self, numbers: range, size: Size) -> Tensor:
        """Renders (n, 3, H, W) in [0, 1] of the descriptions of these numbers."""
        found = np.stack([self.render(self.sample(number), *size) for number in numbers])
        return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous()


COLLAGES = "collages"
SCENES = Drawn(
    "scenes", lambda number: scenes.sample_scene(number, held_out=True), scenes.render, scenes.caption, "reader"
)


def drawn_collages(split: collages.Split = "test") -> Drawn:
    """Collages of one of the held-out splits."""
    return Drawn(
        COLLAGES if split == "test" else f"{COLLAGES}-{split}",
        lambda number: collages.sample_collage(number, split),
        collages.render,
        collages.caption,
        "collage_reader",
    )


def scene_prompts(count: int, first: int = FIRST_PROMPT, drawn: Drawn = SCENES) -> PromptSet:
    """Captions of held-out scenes or collages from number `first` on."""
    numbers = range(first, first + count)
    shown = [drawn.sample(number) for number in numbers]
    words = tuple(drawn.caption(own, number) for own, number in zip(shown, numbers, strict=True))
    return PromptSet(words, first, tuple(dict(own.truth) for own in shown))


class ScenesBenchmark:
    """Captions of held-out scenes or collages; real pictures are renders of others.

    Args:
        drawn: What is drawn.
        split: The set that captions and seeds are of.
    """

    def __init__(self, drawn: Drawn = SCENES, split: Split = "tuning") -> None:
        self.drawn, self.first = drawn, NUMBERS[split]

    def prompts(self, count: int, seed: int) -> PromptSet:
        """Captions of held-out descriptions; each seed has its own."""
        return scene_prompts(count, self.first.prompt + SEED_STEP * seed, self.drawn)

    def base_prompts(self, count: int) -> PromptSet:
        """Captions that no method samples, for the base samples behind FID_b and KID_b."""
        return scene_prompts(count, self.first.base, self.drawn)

    def true_samples(self, prompts: PromptSet, indices: range, size: Size) -> Tensor:
        """Renders (n, 3, H, W) of these prompts' own descriptions."""
        return self.drawn.renders(range(prompts.first_seed + indices.start, prompts.first_seed + indices.stop), size)

    def evaluator(self, height: int, width: int, folder: Path, real_count: int, protocol: int = 1) -> ImageEvaluator:
        """For pictures of that size; by the second protocol of 16 patches each."""
        patches = PATCHES if protocol > 1 else 3
        found = SceneEvaluator(height, width, folder, real_count, drawn=self.drawn, patches=patches)
        found.protocol = protocol
        return found


class SceneEvaluator(ImageEvaluator):
    """Reads the composition from pictures, and measures their distance from real renders of other descriptions.

    FID compares whole pictures by features of the composition reader, which sees them at 96 pixels and ignores fine
    detail. Patch FID compares full-size patches by features of the patch detector, which sees nothing else. The paper's
    patches are 299 of 1024 pixels; the same share of the side is taken here.

    Args:
        height, width, folder, draws, patches: See `ImageEvaluator`.
        real_count: Real renders, of held-out scenes other than those of the prompts.
        drawn: What is drawn.
    """

    def __init__(
        self,
        height: int,
        width: int,
        folder: Path,
        real_count: int = 1000,
        draws: int = 100,
        drawn: Drawn = SCENES,
        patches: int = 3,
    ) -> None:
        super().__init__(height, width, folder, real_count, round(0.292 * min(height, width)), patches, draws)
        self.drawn, bundled = drawn, BUNDLED.parent
        reader = CompositionReader.from_pretrained(str(bundled / drawn.reader), local_files_only=True)
        self.reader = reader.float().eval()
        self.detector = PatchDetector.from_pretrained(str(bundled / "detector"), local_files_only=True).float().eval()
        weights = [bundled / name / "diffusion_pytorch_model.safetensors" for name in (drawn.reader, "detector")]
        self.detectors = [file_sha256(path)[:12] for path in weights]

    @property
    def key(self) -> str:
        """Identifies the kind of pictures and the detectors' weights."""
        return f"{self.drawn.name}-{'-'.join(self.detectors)}"

    def real(self) -> Iterator[Tensor]:
        """Renders of held-out descriptions."""
        for begin in range(FIRST_REAL, FIRST_REAL + self.real_count, PART):
            numbers = range(begin, min(begin + PART, FIRST_REAL + self.real_count))
            yield self.drawn.renders(numbers, Size(*self.size))

    def whole(self, pictures: Tensor) -> Tensor:
        """Features of the composition reader."""
        return self.reader.features(pictures)

    def patch(self, patches: Tensor) -> Tensor:
        """Features of the patch detector."""
        return self.detector.features(patches)

    def features(self, samples: Tensor, corners: Places) -> dict[str, Tensor]:
        """As in `ImageEvaluator`, with the score of repetition."""
        repeated = [repetition(self.reader.places(part)) for part in samples.split(PART)]
        return {**super().features(samples, corners), "repetition": torch.cat(repeated)}

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """Readings of square pictures; the composition reader misreads even real renders at other ratios."""
        if self.size[0] != self.size[1]:
            return []
        return [reading for part in samples.split(PART) for reading in self.reader.read(part)]

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """The composition figures, if it was read."""
        return {"composition": _composition(readings, list(prompts.truths[: len(readings)]))} if readings else {}


def _composition(readings: list[Any], truths: list[dict[str, Any]]) -> dict[str, float]:
    score = accuracy(readings, truths)
    for objects in ("1", "2"):
        rows = [row for row, truth in enumerate(truths) if str(truth["count"]) == objects]
        if rows:
            one = accuracy([readings[row] for row in rows], [truths[row] for row in rows])
            score[f"all_with_{objects}"] = one["all"]
    return score
