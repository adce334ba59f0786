"""Evaluates methods on prompts: figures of pictures or clips, on scenes, collages or the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

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
from selfcascade.media.frame_rates import DEFAULT_FPS

__all__ = [
    "COLLAGES",
    "MOVING",
    "STILL",
    "BaseSamples",
    "Benchmark",
    "ClipEvaluator",
    "Evaluator",
    "ImageEvaluator",
    "PromptSet",
    "Sampling",
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

    def evaluator(self, height: int, width: int, folder: Path, real_count: int) -> Evaluator:
        """The evaluator of pictures or clips of this size; `folder` caches the real samples' features."""
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
    data: str, detector: str, size: Size, frames: int | None = None, fps: float = DEFAULT_FPS
) -> Benchmark:
    """Opens the benchmark of scenes, still or moving, of collages, or of the user's own data.

    Args:
        data: "scenes"; "collages" for the split "test", or "collages:split=validation" or "tuning"; a folder of
            pictures with captions, tar shards, or collages of your own cut-outs or photographs; for clips
            "moving-scenes", a folder of clips, or a .csv that lists them.
        detector: "scenes" for scenes and bundled collages; otherwise see `DataBenchmark`.
        size: Smaller pictures and clips of the data are left out.
        frames: Number of frames in each clip; None for pictures.
        fps: Frames per second of clips.

    Raises:
        ValueError: The data or detector does not exist, or they do not go together.
    """
    scenes, wrong = (STILL, MOVING) if frames is None else (MOVING, STILL)
    if data == wrong:
        raise ValueError(f"data must be {scenes!r} or your own where frames is {frames}, not {data!r}")
    check_detector(data, detector, frames)
    drawn = ScenesBenchmark() if data == STILL else _bundled_collages(data)
    if frames is None:
        return drawn or DataBenchmark(data, size, detector)
    if data == scenes:
        return MovingScenesBenchmark(frames, fps)
    return DataBenchmark(data, size, detector, ClipFiles(frames=frames, fps=fps, fixed_start=True))


def _bundled_collages(data: str) -> ScenesBenchmark | None:
    """The benchmark of bundled collages; None for other data, including collages of the user's own pictures."""
    if not names_collages(data):
        return None
    assets, split = parse_collages(data)
    if assets is not bundled_assets():
        return None
    if data == COLLAGES:
        split = "test"
    if split == "train":
        raise ValueError(f"data {data!r} is what is trained on; it must be of the split test, validation or tuning")
    return ScenesBenchmark(drawn_collages(split))
