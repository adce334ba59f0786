"""Drawn pictures: held-out scenes and collages, real renders, and detectors that ship with the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfcascade.data import collages, scenes
from selfcascade.evaluation.judge import PART, Judge
from selfcascade.evaluation.questions import SEED_STEP, Questions
from selfcascade.media.images import file_sha256
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.repetition import repetition
from selfcascade.models import BUNDLED

ASKED_FIRST, OTHERS_FIRST, REAL_FIRST = 50_000_000, 55_000_000, 70_000_000


class Drawn(NamedTuple):
    """What is drawn: how a held-out description comes of a number, and what reads it off a picture.

    Attributes:
        name: Of the data.
        sample: The description of a number; the same for ever.
        render: A description at (height, width), (H, W, 3) float32 in [0, 1].
        caption: A description in words; the number chooses the phrasing.
        reader: Folder of the composition reader among the bundled models.
    """

    name: str
    sample: Callable[[int], Any]
    render: Callable[[Any, int, int], np.ndarray]
    caption: Callable[[Any, int], str]
    reader: str


COLLAGES = "collages"
SCENES = Drawn(
    "scenes", lambda number: scenes.sample_scene(number, held_out=True), scenes.render, scenes.caption, "reader"
)


def drawn_collages(split: collages.Split = "test") -> Drawn:
    """Collages of one of the splits that are not trained on."""
    return Drawn(
        COLLAGES if split == "test" else f"{COLLAGES}-{split}",
        lambda number: collages.sample_collage(number, split),
        collages.render,
        collages.caption,
        "collage_reader",
    )


def scene_questions(count: int, first: int = ASKED_FIRST, drawn: Drawn = SCENES) -> Questions:
    """The captions of held-out scenes or collages from number `first` on."""
    numbers = range(first, first + count)
    shown = [drawn.sample(number) for number in numbers]
    words = tuple(drawn.caption(own, number) for own, number in zip(shown, numbers, strict=True))
    return Questions(words, first, tuple(dict(own.truth) for own in shown))


class ScenesWorld:
    """Captions of held-out scenes or collages; what is real is rendered."""

    def __init__(self, drawn: Drawn = SCENES) -> None:
        self.drawn = drawn

    def questions(self, count: int, seed: int) -> Questions:
        """What is asked; another seed asks about others."""
        return scene_questions(count, ASKED_FIRST + SEED_STEP * seed, self.drawn)

    def others(self, count: int) -> Questions:
        """Captions that are not asked."""
        return scene_questions(count, OTHERS_FIRST, self.drawn)

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> Judge:
        """For pictures of that size."""
        return SceneJudge(height, width, folder, real_count, drawn=self.drawn)


class SceneJudge(Judge):
    """Reads the composition off drawn pictures, and measures their distance from real renders of other descriptions.

    FID is of whole pictures, in features of the composition reader, which sees them at 96 pixels and knows no fine
    detail; patch FID is of patches in their own pixels, in features of the patch detector, which knows nothing else.
    The paper's patches are 299 of 1024 pixels; the same share of the side is taken here.

    Args:
        height, width, folder, draws: As in `Judge`.
        real_count: Real renders, of held-out scenes other than those asked for.
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
    ) -> None:
        super().__init__(height, width, folder, real_count, round(0.292 * min(height, width)), draws=draws)
        self.drawn, bundled = drawn, BUNDLED.parent
        reader = CompositionReader.from_pretrained(str(bundled / drawn.reader), local_files_only=True)
        self.reader = reader.float().eval()
        self.detector = PatchDetector.from_pretrained(str(bundled / "detector"), local_files_only=True).float().eval()
        weights = [bundled / name / "diffusion_pytorch_model.safetensors" for name in (drawn.reader, "detector")]
        self.detectors = [file_sha256(path)[:12] for path in weights]

    @property
    def key(self) -> str:
        """The detectors' weights."""
        return f"{self.drawn.name}-{'-'.join(self.detectors)}"

    def real(self) -> Iterator[Tensor]:
        """Renders."""
        for begin in range(REAL_FIRST, REAL_FIRST + self.real_count, PART):
            numbers = range(begin, min(begin + PART, REAL_FIRST + self.real_count))
            renders = np.stack([self.drawn.render(self.drawn.sample(number), *self.size) for number in numbers])
            yield torch.from_numpy(renders).permute(0, 3, 1, 2).contiguous()

    def whole(self, pictures: Tensor) -> Tensor:
        """The reader's features."""
        return self.reader.features(pictures)

    def patch(self, patches: Tensor) -> Tensor:
        """The patch detector's."""
        return self.detector.features(patches)

    def features(self, pictures: Tensor, corners: torch.Generator) -> dict[str, Tensor]:
        """With the score of repetition."""
        repeated = [repetition(self.reader.places(part)) for part in pictures.split(PART)]
        return {**super().features(pictures, corners), "repetition": torch.cat(repeated)}

    def read(self, pictures: Tensor, captions: Sequence[str]) -> list[Any]:
        """What the composition reader sees in square pictures: of others it misreads real renders."""
        if self.size[0] != self.size[1]:
            return []
        return [reading for part in pictures.split(PART) for reading in self.reader.read(part)]

    def more(self, found: dict[str, Tensor], readings: list[Any], questions: Questions) -> dict[str, Any]:
        """Repetition, and composition where it was read."""
        real, own = self.of_real["repetition"], found["repetition"]
        over = own > torch.quantile(real, 0.95)  # what one real picture in twenty exceeds
        repeated = {"mean": own.mean(), "real_mean": real.mean(), "share_over_real": over.float().mean()}
        figures: dict[str, Any] = {"repetition": {name: float(value) for name, value in repeated.items()}}
        if readings:
            figures["composition"] = _composition(readings, list(questions.truths[: len(readings)]))
        return figures


def _composition(readings: list[Any], truths: list[dict[str, Any]]) -> dict[str, float]:
    score = accuracy(readings, truths)
    for objects in ("1", "2"):
        kept = [row for row, truth in enumerate(truths) if str(truth["count"]) == objects]
        if kept:
            one = accuracy([readings[row] for row in kept], [truths[row] for row in kept])
            score[f"all_with_{objects}"] = one["all"]
    return score
