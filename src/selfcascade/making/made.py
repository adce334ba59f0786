"""Makes pictures or clips with their records from options, one or several at a time."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfcascade.loading.training_steps import check_pivot_step
from selfcascade.making.model_defaults import default_frames, default_guidance
from selfcascade.making.other_libraries import quiet_libraries
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.images import pixels_sha256
from selfcascade.media.save_clips import clip_sha256
from selfcascade.media.save_pictures import SCHEMA, parameters_text, versions
from selfcascade.options import Options
from selfcascade.options.presets import preset_named

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.pipeline import SelfCascade

KIND, CLIP_KIND = "selfcascade.picture", "selfcascade.clip"
TUNED = "self-cascade-tuned"
# What a preset says that is no option of a call, so that a record holds it in its result.
BESIDE_OPTIONS = ("step_share", "guided")
OF_CLIPS = ("num_frames", "fps", "start", "shared_noise")
OF_THE_CASCADE = ("native_size", "num_frames", "upsamplers")


@dataclass(frozen=True)
class Made:
    """A picture or clip with the options that made it, all defaults filled in, and what its stages did.

    Attributes:
        image: The picture, or a clip's first frame.
        seconds: Time it took; for several made together, the time for all of them.
        frames: Number of frames in a clip; None for a picture.
        flagged: Whether the model's safety checker has blacked it out.
        latents: z_0 of each stage, for this picture only.
        interrupted: Whether a callback stopped the model before its last step.
    """

    image: Image.Image
    options: Options
    stages: list[dict[str, Any]]
    seconds: float
    sampler: str
    frames: list[Image.Image] | None = None
    flagged: bool = False
    latents: Sequence[Any] = ()
    interrupted: bool = False

    def record(self) -> dict[str, Any]:
        """The content of the sidecar file, as JSON."""
        clip = {} if self.frames is None else {"frames": len(self.frames), "fps": self.options.fps}
        result = {
            "sha256": pixels_sha256(self.image) if self.frames is None else clip_sha256(self.frames),
            **clip,
            "height": self.image.height,
            "width": self.image.width,
            "seconds": self.seconds,
            "stages": self.stages,
        }
        if self.options.preset is not None:
            preset = preset_named(self.options.preset)
            result["preset"] = {name: getattr(preset, name) for name in BESIDE_OPTIONS}
        settings = self.options.as_record()
        kind = KIND if self.frames is None else CLIP_KIND
        return {"schema": SCHEMA, "kind": kind, "settings": settings, "result": result, "versions": versions()}

    def parameters(self) -> str:
        """The `parameters` text of a PNG, in the form that other tools read."""
        options, pivots = self.options, _each(self.options.pivot_step)
        sizes = " ".join(f"{stage['width']}x{stage['height']}" for stage in self.stages)
        fields = {
            "Steps": _each(options.num_inference_steps),
            "Sampler": self.sampler,
            "CFG scale": _each(options.guidance_scale),
            "Seed": options.seed,
            "Size": f"{self.image.width}x{self.image.height}",
            "Frames": options.num_frames,
            "FPS": None if options.fps is None else f"{options.fps:g}",
            "Model": options.model,
            "Method": options.method,
            "Upsamplers": options.upsamplers if options.method == TUNED else None,
            "Hires upscaler": (options.pivot_upscaler or options.upsampling) if pivots else None,
            "Hires stages": sizes if pivots else None,
            "Hires pivot steps": pivots,
            "Hires prompt": _each(options.stage_prompt),
            "Hires negative prompt": _each(options.stage_negative_prompt),
            "Hires sampler": _each(options.stage_scheduler),
            "Shared noise": options.shared_noise,
            "Version": f"selfcascade {versions()['selfcascade']}",
        }
        return parameters_text(options.prompt, options.negative_prompt, fields)


def load(options: Options, video: bool = False) -> tuple[SelfCascade, Options]:
    """Loads the options' model, and fills in the model's defaults.

    Args:
        options: The options as given.
        video: Whether a video model is accepted.

    Raises:
        ValueError: The model does not exist, or makes video where pictures are asked for.
    """
    cascade, options = load_cascade(options)
    if cascade.family.video and not video:
        raise ValueError(f"model {options.model!r} makes video, and this command makes pictures; use `generate`")
    return cascade, completed(cascade, options)


def load_cascade(options: Options) -> tuple[SelfCascade, Options]:
    """Loads the options' model, and adds the name of its upsamplers to the options."""
    from selfcascade.models import find_folder, load_equipped, load_upsamplers

    if options.pivot_step is not None:
        check_pivot_step(options.pivot_step, find_folder(options.model))
    from selfcascade import SelfCascade

    quiet_libraries()
    name = upsamplers_of(options) if options.method == TUNED or options.upsamplers is not None else None
    upsamplers = None if name is None else load_upsamplers(name)  # they are small, and the model may not be
    pipe, options = load_equipped(options)
    pipe.set_progress_bar_config(disable=True)
    return SelfCascade(pipe, upsamplers, options.native_size), options.changed(upsamplers=name)


def completed(cascade: SelfCascade, options: Options) -> Options:
    """The options with the model's defaults filled in, checked as far as possible without running a step.

    Raises:
        OptionError: The model cannot do what the options ask for.
    """
    from selfcascade.pipeline.calls import check_clips

    pipe, own = cascade.pipe, cascade.defaults
    guidance = default_guidance(pipe) if own.guidance_scale is None else own.guidance_scale
    options = options.changed(
        num_inference_steps=options.num_inference_steps or own.num_inference_steps,
        guidance_scale=guidance if options.guidance_scale is None else options.guidance_scale,
        device=str(pipe._execution_device),
        dtype=str(pipe.dtype).removeprefix("torch."),
    )
    if cascade.family.video and options.image is None:
        options = options.changed(num_frames=options.num_frames or default_frames(pipe), fps=options.fps or DEFAULT_FPS)
        check_clips(cascade.family, options.num_frames, options.shared_noise or 0.0)
    if options.image is None:
        size = cascade.plan(**options.keywords("plan"))[-1].size  # refuses bad sizes before the first step
        options = options.changed(height=size.height, width=size.width, scale=None, pixels=None)
    return options


def upsamplers_of(options: Options) -> str | None:
    """The tuned version's upsamplers: the given ones, or the bundled model's best."""
    from selfcascade.models import BUNDLED_MODELS, bundled_upsamplers

    if options.upsamplers is None and options.model in BUNDLED_MODELS:
        return next(iter(bundled_upsamplers()), None)
    return options.upsamplers


def has_preset(options: Options) -> bool:
    """Whether a preset applies; other methods than the cascades have their own settings."""
    return options.method in ("self-cascade", "self-cascade-tuned") or bool(options.in_cascade)


def make(
    cascade: SelfCascade,
    options: Options,
    source: Any = None,
    callback: Callable[..., dict[str, Any]] | None = None,
) -> Made:
    """Makes one picture or clip; the result does not depend on what was made before.

    Args:
        cascade: Model from `load`.
        options: Options from `load`.
        source: For options with an image, the result of `cli.sources.source_for`.
        callback: Called after each step, like diffusers' `callback_on_step_end`.

    With a `pivot`, and the `generator` that its stage has left, this is what one call from the seed on makes.
    """
    return _make(cascade, [options], source, callback)[0]


def make_together(cascade: SelfCascade, group: Sequence[Options]) -> list[Made]:
    """Makes several pictures or clips, in one call of the pipeline where it can (`made_alike`).

    Nearly all pixels differ by less than one 8-bit step from those of a picture made alone, because sums are computed
    in another order for another batch size.

    Args:
        cascade: Model from `load`.
        group: Options from `completed` that differ in prompts and seeds only; all or none have a negative prompt.
    """
    from selfcascade.base_models.global_draws import made_alike

    return made_alike(cascade.pipe, group, lambda part: _make(cascade, part, None, None))


def _make(
    cascade: SelfCascade, group: Sequence[Options], source: Any, callback: Callable[..., dict[str, Any]] | None
) -> list[Made]:
    from selfcascade import METHODS
    from selfcascade.loading.execution import computing

    began, first = time.perf_counter(), group[0]
    arguments = _arguments(cascade, group, callback)
    prompt: Any = first.prompt if len(group) == 1 else [options.prompt for options in group]
    arguments |= {"upsamplers": cascade.upsamplers} if source is None and first.method == TUNED else {}
    with computing(first, str(cascade.pipe._execution_device)):
        if source is not None:
            output = cascade.upscale(source, prompt, **arguments)
        else:
            output = METHODS[first.method](cascade.pipe, prompt, **arguments)
    seconds = round(time.perf_counter() - began, 3)
    stages = [
        {
            "height": result.size.height,
            "width": result.size.width,
            "pivot_step": result.pivot_step,
            "steps": result.steps,
            "seconds": round(result.seconds, 3),
        }
        for result in output.stages
    ]
    sampler = type(cascade.pipe.scheduler).__name__.removesuffix("Scheduler")
    flagged = output.nsfw_content_detected or [False] * len(group)
    made = []
    for index, options in enumerate(group):
        frames = output.frames[index] if cascade.family.video else None
        image = output.images[index] if frames is None else frames[0]
        used = _used(cascade, options, output, image, frames)
        latents = [result.latents[index : index + 1] for result in output.stages]
        struck = bool(flagged[index])
        made.append(Made(image, used, stages, seconds, sampler, frames, struck, latents, output.interrupted))
    return made


def _used(cascade: SelfCascade, options: Options, output: Any, image: Any, frames: Any) -> Options:
    """The options, with the values that the stages used."""
    settings = output.pivot_settings
    pivots = tuple(result.pivot_step for result in output.stages if result.pivot_step is not None)
    return options.changed(
        preset=options.preset or (cascade.default_preset_of(options) if has_preset(options) else None),
        height=image.height,
        width=image.width,
        scale=None,
        pixels=None,
        pivot_step=pivots or None,
        strength=None,
        upsampling=None if settings is None else settings.upsampling,
        num_frames=None if frames is None else len(frames),
        anchor=None if settings is None else settings.anchor,
        energy=None if settings is None else settings.energy,
        attention=None if settings is None else settings.attention,
    )


def _arguments(
    cascade: SelfCascade, group: Sequence[Options], callback: Callable[..., dict[str, Any]] | None
) -> dict[str, Any]:
    import torch

    from selfcascade.pipeline.named_upscalers import held_for

    arguments: dict[str, Any] = group[0].keywords()
    if isinstance(name := group[0].pivot_upscaler, str):  # loaded once for all pictures
        arguments["pivot_upscaler"] = held_for(cascade.family, name)
    if group[0].image is not None:  # the clip has its own length, and the cascade has the rest
        arguments = {name: value for name, value in arguments.items() if name not in OF_THE_CASCADE}
    # Drawn on the CPU, so that a seed means the same noise on every device.
    generators = [torch.Generator("cpu").manual_seed(options.seed) for options in group]
    arguments["generator"] = generators if len(group) > 1 else group[0].generator or generators[0]
    if len(group) > 1 and group[0].negative_prompt is not None:
        arguments["negative_prompt"] = [options.negative_prompt for options in group]
    # ModelScope's pipeline is older than this callback: no bar there.
    if callback is not None and "callback_on_step_end" in inspect.signature(cascade.pipe.__call__).parameters:
        arguments["callback_on_step_end"] = callback
    return {**arguments, **steering(cascade, group[0])}


def steering(cascade: SelfCascade, options: Options) -> dict[str, Any]:
    """Keywords for the pipeline's call: the pictures that the options show to a ControlNet or an IP-Adapter."""
    from selfcascade.loading.additions import call_keywords

    return call_keywords(cascade.pipe, options)


def _each(value: Any) -> str | None:
    """A value, or several stages' values, in the form that other tools read."""
    return None if value is None else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
