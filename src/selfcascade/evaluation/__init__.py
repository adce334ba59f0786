"""Method x questions -> figures, of pictures or clips, on scenes, collages or the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from selfcascade.cascade import Size
from selfcascade.data import ClipFiles
from selfcascade.data.collages import bundled_assets
from selfcascade.data.collages_source import names_collages, parse_collages
from selfcascade.evaluation.answers import Pivots, Sampling, answer
from selfcascade.evaluation.clip_judge import ClipJudge
from selfcascade.evaluation.judge import Judge
from selfcascade.evaluation.moving_scenes import FPS, MovingScenesWorld
from selfcascade.evaluation.own_data import DataWorld
from selfcascade.evaluation.questions import Questions
from selfcascade.evaluation.scenes import COLLAGES, ScenesWorld, drawn_collages

__all__ = [
    "COLLAGES",
    "FPS",
    "MOVING",
    "STILL",
    "ClipJudge",
    "Judge",
    "Pivots",
    "Questions",
    "Sampling",
    "World",
    "answer",
    "open_world",
]

STILL, MOVING = "scenes", "moving-scenes"


class World(Protocol):
    """What is asked, and what the answers are compared with."""

    def questions(self, count: int, seed: int) -> Questions:
        """What is asked; the first of them are the same whatever the count."""
        ...

    def others(self, count: int) -> Questions | None:
        """Questions whose base samples FID_b and KID_b are measured from; None where these are not."""
        ...

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> Judge | ClipJudge:
        """For pictures or clips of that size."""
        ...


def open_world(data: str, detector: str, size: Size, frames: int | None = None, fps: float = FPS) -> World:
    """Scenes, still or moving, collages, or the user's own data.

    Args:
        data: "scenes"; "collages", which is asked for its split "test", or "collages:split=validation" or "tuning";
            a folder of pictures with captions, tar shards, or collages of one's own cut-outs or photographs; for clips
            "moving-scenes", a folder of clips, or a .csv that lists them.
        detector: "scenes" for scenes and collages that ship; else as in `DataWorld`.
        size: Pictures and clips of the data that are smaller are left out.
        frames: Of clips; None: pictures.
        fps: Of clips.

    Raises:
        ValueError: There is no such data or detector, or they do not go together.
    """
    scenes, others = (STILL, MOVING) if frames is None else (MOVING, STILL)
    if data == others:
        raise ValueError(f"data must be {scenes!r} or your own where frames is {frames}, not {data!r}")
    drawn = ScenesWorld() if data == STILL else _bundled_collages(data)
    if (data == scenes or drawn is not None) != (detector == "scenes"):
        raise ValueError(
            f"detector must be 'scenes' for scenes and collages and another one for other data, not {detector!r}"
        )
    if frames is None:
        return drawn or DataWorld(data, size, detector)
    if data == scenes:
        return MovingScenesWorld(frames, fps)
    return DataWorld(data, size, detector, ClipFiles(frames=frames, fps=fps, fixed_start=True))


def _bundled_collages(data: str) -> ScenesWorld | None:
    """The collages of that name; None for other data, and for collages of the user's own cut-outs or photographs."""
    if not names_collages(data):
        return None
    assets, split = parse_collages(data)
    if assets is not bundled_assets():
        return None
    if data == COLLAGES:
        split = "test"
    if split == "train":
        raise ValueError(f"data {data!r} is what is trained on; it must be of the split test, validation or tuning")
    return ScenesWorld(drawn_collages(split))
