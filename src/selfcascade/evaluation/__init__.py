"""Evaluates methods on prompts: figures of pictures or clips, on scenes, collages or the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import ClipFiles
from selfcascade.data.collages import bundled_assets
from selfcascade.data.collages_source import names_collages, parse_collages
from selfcascade.evaluation.clip_evaluator import ClipEvaluator
from selfcascade.evaluation.data_benchmark import DataBenchmark
from selfcascade.evaluation.evaluator import Evaluator
from selfcascade.evaluation.image_evaluator import ImageEvaluator
from selfcascade.evaluation.make_samples import BaseSamples, Sampling, sample
from selfcascade.evaluation.moving_scenes_benchmark import MovingScenesBenchmark
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.evaluation.scenes_benchmark import COLLAGES, ScenesBenchmark, drawn_collages
from selfcascade.evaluation.splits import SPLITS, Split
from selfcascade.media.frame_rates import DEFAULT_FPS

__all__ = [
    "COLLAGES",
    "MOVING",
    "SPLITS",
    "STILL",
    "BaseSamples",
    "Benchmark",
    "ClipEvaluator",
    "Evaluator",
    "ImageEvaluator",
    "PromptSet",
    "Sampling",
    "Split",
    "check_detector",
    "open_benchmark",
    "sample",
]

STILL, MOVING = "scenes", "moving-scenes"


class Benchmark(Protocol):
    """Prompts, and real samples that a method's samples are compared with."""

    def prompts(self, count: int, seed: int) -> PromptSet:
        """The prompts of a seed; a smaller count gives the first of them."""
        ...

    def base_prompts(self, count: int) -> PromptSet | None:
        """Prompts of the base samples for FID_b and KID_b; None if these are not measured."""
        ...

    def true_samples(self, prompts: PromptSet, indices: range, size: Size) -> Tensor:
        """Real samples of these prompts themselves, (n, 3, H, W) or (n, F, 3, H, W) in [0, 1]."""
        ...

    def evaluator(self, height: int, width: int, folder: Path, real_count: int, protocol: int = 1) -> Evaluator:
        """The evaluator of samples of that size, by `Evaluator.protocol`; `folder` holds the real samples' features."""
        ...


def check_detector(data: str, detector: str, frames: int | None) -> None:
    """Raises ValueError, saying what to give, if the detector is not for this data."""
    drawn = data in (STILL, MOVING) or _bundled_collages(data) is not None
    if not drawn and detector == "scenes":
        known = "inception:FILE.safetensors or clip:FOLDER_OR_HUB_ID" if frames is None else "i3d:FILE.safetensors"
        raise ValueError(f"data {data!r} needs a detector to be measured by: give detector, {known}")
    if drawn and detector != "scenes":
        raise ValueError(f"detector {detector!r} is for data of your own; give data, or leave the detector out")


def open_benchmark(
    data: str,
    detector: str,
    size: Size,
    frames: int | None = None,
    fps: float = DEFAULT_FPS,
    split: Split | None = None,
) -> Benchmark:
    """Opens the benchmark of scenes, still or moving, of collages, or of the user's own data.

    Args:
        data: "scenes"; "collages" for the split "test", or "collages:split=validation" or "tuning"; a folder of
            pictures with captions, tar shards, or collages of your own cut-outs or photographs; for clips
            "moving-scenes", a folder of clips, or a .csv that lists them.
        detector: "scenes" for scenes and collages that ship; else as in `DataBenchmark`.
        size: Pictures and clips of the data that are smaller are left out.
        frames: Number of frames in each clip; None: pictures.
        fps: Frames a second of clips.
        split: The set that captions and seeds are of; None: as before there were sets, those of "tuning", with all
            captions of the user's own data.

    Raises:
        ValueError: The data or detector does not exist, or they do not go together.
    """
    scenes, wrong = (STILL, MOVING) if frames is None else (MOVING, STILL)
    if data == wrong:
        raise ValueError(f"data must be {scenes!r} or your own where frames is {frames}, not {data!r}")
    check_detector(data, detector, frames)
    drawn = ScenesBenchmark(split=split or "tuning") if data == STILL else _bundled_collages(data, split)
    if frames is None:
        return drawn or DataBenchmark(data, size, detector, split=split)
    if data == scenes:
        return MovingScenesBenchmark(frames, fps, split or "tuning")
    return DataBenchmark(data, size, detector, ClipFiles(frames=frames, fps=fps, fixed_start=True), split)


def _bundled_collages(data: str, asked: Split | None = None) -> ScenesBenchmark | None:
    """The benchmark of bundled collages; None for other data, and for collages of the user's own pictures."""
    if not names_collages(data):
        return None
    assets, split = parse_collages(data)
    if assets is not bundled_assets():
        return None
    if data == COLLAGES:
        split = asked or "test"
    if asked is not None and split != asked:
        raise ValueError(f"data {data!r} is of the split {split!r}, and split is {asked!r}; leave one of them out")
    if split == "train":
        raise ValueError(f"data {data!r} is what is trained on; it must be of the split test, validation or tuning")
    return ScenesBenchmark(drawn_collages(split), asked or "tuning")
