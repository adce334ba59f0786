"""The world of moving scenes: held-out ones, real clips, and detectors trained on it that ship with the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfcascade.data.scenes.clips import render_clip
from selfcascade.data.scenes.motion import sample_moving_scene
from selfcascade.data.scenes.motion_words import moving_caption
from selfcascade.evaluation.clip_judge import ClipJudge
from selfcascade.evaluation.questions import SEED_STEP, Questions
from selfcascade.evaluation.scenes import ASKED_FIRST, REAL_FIRST, SceneJudge
from selfcascade.media.images import file_sha256
from selfcascade.metrics.video import CLIPS, FRAMES, frame_accuracy, mean_estimate
from selfcascade.metrics.video_detector import VideoDetector
from selfcascade.models import BUNDLED

FPS = 8.0
MOTIONS = ("first_motion", "last_motion")


def moving_questions(count: int, first: int = ASKED_FIRST, frames: int = FRAMES) -> Questions:
    """The captions of held-out moving scenes from number `first` on, for clips of so many frames."""
    scenes = [sample_moving_scene(number, held_out=True) for number in range(first, first + count)]
    words = tuple(moving_caption(scene, first + index) for index, scene in enumerate(scenes))
    return Questions(words, first, tuple(dict(scene.truth) for scene in scenes), frames)


class MovingScenesWorld:
    """Captions of held-out moving scenes; what is real is rendered.

    Args:
        frames, fps: Of the clips.
    """

    def __init__(self, frames: int = FRAMES, fps: float = FPS) -> None:
        self.frames, self.fps = frames, fps

    def questions(self, count: int, seed: int) -> Questions:
        """What is asked; another seed asks about other scenes."""
        return moving_questions(count, ASKED_FIRST + SEED_STEP * seed, self.frames)

    def others(self, count: int) -> None:
        """Nothing is measured from base clips; a row of their own has their figures."""

    def judge(self, height: int, width: int, folder: Path, real_count: int) -> ClipJudge:
        """For clips of that size."""
        return MovingSceneJudge(height, width, folder, self.frames, self.fps, real_count)


class MovingSceneJudge(ClipJudge):
    """Reads composition and motion off clips of moving scenes, and measures their distance from real clips of others.

    FVD and KVD are in features of the bundled video detector, which sees clips at 64 pixels. Frames are seen by the
    composition reader and their patches by the patch detector, as pictures are by `SceneJudge`. For FVDs in features of
    another network, give that as `detector`.

    Args:
        height, width, folder, frames, real_count, draws: As in `ClipJudge`; real clips are of held-out scenes.
        fps: Of the clips.
        detector: A network with `features` of clips; None is the bundled one.
        detector_name: Names it, and its weights, in what is kept.

    Raises:
        ValueError: A detector has no name, or as in `ClipJudge`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        folder: Path,
        frames: int = FRAMES,
        fps: float = FPS,
        real_count: int = CLIPS,
        draws: int = 100,
        detector: Any = None,
        detector_name: str = "",
    ) -> None:
        if (detector is None) != (not detector_name):
            raise ValueError(f"detector_name must be given with a detector, and only then, not {detector_name!r}")
        still = SceneJudge(height, width, folder)
        super().__init__(height, width, folder, still.patch_side, frames, real_count, draws=draws)
        bundled, self.fps = BUNDLED.parent / "video_detector", fps
        self.reader, self.patches = still.reader, still.detector
        self.video = VideoDetector.from_pretrained(str(bundled), local_files_only=True).float().eval()
        self.detector = self.video if detector is None else detector
        own = file_sha256(bundled / "diffusion_pytorch_model.safetensors")[:12]
        self.detectors = [*still.detectors, own if detector is None else detector_name]

    @property
    def key(self) -> str:
        """The rate, and the detectors' weights."""
        return f"scenes-{self.fps:g}fps-{'-'.join(self.detectors)}"

    def real(self) -> Iterator[Tensor]:
        """Renders."""
        for begin in range(REAL_FIRST, REAL_FIRST + self.real_count, self.part):
            scenes = (
                sample_moving_scene(number, held_out=True)
                for number in range(begin, min(begin + self.part, REAL_FIRST + self.real_count))
            )
            clips = np.stack([render_clip(scene, *self.size, self.frames, self.fps) for scene in scenes])
            yield torch.from_numpy(clips).permute(0, 1, 4, 2, 3).contiguous()

    def clip(self, clips: Tensor) -> Tensor:
        """The video detector's features."""
        return self.detector.features(clips)

    def frame(self, frames: Tensor) -> Tensor:
        """The reader's."""
        return self.reader.features(frames)

    def patch(self, patches: Tensor) -> Tensor:
        """The patch detector's."""
        return self.patches.features(patches)

    def read(self, clips: Tensor, captions: Sequence[str]) -> list[Any]:
        """What the video detector sees in each clip, and the composition reader in the compared frames of square ones.

        The reader misreads real pictures of other ratios.
        """
        whole = [reading for part in clips.split(self.part) for reading in self.video.read(part.float())]
        if self.size[0] != self.size[1]:
            return [(reading, None) for reading in whole]
        frames = [self.reader.read(clip[self.compared].float()) for clip in clips]
        return list(zip(whole, frames, strict=True))

    def more(self, readings: list[Any], questions: Questions) -> dict[str, Any]:
        """What was read off the clips, as shares of them.

        By the video detector off whole clips: `objects`, all kinds and colours and the background are as asked;
        `motion`, all objects move as asked; `first_motion` and `last_motion`, the first and the last from the left do.
        By the composition reader off each frame of square clips: `composition`, the share of frames with everything
        right that the caption names and that does not move; of real clips too it is below 1, as the reader was trained
        on pictures whose objects are at their places.
        """
        truths = list(questions.truths[: len(readings)])
        whole, frames = [[reading] for reading, _ in readings], [seen for _, seen in readings]
        moving = frame_accuracy(whole, [{name: truth[name] for name in MOTIONS} for truth in truths])
        found = {"motion" if name == "all" else name: values for name, values in moving.items()}
        found["objects"] = frame_accuracy(whole, truths, leave_out=MOTIONS)["all"]
        if frames[0] is not None:
            found["composition"] = frame_accuracy(frames, truths)["all"]
        estimates = {name: mean_estimate(values, draws=self.draws) for name, values in found.items()}
        return {name: [one.value, one.low, one.high] for name, one in estimates.items()}
