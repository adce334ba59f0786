"""The benchmark of moving scenes: held-out captions, rendered real clips, and bundled detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data.scenes.motion import sample_moving_scene
from selfcascade.data.scenes.motion_words import moving_caption
from selfcascade.data.scenes.render_clip import render_clip
from selfcascade.evaluation.clip_evaluator import ClipEvaluator
from selfcascade.evaluation.prompts import SEED_STEP, PromptSet
from selfcascade.evaluation.scenes_benchmark import FIRST_PROMPT, FIRST_REAL, SceneEvaluator
from selfcascade.evaluation.splits import NUMBERS, Split
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.images import file_sha256
from selfcascade.metrics.video import CLIPS, FRAMES, frame_accuracy, mean_estimate
from selfcascade.metrics.video_detector import VideoDetector
from selfcascade.models import BUNDLED

MOTIONS = ("first_motion", "last_motion")


def moving_scene_prompts(count: int, first: int = FIRST_PROMPT, frames: int = FRAMES) -> PromptSet:
    """Captions of held-out moving scenes from number `first` on, for clips with this many frames."""
    scenes = [sample_moving_scene(number, held_out=True) for number in range(first, first + count)]
    words = tuple(moving_caption(scene, first + index) for index, scene in enumerate(scenes))
    return PromptSet(words, first, tuple(dict(scene.truth) for scene in scenes), frames)


def moving_renders(numbers: range, size: Size, like: MovingScenesBenchmark | MovingSceneEvaluator) -> Tensor:
    """Renders (n, F, 3, H, W) in [0, 1] of the held-out moving scenes of these numbers, as long and fast as `like`."""
    scenes = [sample_moving_scene(number, held_out=True) for number in numbers]
    clips = np.stack([render_clip(scene, *size, like.frames, like.fps) for scene in scenes])
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3).contiguous()


class MovingScenesBenchmark:
    """Captions of held-out moving scenes; real clips are renders of other ones.

    Args:
        frames, fps: Number of frames and frames a second of the clips.
        split: The set that captions and seeds are of.
    """

    def __init__(self, frames: int = FRAMES, fps: float = DEFAULT_FPS, split: Split = "tuning") -> None:
        self.frames, self.fps, self.first = frames, fps, NUMBERS[split]

    def prompts(self, count: int, seed: int) -> PromptSet:
        """Captions of held-out moving scenes; each seed has scenes of its own."""
        return moving_scene_prompts(count, self.first.prompt + SEED_STEP * seed, self.frames)

    def base_prompts(self, count: int) -> None:
        """None, since no metric compares with base clips; they have their own row of figures."""

    def true_samples(self, prompts: PromptSet, indices: range, size: Size) -> Tensor:
        """Renders (n, F, 3, H, W) of these prompts' own scenes."""
        return moving_renders(range(prompts.first_seed + indices.start, prompts.first_seed + indices.stop), size, self)

    def evaluator(self, height: int, width: int, folder: Path, real_count: int, protocol: int = 1) -> ClipEvaluator:
        """For clips of that size."""
        found = MovingSceneEvaluator(height, width, folder, self.frames, self.fps, real_count)
        found.protocol = protocol
        return found


class MovingSceneEvaluator(ClipEvaluator):
    """Reads composition and motion from clips of moving scenes, and measures distances from real clips.

    FVD and KVD use features of the bundled video detector, which sees clips at 64 pixels. Frames go through the
    composition reader and patches through the patch detector, as in `SceneEvaluator`. For FVDs with another network's
    features, give that network as `detector`.

    Args:
        height, width, folder, frames, real_count, draws: See `ClipEvaluator`; real clips show held-out scenes.
        fps: Frame rate of the clips.
        detector: A network with `features` of clips; None means the bundled one.
        detector_name: Name of the detector and its weights, for the key of the cache.

    Raises:
        ValueError: A detector has no name, or an error of `ClipEvaluator`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        folder: Path,
        frames: int = FRAMES,
        fps: float = DEFAULT_FPS,
        real_count: int = CLIPS,
        draws: int = 100,
        detector: Any = None,
        detector_name: str = "",
    ) -> None:
        if (detector is None) != (not detector_name):
            raise ValueError(f"detector_name must be given with a detector, and only then, not {detector_name!r}")
        still = SceneEvaluator(height, width, folder)
        super().__init__(height, width, folder, still.patch_side, frames, real_count, draws=draws)
        bundled, self.fps = BUNDLED.parent / "video_detector", fps
        self.reader, self.patches = still.reader, still.detector
        self.video = VideoDetector.from_pretrained(str(bundled), local_files_only=True).float().eval()
        self.detector = self.video if detector is None else detector
        own = file_sha256(bundled / "diffusion_pytorch_model.safetensors")[:12]
        self.detectors = [*still.detectors, own if detector is None else detector_name]

    @property
    def key(self) -> str:
        """Identifies the frame rate and the detectors' weights."""
        return f"scenes-{self.fps:g}fps-{'-'.join(self.detectors)}"

    def real(self) -> Iterator[Tensor]:
        """Renders of held-out scenes."""
        for begin in range(FIRST_REAL, FIRST_REAL + self.real_count, self.part):
            numbers = range(begin, min(begin + self.part, FIRST_REAL + self.real_count))
            yield moving_renders(numbers, Size(*self.size), self)

    def clip(self, clips: Tensor) -> Tensor:
        """Features of the video detector."""
        return self.detector.features(clips)

    def frame(self, frames: Tensor) -> Tensor:
        """Features of the composition reader."""
        return self.reader.features(frames)

    def patch(self, patches: Tensor) -> Tensor:
        """Features of the patch detector."""
        return self.patches.features(patches)

    def read(self, samples: Tensor, captions: Sequence[str]) -> list[Any]:
        """Readings of the video detector for each clip, and of the composition reader for the frames of square clips.

        The composition reader misreads even real pictures at other ratios.
        """
        whole = [reading for part in samples.split(self.part) for reading in self.video.read(part.float())]
        if self.size[0] != self.size[1]:
            return [(reading, None) for reading in whole]
        frames = [self.reader.read(clip[self.compared].float()) for clip in samples]
        return list(zip(whole, frames, strict=True))

    def reading_figures(self, readings: list[Any], prompts: PromptSet) -> dict[str, Any]:
        """Shares of clips, or of their frames, that match their captions.

        The video detector reads whole clips. `objects`: all kinds, colours and the background are right; `motion`: all
        objects move as asked; `first_motion` and `last_motion`: the first and the last object from the left do. The
        composition reader reads the frames of square clips. `composition`: share of frames with everything right that
        the caption names and that does not move. It is below 1 even for real clips, since the reader was trained on
        pictures with objects at their places.
        """
        truths = list(prompts.truths[: len(readings)])
        whole, frames = [[reading] for reading, _ in readings], [seen for _, seen in readings]
        moving = frame_accuracy(whole, [{name: truth[name] for name in MOTIONS} for truth in truths])
        found = {"motion" if name == "all" else name: values for name, values in moving.items()}
        found["objects"] = frame_accuracy(whole, truths, leave_out=MOTIONS)["all"]
        if frames[0] is not None:
            found["composition"] = frame_accuracy(frames, truths)["all"]
        estimates = {name: mean_estimate(values, draws=self.draws) for name, values in found.items()}
        return {name: [one.value, one.low, one.high] for name, one in estimates.items()}
