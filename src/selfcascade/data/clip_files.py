"""Video files as training data: which files and frames are used; sizes and lengths are checked before decoding."""

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

# A rate this little below the wanted one counts as equal: 23.976 frames per second count as 24.
RATE_SLACK = 0.97
MAX_PROBED = 100


@dataclass(frozen=True)
class ClipFiles:
    """Which clips are used, and which of their frames: evenly spaced, from a start that is drawn for each epoch.

    Attributes:
        min_size: Frames must have at least its area, and a shorter side that some ratio up to 1:2 can use.
        frames: Number of frames taken from a clip.
        fps: Frames per second; clips with a lower rate are left out. None takes each clip's own rate.
        stride: Instead of `fps`, take every stride-th frame at the clip's own rate.
        min_duration, max_duration: Range of durations in seconds. Clips too short for the frames are always left out.
        min_frames: Clips with fewer frames are left out.
        fixed_start: Whether to take the same frames in every epoch.

    Raises:
        ValueError: A value is out of range, or both `fps` and `stride` are given.
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
        """Decodes the clip's frames for this draw, (F, H, W, 3) uint8; of an unsuitable clip at most one.

        Raises:
            Skip: The clip is unsuitable, damaged, or not a clip.
        """
        try:
            info = probe_clip(path)
            self.check(info, key)
            start = self.start(info, key if self.fixed_start else draw)
            return read_clip(path, self.frames, self.rate(info), start=start)[0]
        except ClipError as error:
            raise Skip(error.reason, key) from error

    def rate(self, info: ClipInfo) -> float:
        """Frames per second taken from a clip."""
        return self.fps or info.fps / (self.stride or 1)

    def rate_in(self, entries: Iterable[Entry | Skip]) -> float | None:
        """Frames per second taken from the first suitable clip; None if the first entries are not files."""
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
        """Raises Skip with the first reason that makes a clip unsuitable."""
        if is_small(info.width, info.height, self.min_size):
            raise Skip("smaller than the target", key, damaged=False)
        self.check_duration(info.duration, key)
        if info.frames < self.min_frames or self._last_start(info) < 0:
            raise Skip("clip is too short", key, damaged=False)
        if self.fps is not None and info.fps < RATE_SLACK * self.fps:
            raise Skip("frame rate is too low", key, damaged=False)

    def check_duration(self, duration: float, key: str) -> None:
        """Raises Skip if a clip of this many seconds is too short or too long."""
        needed = 0.0 if self.fps is None else (self.frames - 1) / self.fps
        if duration < max(self.min_duration, needed):
            raise Skip("clip is too short", key, damaged=False)
        if duration > self.max_duration:
            raise Skip("clip is too long", key, damaged=False)

    def start(self, info: ClipInfo, draw: str) -> float:
        """Time in seconds of the first frame taken: that of one of the clip's own frames, drawn uniformly."""
        return int(drawn_from(f"start {draw}").integers(self._last_start(info) + 1)) / info.fps

    def _last_start(self, info: ClipInfo) -> int:
        """Index of the last frame that has enough frames after it; negative if there is none."""
        own = min(info.frames, round(info.duration * info.fps))
        return math.floor(own - 1 - (self.frames - 1) * info.fps / self.rate(info) + 0.1)
