"""The page's functions without the page: makes base samples, pictures and clips, one at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from selfcascade.cascade import Stage
from selfcascade.making import TUNED, Made, completed, load_cascade, make
from selfcascade.media.images import decode_image, file_sha256
from selfcascade.media.save_clips import save_clip
from selfcascade.media.save_pictures import save_picture
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.web.jobs import Cancelled, Job, Jobs
from selfcascade.web.limits import Limits
from selfcascade.web.outcome import BaseSample, Result, caption, decoded
from selfcascade.web.ways import stages_above, way_options, ways

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.cost.plan import StageCost
    from selfcascade.pipeline import SelfCascade

BUSY_SECONDS = 2.0
DIRECT = "direct"
PLANNED = (DIRECT, "self-cascade", TUNED)
STAGE_KEY = ("size", "num_inference_steps", "guidance_scale")


@dataclass
class Studio:
    """A model for pictures, the bundled one for clips, and one run at a time.

    Args:
        base: Options of the command line.
        output: Folder for saved pictures and clips.
        limits: Limits of a request.
    """

    base: Options
    output: Path
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.jobs, self.lock = Jobs(), threading.RLock()
        self.cascade, self.base = load_cascade(self.base)
        self._clips: tuple[SelfCascade, Options] | None = None
        self._tuned: SelfCascade | None = None
        if self.cascade.family.video:
            self._clips = self.cascade, self.base

    @property
    def makes_pictures(self) -> bool:
        """Whether the model makes pictures rather than clips."""
        return not self.cascade.family.video

    def clips(self) -> tuple[SelfCascade, Options]:
        """The model for clips, loaded on first use, and its options.

        Loading waits until nothing is at work, because it changes how all threads create layers.
        """
        if self._clips is None:
            with self.lock:
                if self._clips is None:
                    self._clips = load_cascade(Options(model="bundled-video", device=self.base.device))
        return self._clips

    def plan(self, options: Options, video: bool = False) -> list[StageCost]:
        """The cost of the options, checked against the limits.

        Raises:
            OptionError: The options cannot be used, or cost too much.
            Cancelled: The model is at work.
        """
        with self.idle():
            cascade = self.clips()[0] if video else self.cascade
            return self._checked(cascade, completed(cascade, options))

    def plan_upscale(self, options: Options, file: Path, name: str) -> list[StageCost]:
        """Like `plan`, for a visitor's picture that is enlarged."""
        image = self.read_picture(file, name)
        with self.idle():
            options = completed(self.cascade, options.changed(image=name, method="self-cascade"))
            return self._checked(self.cascade, options, stages_above(self.cascade, image, options))

    def plan_ways(self, options: Options, chosen: Sequence[str]) -> list[tuple[str, list[StageCost]]]:
        """Like `plan`, for each way of a comparison; methods that are not planned in stages have no costs."""
        plans = []
        with self.idle():
            for way in self._chosen(chosen):
                own, cascade = self._way(options, way)
                costs = self._checked(cascade, completed(cascade, own))
                plans.append((way, costs if own.method in PLANNED else []))
        return plans

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """Holds the model for a plan, after other plans and loading; raises Cancelled if a run holds it."""
        while not self.lock.acquire(timeout=BUSY_SECONDS):
            if self.jobs.running:
                raise Cancelled
        try:
            yield
        finally:
            self.lock.release()

    def base_samples(self, options: Options, count: object, job: Job) -> Iterator[BaseSample]:
        """Base samples of consecutive seeds, each the same as when made alone.

        Raises:
            OptionError: The options cannot be used, or cost too much.
            Cancelled: The visitor has stopped it.
        """
        import torch

        number = self.limits.check_samples(count)
        options.changed(seed=options.seed + number - 1)
        with self.lock:
            options = self._ready(options)
            stage = self.cascade.plan(**options.keywords("plan"))[0]
            own = {name: getattr(options, name) for name in ("prompt", "negative_prompt")}
            own |= {name: getattr(stage, name) for name in STAGE_KEY[1:]} | stage.size._asdict()
        for index in range(number):
            job.say(f"base sample {index + 1} of {number}")
            seed, generator = options.seed + index, torch.Generator("cpu").manual_seed(options.seed + index)
            with self.lock:
                made = make(
                    self.cascade, self.base.changed(**own, seed=seed, generator=generator), None, job.on_step_end
                )
            if made.interrupted:
                raise Cancelled
            state = generator.get_state()
            yield BaseSample(made.image, options.changed(seed=seed), made.latents[0], state, made.stages[0])

    def create(self, options: Options, sample: BaseSample | None, job: Job) -> Result:
        """Makes the picture of the options. From a given base sample, it is the same picture.

        Raises:
            OptionError: The options cannot be used, cost too much, or do not match the base sample.
        """
        import torch

        with self.lock:
            options = self._ready(options)
            costs = self._checked(self.cascade, options)
            if sample is not None:
                options = options.changed(seed=sample.options.seed)
                self._check_same_base(options, sample)
                if len(costs) > 1:
                    generator = torch.Generator("cpu")
                    generator.set_state(sample.generator_state)
                    options = options.changed(pivot=sample.latents, generator=generator)
            job.say("")
            made = make(self.cascade, options, None, job.on_step_end)
            if options.pivot is not None and sample is not None:
                made = replace(made, stages=[sample.entry, *made.stages], latents=[sample.latents, *made.latents])
            return self._result(self.cascade, made, "picture")

    def upscale(self, options: Options, file: Path, name: str, job: Job) -> tuple[Image.Image, Result]:
        """Enlarges a visitor's picture; returns it and the result.

        Raises:
            OptionError: The options cannot be used, or cost too much.
            ValueError: The file is not a picture, or is too large.
        """
        image = self.read_picture(file, name)
        with self.lock:
            options = options.changed(image=name, image_sha256=file_sha256(file), method="self-cascade")
            options = completed(self.cascade, options)
            self._checked(self.cascade, options, stages_above(self.cascade, image, options))
            job.say("")
            made = make(self.cascade, options, image, job.on_step_end)
            return image, self._result(self.cascade, made, "upscaled")

    def clip(self, options: Options, job: Job) -> Result:
        """Makes a clip.

        Raises:
            OptionError: The options cannot be used, or cost too much.
        """
        self._check_prompt(options)
        with self.lock:
            cascade, _ = self.clips()
            options = completed(cascade, options)
            self._checked(cascade, options)
            job.say("")
            return self._result(cascade, make(cascade, options, None, job.on_step_end), "clip")

    def compare(self, options: Options, chosen: Sequence[str], job: Job) -> Iterator[tuple[str, Result]]:
        """Makes the picture in several ways, presets or methods, from the same seed.

        Raises:
            OptionError: The options cannot be used, cost too much, or there are too many ways.
            Cancelled: The visitor has stopped it.
        """
        for number, way in enumerate(self._chosen(chosen)):
            with self.lock:
                own, cascade = self._way(options, way)
                own = self._ready(own, cascade)
                self._checked(cascade, own)
                job.say(f"{way}, {number + 1} of {len(chosen)}")
                result = self._result(cascade, make(cascade, own, None, job.on_step_end), f"compare-{way}")
            if result.path is None:
                raise Cancelled
            yield way, result

    def _chosen(self, chosen: Sequence[str]) -> list[str]:
        most, known = self.limits.compared, ways(self.base)
        if not isinstance(chosen, list) or not 1 <= len(chosen) <= most or not set(chosen) <= set(known):
            raise OptionError(f"choose 1 to {most} ways of those in the list")
        return list(dict.fromkeys(chosen))

    def _way(self, options: Options, way: str) -> tuple[Options, SelfCascade]:
        own = way_options(options, way)
        return own, self._tuned_cascade() if own.method == TUNED else self.cascade

    def read_picture(self, file: Path, name: str) -> Image.Image:
        """Reads an uploaded picture, with the same limits as `selfcascade upscale`.

        Raises:
            ValueError: The file is not a picture, is damaged, or is too large.
        """
        if file.stat().st_size > self.limits.upload_bytes:
            raise ValueError(f"image {name!r} has over {self.limits.upload_bytes // 2**20} MiB")
        with file.open("rb") as opened:
            return decode_image(name, opened)

    def _ready(self, options: Options, cascade: SelfCascade | None = None) -> Options:
        self._check_prompt(options)
        return completed(cascade or self.cascade, options)

    @staticmethod
    def _check_prompt(options: Options) -> None:
        if not options.prompt.strip():
            raise OptionError("{prompt} must not be empty")

    def _checked(
        self, cascade: SelfCascade, options: Options, stages: tuple[Stage, ...] | None = None
    ) -> list[StageCost]:
        from selfcascade.cost.plan import StageCost, estimate_call

        if stages is None:
            stages = cascade.plan(**options.keywords("plan"))
            if options.method == DIRECT:
                stages = (replace(stages[0], count=1, size=stages[-1].size),)
        # Sizes and steps are checked first, since counting a huge plan is slow.
        self.limits.check(cascade, [StageCost(stage, 0) for stage in stages], options.num_frames)
        costs = estimate_call(cascade, stages, options)
        self.limits.check(cascade, costs, options.num_frames)
        return costs

    def _check_same_base(self, options: Options, sample: BaseSample) -> None:
        def base(of: Options) -> tuple[object, ...]:
            stage: Stage = self.cascade.plan(**of.keywords("plan"))[0]
            return of.prompt, of.negative_prompt, *(getattr(stage, name) for name in STAGE_KEY)

        if base(options) != base(sample.options):
            words = "prompt, ratio, steps or guidance are not those of the base samples any more"
            raise OptionError(f"{words}; make base samples again, or set them back")

    def _tuned_cascade(self) -> SelfCascade:
        from selfcascade import SelfCascade
        from selfcascade.models import bundled_upsamplers, load_upsamplers

        if self._tuned is None:
            upsamplers = load_upsamplers(bundled_upsamplers()[0])
            self._tuned = SelfCascade(self.cascade.pipe, upsamplers, self.base.native_size)
        return self._tuned

    def _result(self, cascade: SelfCascade, made: Made, name: str) -> Result:
        finished = made.latents[:-1]
        shown = [decoded(cascade, latents) for latents in finished] + ([] if made.interrupted else [made.image])
        stages = [(image, caption(entry)) for image, entry in zip(shown, made.stages, strict=False)]
        if made.interrupted:
            return Result(made, stages, None)
        path = self.output / f"{name}-{made.options.seed}.{'png' if made.frames is None else 'mp4'}"
        if made.frames is None:
            saved, _ = save_picture(made.image, made.record(), path, made.parameters())
        else:
            saved, _ = save_clip(made.frames, made.options.fps or 8.0, made.record(), path, made.parameters())
        return Result(made, stages, saved)
