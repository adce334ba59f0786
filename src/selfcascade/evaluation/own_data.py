"""Evaluation on the user's own data: captions and real pictures from a folder or tar shards, published detectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import Batch, DataError, Position, Stream, open_source
from selfcascade.evaluation.judge import PART, Judge
from selfcascade.evaluation.questions import Questions
from selfcascade.metrics.clip import ClipScore
from selfcascade.metrics.detectors import Inception

# Orders of the data: what is asked has the seeds from 0 on.
OTHERS, REAL = 1_000_003, 1_000_033
PATCH_SIDE = 299


class DataWorld:
    """Captions from data, and its pictures as what is real.

    Args:
        data: A folder of pictures with captions, or tar shards, as `selfcascade train` takes them.
        size: Pictures smaller than that are left out.
        detector: "inception:FILE.safetensors" or "clip:FOLDER_OR_HUB_ID".

    Raises:
        ValueError: There is no such data or detector.
    """

    def __init__(self, data: str, size: Size, detector: str) -> None:
        self.data, self.size, self.detector = data, size, detector
        self.measure = open_detector(detector)

    def questions(self, count: int, seed: int) -> Questions:
        """The captions of the first usable samples; another seed takes them in another order."""
        return Questions(tuple(words for part in self._parts(count, seed, self.size) for words in part.captions), seed)

    def others(self, count: int) -> Questions:
        """Captions in an order of their own."""
        return self.questions(count, OTHERS)

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> Judge:
        """For pictures of that size."""
        return DataJudge(self, Size(height, width), folder, real_count)

    def pictures(self, count: int, size: Size) -> Iterator[Tensor]:
        """Real pictures, (n, 3, H, W) in [0, 1], cropped to that size."""
        for batch in self._parts(count, REAL, size):
            yield batch.pixels / 2 + 0.5

    def _parts(self, count: int, seed: int, size: Size) -> Iterator[Batch]:
        stream = Stream(open_source(self.data, size), (size,), seed, fixed_crops=True)
        done, place = 0, Position()
        while done < count:
            batch = next(stream.batches(min(PART, count - done), start=place))
            if batch.position.epoch:
                raise DataError(f"data {self.data!r} has fewer than {count} usable samples: {stream.report}")
            done, place = done + len(batch.captions), batch.position
            yield batch


class DataJudge(Judge):
    """Measures against the data's own pictures, in features of a published network.

    Patches are of 299 pixels, as in the paper, or the whole of smaller pictures.

    Args:
        world: The data, and the detector.
        size: Of the pictures judged.
        folder, real_count: As in `Judge`.
    """

    def __init__(self, world: DataWorld, size: Size, folder: Path, real_count: int) -> None:
        super().__init__(*size, folder, real_count, min(PATCH_SIDE, *size))
        self.world = world

    @property
    def key(self) -> str:
        """The data and the detector."""
        words = f"{self.world.data}-{self.world.detector}"
        return "".join(letter if letter.isalnum() else "_" for letter in words)

    def real(self) -> Iterator[Tensor]:
        """The data's."""
        return self.world.pictures(self.real_count, Size(*self.size))

    def whole(self, pictures: Tensor) -> Tensor:
        """The detector's features."""
        return self.world.measure.features(pictures)

    def patch(self, patches: Tensor) -> Tensor:
        """The same."""
        return self.world.measure.features(patches)

    def more(self, pictures: Tensor, questions: Questions) -> dict[str, Any]:
        """The CLIP score, where the detector is CLIP."""
        if not isinstance(self.world.measure, ClipScore):
            return {}
        prompts = questions.captions(range(len(pictures)))
        scores = [
            self.world.measure.score(part, prompts[first : first + PART])
            for first, part in zip(range(0, len(pictures), PART), pictures.split(PART), strict=True)
        ]
        return {"clip_score": float(torch.cat(scores).mean())}


def open_detector(name: str) -> Any:
    """A network with `features`, by name.

    Raises:
        ValueError: There is no such detector.
    """
    kind, _, place = name.partition(":")
    if kind == "inception" and place:
        return Inception(place)
    if kind == "clip" and place:
        try:
            return ClipScore.from_pretrained(place)
        except OSError as error:
            raise ValueError(f"detector {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    raise ValueError(f"detector must be 'inception:FILE.safetensors' or 'clip:FOLDER_OR_HUB_ID', not {name!r}")
