"""Video files as training data: which are used, and which of their frames; sizes and lengths rule before decoding."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from selfcascade.cascade import Size
from selfcascade.data.decode import is_small
from selfcascade.data.examples import Entry, Skip, drawn_from
from selfcascade.media.endings import CLIPS, PICTURES
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.video_files import ClipError, ClipInfo, probe_clip, read_clip

# A rate this little under the one asked for is the same: 23.976 frames a second count as 24.
RATE_SLACK = 0.97
MAX_PROBED = 100


@dataclass(frozen=True)
class ClipFiles:
    """Which clips are used, and which of their frames: a number at even times, from a start drawn for each epoch.

    Attributes:
        min_size: Frames must have its area at least, and a shorter side that some ratio up to 1:2 could use.
        frames: How many are taken.
        fps: How many a second; clips of a lower rate are left out. None takes each clip's own rate.
        stride: Instead of `fps`: every stride-th frame of each clip's own rate.
        min_duration, max_duration: Seconds; others are left out. Too few for the frames is left out in any case.
        min_frames: A clip with fewer is left out.
        fixed_start: Take the same frames in every epoch.

    Raises:
        ValueError: A value is out of its range, or both `fps` and `stride` are given.
    """

    min_size: Size | None = None
    frames: int = 16
    fps: float | None = DEFAULT_FPS
    stride: int | None = None
    min_duration: float = 0.0
    max_duration: float = math.inf
    min_frames: int = 2
    fixed_start: bool = False
    noun: ClassVar[str] = "clip"
    extensions: ClassVar[frozenset[str]] = CLIPS
    others: ClassVar[frozenset[str]] = PICTURES - CLIPS

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"frames must be 2 or more, not {self.frames}")
        if self.fps is not None and self.stride is not None:
            raise ValueError("fps and stride must not both be given; set fps to None to take every stride-th frame")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be above 0 and at most 1000, not {self.fps}")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride must be 1 or more, not {self.stride}")
        if not 0 <= self.min_duration <= self.max_duration:
            raise ValueError(
                f"min_duration must be from 0 to max_duration, {self.max_duration:g}, not {self.min_duration}"
            )

    def load(self, path: Path, key: str, draw: str) -> np.ndarray:
        """The clip's frames of this draw, (F, H, W, 3) uint8; of a clip that is ruled out no more than one is decoded.

        Raises:
            Skip: It is ruled out, damaged, or no clip.
        """
        try:
            info = probe_clip(path)
            self.check(info, key)
            start = self.start(info, key if self.fixed_start else draw)
            return read_clip(path, self.frames, self.rate(info), start=start)[0]
        except ClipError as error:
            raise Skip(error.reason, key) from error

    def rate(self, info: ClipInfo) -> float:
        """Frames a second that are taken."""
        return self.fps or info.fps / (self.stride or 1)

    def rate_in(self, entries: Iterable[Entry | Skip]) -> float | None:
        """Frames a second that are taken of the first clip that is used; None where the first are not files."""
        for entry in itertools.islice(entries, MAX_PROBED):
            if isinstance(entry, Entry):
                if entry.file is None:
                    return None
                with contextlib.suppress(ClipError, Skip):
                    info = probe_clip(entry.file)
                    self.check(info, entry.key)
                    return self.rate(info)
        return None

    def check(self, info: ClipInfo, key: str) -> None:
        """Raises Skip with the first reason against a clip."""
        if is_small(info.width, info.height, self.min_size):
            raise Skip("smaller than the target", key, damaged=False)
        self.check_duration(info.duration, key)
        if info.frames < self.min_frames or self._last_start(info) < 0:
            raise Skip("clip is too short", key, damaged=False)
        if self.fps is not None and info.fps < RATE_SLACK * self.fps:
            raise Skip("frame rate is too low", key, damaged=False)

    def check_duration(self, duration: float, key: str) -> None:
        """Raises Skip if a clip of this many seconds is ruled out."""
        needed = 0.0 if self.fps is None else (self.frames - 1) / self.fps
        if duration < max(self.min_duration, needed):
            raise Skip("clip is too short", key, damaged=False)
        if duration > self.max_duration:
            raise Skip("clip is too long", key, damaged=False)

    def start(self, info: ClipInfo, draw: str) -> float:
        """The second at which the frames begin: that of one of the clip's own frames, drawn evenly."""
        return int(drawn_from(f"start {draw}").integers(self._last_start(info) + 1)) / info.fps

    def _last_start(self, info: ClipInfo) -> int:
        """The number of the last frame from which on there are enough; negative if there is none."""
        own = min(info.frames, round(info.duration * info.fps))
        return math.floor(own - 1 - (self.frames - 1) * info.fps / self.rate(info) + 0.1)
