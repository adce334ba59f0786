"""Evaluation on the user's own data: captions and real pictures or clips from files, with published detectors."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import Batch, ClipFiles, DataError, Position, Stream, open_source
from selfcascade.data.collages_source import names_collages, parse_collages
from selfcascade.evaluation.clip_evaluator import ClipEvaluator
from selfcascade.evaluation.evaluator import Evaluator
from selfcascade.evaluation.image_evaluator import PART, ImageEvaluator
from selfcascade.evaluation.prompts import SEED_STEP, PromptSet
from selfcascade.evaluation.splits import Split, split_of_caption
from selfcascade.metrics.clip_score import ClipScore
from selfcascade.metrics.detectors import Inception
from selfcascade.metrics.i3d import I3D
from selfcascade.models import find_device

# Seeds of the orders in which data is read; prompts use those from 0 on.
BASE_ORDER, REAL_ORDER = 1_000_003, 1_000_033
PATCH_SIDE = 299
CLIP_PART = 4  # a part of clips of 16 frames of 512 pixels takes 200 MB


class DataBenchmark:
    """Captions from the user's data, and its pictures or clips as real samples.

    Args:
        data: A folder with captions, tar shards of pictures, or a .csv of clips, as for `selfcascade train`.
        size: Smaller pictures and clips are left out.
        detector: "inception:FILE.safetensors" or "clip:FOLDER_OR_HUB_ID"; for clips "i3d:FILE.safetensors".
        clips: Which clips, and which of their frames; None: the data is pictures.
        split: The set that captions are of (`split_of_caption`); real samples and those of `base_prompts` are then of
            captions outside of it, apart from the prompts. None: all are drawn from all captions, and may overlap.

    Raises:
        ValueError: The data or detector does not exist.
    """

    def __init__(
        self, data: str, size: Size, detector: str, clips: ClipFiles | None = None, split: Split | None = None
    ) -> None:
        self.data, self.size, self.detector, self.clips, self.split = data, size, detector, clips, split
        self._left: dict[tuple[int, int], tuple[int, Iterator[tuple[str, Tensor]]]] = {}  # of true samples
        self.measure = open_detector(detector) if clips is None else open_clip_detector(detector)

    def prompts(self, count: int, seed: int) -> PromptSet:
        """The captions of the first usable samples; another seed takes them in another order."""
        return self._prompts(count, seed, among=True)

    def base_prompts(self, count: int) -> PromptSet | None:
        """Captions in another order, for the base samples of FID_b and KID_b; None for clips."""
        return self._prompts(count, BASE_ORDER, among=False) if self.clips is None else None

    def _prompts(self, count: int, seed: int, among: bool) -> PromptSet:
        words = tuple(words for words, _ in self._samples(count, seed, self.size, among))
        return PromptSet(words, SEED_STEP * seed, frames=None if self.clips is None else self.clips.frames)

    def true_samples(self, prompts: PromptSet, indices: range, size: Size) -> Tensor:
        """The data's own pictures (n, 3, H, W) or clips (n, F, 3, H, W) of these prompts."""
        if size != self.size:
            raise ValueError(
                f"real samples of the prompts are {self.size}, the first sampling's; they cannot be {size}"
            )
        count, seed = len(prompts), prompts.first_seed // SEED_STEP
        place, asked = self._left.pop((count, seed), (-1, iter(())))
        if place != indices.start:  # groups that follow each other read each sample once
            asked = itertools.islice(self._samples(count, seed, self.size, among=True), indices.start, None)
        found = torch.stack([pixels for _, pixels in itertools.islice(asked, len(indices))])
        self._left[count, seed] = indices.stop, asked
        return found

    def _samples(self, count: int, seed: int, size: Size, among: bool) -> Iterator[tuple[str, Tensor]]:
        """The first samples of an order, each with its caption and its pixels in [0, 1].

        Args:
            count, seed: Number of samples, and the order's seed.
            size: They are cropped to it.
            among: Whether their captions are of the set; otherwise they are outside of it.
        """
        if self.split is None:
            for part in self._parts(count, seed, size):
                yield from zip(part.captions, part.pixels / 2 + 0.5, strict=True)
            return
        left, stream = count, self._stream(seed, size)
        for batch in stream.batches(1, start=Position()):
            if not left:
                return
            if batch.position.epoch:
                words = f"{'of' if among else 'outside'} the {self.split} set; {left} of {count} are missing"
                raise DataError(f"data {self.data!r} has too few usable samples {words}: {stream.report}")
            if (split_of_caption(batch.captions[0]) == self.split) == among:
                left -= 1
                yield batch.captions[0], batch.pixels[0] / 2 + 0.5

    def evaluator(self, height: int, width: int, folder: Path, real_count: int, protocol: int = 1) -> Evaluator:
        """For pictures or clips of that size."""
        size = Size(height, width)
        if self.clips is None:
            found: Evaluator = DataImageEvaluator(self, size, folder, real_count)
        else:
            found = DataClipEvaluator(self, size, folder, real_count, self.clips.frames)
        found.protocol = protocol
        return found

    def real(self, count: int, size: Size) -> Iterator[Tensor]:
        """Real pictures (n, 3, H, W) or clips (n, F, 3, H, W) in [0, 1], cropped to this size."""
        samples = self._samples(count, REAL_ORDER, size, among=False)
        part = PART if self.clips is None else CLIP_PART
        while pixels := [one for _, one in itertools.islice(samples, part)]:
            yield torch.stack(pixels)

    @property
    def key(self) -> str:
        """Identifies the data and the detector, for a file's name, by their paths and their files' sizes and times."""
        detector = self.detector.partition(":")[2]
        words = [self.data, *_files(self.data), self.detector, *_files(detector), repr(self.clips)]
        words += [] if self.split is None else [f"outside of {self.split}"]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    def _parts(self, count: int, seed: int, size: Size) -> Iterator[Batch]:
        stream, done, place = self._stream(seed, size), 0, Position()
        part = PART if self.clips is None else CLIP_PART
        while done < count:
            batch = next(stream.batches(min(part, count - done), start=place))
            if batch.position.epoch:
                raise DataError(f"data {self.data!r} has fewer than {count} usable samples: {stream.report}")
            done, place = done + len(batch.captions), batch.position
            yield batch

    def _stream(self, seed: int, size: Size) -> Stream:
        return Stream(open_source(self.data, size, clips=self.clips, option="data"), (size,), seed, fixed_crops=True)


class DataEvaluator(Evaluator):
    """The common part of evaluating pictures and clips on the user's own data.

    Attributes:
        benchmark: The data, and the detector.
    """

    benchmark: DataBenchmark

    @property
    def key(self) -> str:
        """Identifies the data, the frames used, and the detector."""
        return self.benchmark.key

    def real(self) -> Iterator[Tensor]:
        """The data's own pictures or clips."""
        return self.benchmark.real(self.real_count, Size(*self.size))


class DataImageEvaluator(DataEvaluator, ImageEvaluator):
    """Measures pictures against the data's own, with features of a published network.

    Patches have 299 pixels a side, as in the paper; smaller pictures are one patch.

    Args:
        benchmark: The data, and the detector.
        size: Size of the pictures.
        folder, real_count: See `Evaluator`.
    """

    def __init__(self, benchmark: DataBenchmark, size: Size, folder: Path, real_count: int) -> None:
        super().__init__(*size, folder, real_count, min(PATCH_SIDE, *size))
        self.benchmark = benchmark

    def whole(self, pictures: Tensor) -> Tensor:
        """The detector's features."""
        return self.benchmark.measure.features(pictures).cpu()

    def patch(self, patches: Tensor) -> Tensor:
        """The detector's features of patches."""
        return self.benchmark.measure.features(patches).cpu()

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """The CLIP score of each picture; empty unless the detector is CLIP."""
        if not isinstance(self.benchmark.measure, ClipScore):
            return []
        return self.benchmark.measure.score(samples, list(captions)).tolist()

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """The mean CLIP score, if there is one."""
        return {"clip_score": mean(readings)} if readings else {}


class DataClipEvaluator(DataEvaluator, ClipEvaluator):
    """Measures FVD, KVD and flicker of clips against the data's own; there is no detector for frames.

    Args:
        benchmark: The data, and the detector.
        size: Size of the clips.
        folder, real_count, frames: See `ClipEvaluator`.
    """

    part = CLIP_PART

    def __init__(self, benchmark: DataBenchmark, size: Size, folder: Path, real_count: int, frames: int) -> None:
        super().__init__(*size, folder, None, frames, real_count)
        self.benchmark = benchmark

    def clip(self, clips: Tensor) -> Tensor:
        """The detector's features."""
        return self.benchmark.measure.features(clips).cpu()

    def frame(self, frames: Tensor) -> None:
        """None."""

    def patch(self, patches: Tensor) -> None:
        """None."""


def open_clip_detector(name: str) -> I3D:
    """Opens I3D, given "i3d:FILE.safetensors".

    Raises:
        ValueError: The name is another detector's, or the file cannot be read.
    """
    kind, _, place = name.partition(":")
    if kind != "i3d" or not place:
        raise ValueError(f"detector of clips must be 'i3d:FILE.safetensors', not {name!r}")
    return I3D.from_file(place).to(find_device())


def open_detector(name: str) -> Any:
    """Opens a network with `features` of pictures, by name.

    Raises:
        ValueError: The detector is unknown or cannot be loaded.
    """
    kind, _, place = name.partition(":")
    if kind == "inception" and place:
        detector = Inception(place)
        detector.network.to(find_device())
        return detector
    if kind == "clip" and place:
        try:
            detector = ClipScore.from_pretrained(place)
        except OSError as error:
            raise ValueError(f"detector {name!r} cannot be loaded: {str(error).splitlines()[0]}") from error
        detector.model.to(find_device())
        return detector
    raise ValueError(f"detector must be 'inception:FILE.safetensors' or 'clip:FOLDER_OR_HUB_ID', not {name!r}")


def _files(place: str) -> list[list[Any]]:
    """Name, size and modification time of the files in a folder or of a pattern, as a key for caching."""
    path = Path(place).expanduser()
    if names_collages(place):
        found = parse_collages(place)[0].files
    else:
        found = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
    stats = [(own, own.stat()) for own in sorted(found) if own.is_file()]
    return [[str(own), stat.st_size, stat.st_mtime_ns] for own, stat in stats]
