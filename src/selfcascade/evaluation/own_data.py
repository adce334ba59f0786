"""Evaluation on the user's own data: captions and real pictures or clips from its files, published detectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import Batch, ClipFiles, DataError, Position, Stream, open_source
from selfcascade.data.collages_source import names_collages, parse_collages
from selfcascade.evaluation.clip_judge import ClipJudge
from selfcascade.evaluation.judge import PART, Judge
from selfcascade.evaluation.questions import SEED_STEP, Questions
from selfcascade.metrics.clip import ClipScore
from selfcascade.metrics.detectors import Inception
from selfcascade.metrics.i3d import I3D
from selfcascade.models import find_device

# Orders of the data: what is asked has the seeds from 0 on.
OTHERS, REAL = 1_000_003, 1_000_033
PATCH_SIDE = 299
CLIP_PART = 4  # a part of clips of 16 frames of 512 pixels takes 200 MB


class DataWorld:
    """Captions from data, and its pictures or clips as what is real.

    Args:
        data: A folder with captions, tar shards of pictures, or a .csv of clips, as `selfcascade train` takes them.
        size: Pictures and clips smaller than that are left out.
        detector: "inception:FILE.safetensors" or "clip:FOLDER_OR_HUB_ID"; for clips "i3d:FILE.safetensors".
        clips: The data is clips: which, and which of their frames.

    Raises:
        ValueError: There is no such data or detector.
    """

    def __init__(self, data: str, size: Size, detector: str, clips: ClipFiles | None = None) -> None:
        self.data, self.size, self.detector, self.clips = data, size, detector, clips
        self.measure = open_detector(detector) if clips is None else open_clip_detector(detector)

    def questions(self, count: int, seed: int) -> Questions:
        """The captions of the first usable samples; another seed takes them in another order."""
        words = tuple(words for part in self._parts(count, seed, self.size) for words in part.captions)
        return Questions(words, SEED_STEP * seed, frames=None if self.clips is None else self.clips.frames)

    def others(self, count: int) -> Questions | None:
        """Captions in an order of their own; none for clips."""
        return self.questions(count, OTHERS) if self.clips is None else None

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> Judge | ClipJudge:
        """For pictures or clips of that size."""
        size = Size(height, width)
        if self.clips is None:
            return DataJudge(self, size, folder, real_count)
        return DataClipJudge(self, size, folder, real_count, self.clips.frames)

    def real(self, count: int, size: Size) -> Iterator[Tensor]:
        """Real pictures (n, 3, H, W) or clips (n, F, 3, H, W) in [0, 1], cropped to that size."""
        for batch in self._parts(count, REAL, size):
            yield batch.pixels / 2 + 0.5

    @property
    def key(self) -> str:
        """Names the data and the detector, in a file's name: their places, and their files' sizes and times."""
        detector = self.detector.partition(":")[2]
        words = [self.data, *_files(self.data), self.detector, *_files(detector), repr(self.clips)]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    def _parts(self, count: int, seed: int, size: Size) -> Iterator[Batch]:
        stream = Stream(open_source(self.data, size, clips=self.clips), (size,), seed, fixed_crops=True)
        done, place, part = 0, Position(), PART if self.clips is None else CLIP_PART
        while done < count:
            batch = next(stream.batches(min(part, count - done), start=place))
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
        return self.world.key

    def real(self) -> Iterator[Tensor]:
        """The data's."""
        return self.world.real(self.real_count, Size(*self.size))

    def whole(self, pictures: Tensor) -> Tensor:
        """The detector's features."""
        return self.world.measure.features(pictures).cpu()

    def patch(self, patches: Tensor) -> Tensor:
        """The same."""
        return self.world.measure.features(patches).cpu()

    def read(self, pictures: Tensor, captions: Sequence[str]) -> list[Any]:
        """The CLIP score of each, where the detector is CLIP."""
        if not isinstance(self.world.measure, ClipScore):
            return []
        return self.world.measure.score(pictures, list(captions)).tolist()

    def more(self, found: dict[str, Tensor], readings: list[Any], questions: Questions) -> dict[str, Any]:
        """The mean CLIP score, where there is one."""
        return {"clip_score": mean(readings)} if readings else {}


class DataClipJudge(ClipJudge):
    """Measures FVD, KVD and flicker against the data's own clips; no detector is known for their frames.

    Args:
        world: The data, and the detector.
        size: Of the clips judged.
        folder, real_count, frames: As in `ClipJudge`.
    """

    part = CLIP_PART

    def __init__(self, world: DataWorld, size: Size, folder: Path, real_count: int, frames: int) -> None:
        super().__init__(*size, folder, None, frames, real_count)
        self.world = world

    @property
    def key(self) -> str:
        """The data, which of their frames, and the detector."""
        return self.world.key

    def real(self) -> Iterator[Tensor]:
        """The data's."""
        return self.world.real(self.real_count, Size(*self.size))

    def clip(self, clips: Tensor) -> Tensor:
        """The detector's features."""
        return self.world.measure.features(clips).cpu()

    def frame(self, frames: Tensor) -> None:
        """None."""

    def patch(self, patches: Tensor) -> None:
        """None."""


def open_clip_detector(name: str) -> I3D:
    """I3D, by the name of its file.

    Raises:
        ValueError: It is another detector, or its file cannot be read.
    """
    kind, _, place = name.partition(":")
    if kind != "i3d" or not place:
        raise ValueError(f"detector of clips must be 'i3d:FILE.safetensors', not {name!r}")
    return I3D.from_file(place).to(find_device())


def open_detector(name: str) -> Any:
    """A network with `features` of pictures, by name.

    Raises:
        ValueError: There is no such detector.
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
    """Name, size and time of change of the files in a folder, or of a pattern: what was kept of others is not taken."""
    path = Path(place).expanduser()
    if names_collages(place):
        found = parse_collages(place)[0].files
    else:
        found = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
    stats = [(own, own.stat()) for own in sorted(found) if own.is_file()]
    return [[str(own), stat.st_size, stat.st_mtime_ns] for own, stat in stats]
