"""Method x questions -> figures, on the scenes world or on the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from selfcascade.cascade import Size
from selfcascade.evaluation.answers import Pivots, Sampling, answer
from selfcascade.evaluation.judge import Judge
from selfcascade.evaluation.own_data import DataWorld
from selfcascade.evaluation.questions import Questions
from selfcascade.evaluation.scenes import ScenesWorld

__all__ = ["Judge", "Pivots", "Questions", "Sampling", "World", "answer", "open_world"]


class World(Protocol):
    """What is asked, and what the answers are compared with."""

    def questions(self, count: int, seed: int) -> Questions:
        """What is asked; the first of them are the same whatever the count."""
        ...

    def others(self, count: int) -> Questions:
        """Questions whose base samples FID_b and KID_b are measured from."""
        ...

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> Judge:
        """For pictures of that size."""
        ...


def open_world(data: str, detector: str, size: Size) -> World:
    """The scenes world, or the user's own data.

    Args:
        data: "scenes", a folder of pictures with captions, or tar shards.
        detector: "scenes" for the scenes; else as in `DataWorld`.
        size: Pictures of the data that are smaller are left out.

    Raises:
        ValueError: There is no such data or detector, or they do not go together.
    """
    if (data == "scenes") != (detector == "scenes"):
        raise ValueError(f"detector must be 'scenes' for the scenes and another one for other data, not {detector!r}")
    return ScenesWorld() if data == "scenes" else DataWorld(data, size, detector)
