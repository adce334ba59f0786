"""From options to a picture or clip and its record; what `generate`, `upscale` and `compare` share."""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfcascade.cli.console import note, stage_progress
from selfcascade.cli.records import CLIP_KIND, KIND, TUNED, has_preset
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.images import pixels_sha256
from selfcascade.media.save_clips import clip_sha256
from selfcascade.media.save_pictures import SCHEMA, parameters_text, versions
from selfcascade.options import Options

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.pipeline import SelfCascade

OF_THE_CASCADE = ("native_size", "num_frames", "upsamplers")


@dataclass(frozen=True)
class Made:
    """A picture, the options it was made with (nothing left to defaults), and what its stages did.

    Attributes:
        image: The picture, or a clip's first frame.
        frames: Number of frames in a clip; None for a picture.
    """

    image: Image.Image
    options: Options
    stages: list[dict[str, Any]]
    seconds: float
    sampler: str
    frames: list[Image.Image] | None = None

    def record(self) -> dict[str, Any]:
        """What the sidecar holds."""
        clip = {} if self.frames is None else {"frames": len(self.frames), "fps": self.options.fps}
        result = {
            "sha256": pixels_sha256(self.image) if self.frames is None else clip_sha256(self.frames),
            **clip,
            "height": self.image.height,
            "width": self.image.width,
            "seconds": self.seconds,
            "stages": self.stages,
        }
        settings = self.options.as_record()
        kind = KIND if self.frames is None else CLIP_KIND
        return {"schema": SCHEMA, "kind": kind, "settings": settings, "result": result, "versions": versions()}

    def parameters(self) -> str:
        """What other tools read."""
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
            "Hires upscaler": options.upsampling if pivots else None,
            "Hires stages": sizes if pivots else None,
            "Hires pivot steps": pivots,
            "Shared noise": options.shared_noise,
            "Version": f"selfcascade {versions()['selfcascade']}",
        }
        return parameters_text(options.prompt, options.negative_prompt, fields)


def load(options: Options, video: bool = False) -> tuple[SelfCascade, Options]:
    """The options' model, ready to run, and the options with the model's defaults filled in.

    Args:
        options: As given.
        video: Whether a model that makes video will do.

    Raises:
        ValueError: There is no such model, or it makes no pictures.
    """
    from selfcascade import SelfCascade, load_model
    from selfcascade.models import load_upsamplers
    from selfcascade.pipeline.calls import check_clips

    quiet_libraries()
    pipe = load_model(options.model, options.device, options.dtype)
    pipe.set_progress_bar_config(disable=True)
    name = upsamplers_of(options) if options.method == TUNED or options.upsamplers is not None else None
    upsamplers = None if name is None else load_upsamplers(name)
    options = options.changed(upsamplers=name)
    cascade = SelfCascade(pipe, upsamplers, options.native_size)
    if cascade.family.video and not video:
        raise ValueError(f"model {options.model!r} makes video, and this command makes pictures; use `generate`")
    own = cascade.defaults
    guidance = _default_guidance(pipe) if own.guidance_scale is None else own.guidance_scale
    options = options.changed(
        num_inference_steps=options.num_inference_steps or own.num_inference_steps,
        guidance_scale=guidance if options.guidance_scale is None else options.guidance_scale,
        device=str(pipe.device),
        dtype=str(pipe.dtype).removeprefix("torch."),
    )
    if cascade.family.video and options.image is None:
        options = options.changed(
            num_frames=options.num_frames or _default_frames(pipe), fps=options.fps or DEFAULT_FPS
        )
        check_clips(cascade.family, options.num_frames, options.shared_noise or 0.0)
    if options.image is None:
        size = cascade.plan(**options.keywords("plan"))[-1].size  # refuses bad sizes before the first step
        options = options.changed(height=size.height, width=size.width, scale=None, pixels=None)
    return cascade, options


def upsamplers_of(options: Options) -> str | None:
    """The upsamplers that the tuned version takes: those given, or the bundled models' best."""
    from selfcascade.models import BUNDLED_MODELS, bundled_upsamplers

    if options.upsamplers is None and options.model in BUNDLED_MODELS:
        return next(iter(bundled_upsamplers()), None)
    return options.upsamplers


def make(cascade: SelfCascade, options: Options, source: Any = None) -> Made:
    """One picture or clip: the same whatever was made before it.

    Args:
        cascade: From `load`.
        options: From `load`.
        source: For options with an image, what `source_for` gave.
    """
    from selfcascade import METHODS

    began = time.perf_counter()
    with stage_progress() as callback:
        arguments = _arguments(cascade, options, callback)
        if source is not None:
            output = cascade.upscale(source, options.prompt, **arguments)
        else:
            arguments |= {"upsamplers": cascade.upsamplers} if options.method == TUNED else {}
            output = METHODS[options.method](cascade.pipe, options.prompt, **arguments)
    seconds = time.perf_counter() - began
    if any(output.nsfw_content_detected or ()):
        note("the model's own safety checker has blacked this picture out")
    frames = output.frames[0] if cascade.family.video else None
    image = output.images[0] if frames is None else frames[0]
    pivots = tuple(result.pivot_step for result in output.stages if result.pivot_step is not None)
    settings = output.pivot_settings
    options = options.changed(
        preset=options.preset or (cascade.default_preset if has_preset(options) else None),
        height=image.height,
        width=image.width,
        scale=None,
        pixels=None,
        pivot_step=pivots or None,
        upsampling=None if settings is None else settings.upsampling,
        num_frames=None if frames is None else len(frames),
        anchor=None if settings is None else settings.anchor,
        energy=None if settings is None else settings.energy,
        attention=None if settings is None else settings.attention,
    )
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
    return Made(image, options, stages, round(seconds, 3), sampler, frames)


def quiet_libraries() -> None:
    """Turns off the libraries' own progress bars and remarks, which would end up between ours."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


def _arguments(
    cascade: SelfCascade, options: Options, callback: Callable[..., dict[str, Any]] | None
) -> dict[str, Any]:
    import torch

    arguments: dict[str, Any] = options.keywords()
    if options.image is not None:  # the clip has its own length, and the cascade has the rest
        arguments = {name: value for name, value in arguments.items() if name not in OF_THE_CASCADE}
    # Drawn on the CPU, so that a seed means the same noise on every device.
    arguments["generator"] = torch.Generator("cpu").manual_seed(options.seed)
    # ModelScope's pipeline is older than this callback: no bar there.
    if callback is not None and "callback_on_step_end" in inspect.signature(cascade.pipe.__call__).parameters:
        arguments["callback_on_step_end"] = callback
    return arguments


def _each(value: Any) -> str | None:
    """A value, or those of several stages, as other tools read them."""
    return None if value is None else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _default_frames(pipe: Any) -> int | None:
    parameter = inspect.signature(pipe.__call__).parameters.get("num_frames")
    if parameter is not None and isinstance(parameter.default, int):
        return parameter.default
    return getattr(getattr(pipe, "transformer", None), "config", {}).get("sample_frames")


def _default_guidance(pipe: Any) -> float | None:
    parameter = inspect.signature(pipe.__call__).parameters.get("guidance_scale")
    return parameter.default if parameter is not None and isinstance(parameter.default, (int, float)) else None
