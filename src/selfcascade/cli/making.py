"""From settings to a picture or clip and its record; what `generate`, `upscale` and `compare` share."""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selfcascade.cli.console import note, stage_progress
from selfcascade.cli.settings import CLIP_KIND, FINE_TUNED, KIND, TUNED, WITH_WEIGHTS, Settings
from selfcascade.media.images import pixels_sha256
from selfcascade.media.save_clips import clip_sha256
from selfcascade.media.save_pictures import SCHEMA, parameters_text, versions

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.pipeline import SelfCascade

FPS = 8.0  # AnimateDiff's and ModelScope's own


@dataclass(frozen=True)
class Made:
    """A picture, the settings it was made with (nothing left to defaults), and what its stages did.

    Attributes:
        image: The picture, or a clip's first frame.
        frames: Of a clip; None for a picture.
    """

    image: Image.Image
    settings: Settings
    stages: list[dict[str, Any]]
    seconds: float
    sampler: str
    frames: list[Image.Image] | None = None

    def record(self) -> dict[str, Any]:
        """What the sidecar holds."""
        clip = {} if self.frames is None else {"frames": len(self.frames), "fps": self.settings.fps}
        result = {
            "sha256": pixels_sha256(self.image) if self.frames is None else clip_sha256(self.frames),
            **clip,
            "height": self.image.height,
            "width": self.image.width,
            "seconds": self.seconds,
            "stages": self.stages,
        }
        settings = self.settings.as_record()
        kind = KIND if self.frames is None else CLIP_KIND
        return {"schema": SCHEMA, "kind": kind, "settings": settings, "result": result, "versions": versions()}

    def parameters(self) -> str:
        """What other tools read."""
        settings, pivots = self.settings, self.settings.pivot_step or ()
        fields = {
            "Steps": settings.num_inference_steps,
            "Sampler": self.sampler,
            "CFG scale": settings.guidance_scale,
            "Seed": settings.seed,
            "Size": f"{self.image.width}x{self.image.height}",
            "Frames": settings.frames,
            "FPS": None if settings.fps is None else f"{settings.fps:g}",
            "Model": settings.model,
            "Method": settings.method,
            "Upsamplers": settings.upsamplers if settings.method == TUNED else None,
            "Hires upscaler": settings.upsampling if pivots else None,
            "Hires stages": " ".join(f"{stage['width']}x{stage['height']}" for stage in self.stages)
            if pivots
            else None,
            "Hires pivot steps": " ".join(map(str, pivots)) if pivots else None,
            "Shared noise": settings.shared_noise,
            "Version": f"selfcascade {versions()['selfcascade']}",
        }
        return parameters_text(settings.prompt, settings.negative_prompt, fields)


def check_names(settings: Settings) -> None:
    """Checks what the registries know, still without a model.

    Raises:
        ValueError: There is no such method, preset or upsampling.
    """
    from selfcascade import METHODS, PRESETS
    from selfcascade.base_models.driver import UPSAMPLINGS

    known = {"method": tuple(METHODS), "preset": tuple(PRESETS), "upsampling": UPSAMPLINGS}
    for name, names in known.items():
        value = getattr(settings, name)
        if value is not None and value not in names:
            raise ValueError(f"{name} must be one of {', '.join(names)}, not {value!r}")


def load(settings: Settings, video: bool = False) -> tuple[SelfCascade, Settings]:
    """The settings' model, ready to run, and the settings with the model's defaults filled in.

    Args:
        settings: As given.
        video: Whether a model that makes video will do.

    Raises:
        ValueError: There is no such model, or it makes no pictures.
    """
    from selfcascade import SelfCascade, load_model
    from selfcascade.arguments import check_clips
    from selfcascade.models import load_upsamplers

    quiet_libraries()
    pipe = load_model(settings.model, settings.device, settings.dtype)
    pipe.set_progress_bar_config(disable=True)
    name = upsamplers_of(settings) if settings.method == TUNED or settings.upsamplers is not None else None
    upsamplers = None if name is None else load_upsamplers(name)
    settings = settings.changed(upsamplers=name)
    cascade = SelfCascade(pipe, upsamplers, settings.native_size)
    if cascade.family.video and not video:
        raise ValueError(f"model {settings.model!r} makes video, and this command makes pictures; use `generate`")
    own = cascade.defaults
    guidance = _default_guidance(pipe) if own.guidance_scale is None else own.guidance_scale
    settings = settings.changed(
        num_inference_steps=settings.num_inference_steps or own.num_inference_steps,
        guidance_scale=guidance if settings.guidance_scale is None else settings.guidance_scale,
        device=str(pipe.device),
        dtype=str(pipe.dtype).removeprefix("torch."),
    )
    if cascade.family.video and settings.image is None:
        settings = settings.changed(frames=settings.frames or _default_frames(pipe), fps=settings.fps or FPS)
        check_clips(cascade.family, settings.frames, settings.shared_noise or 0.0)
    if settings.image is None:
        height, width = (2 * side for side in cascade.native_size)
        settings = settings.changed(height=settings.height or height, width=settings.width or width)
        cascade.plan(**plan_arguments(settings))  # refuses bad sizes before the first step
    return cascade, settings


def upsamplers_of(settings: Settings) -> str | None:
    """The upsamplers that the tuned version takes: those given, or the bundled models' best."""
    from selfcascade.models import BUNDLED_MODELS, bundled_upsamplers

    if settings.upsamplers is None and settings.model in BUNDLED_MODELS:
        return next(iter(bundled_upsamplers()), None)
    return settings.upsamplers


def make(cascade: SelfCascade, settings: Settings, source: Any = None) -> Made:
    """One picture or clip: the same whatever was made before it.

    Args:
        cascade: From `load`.
        settings: From `load`.
        source: For settings with an image, what `source_for` gave.
    """
    from selfcascade import METHODS

    began = time.perf_counter()
    output: Any
    with stage_progress() as callback:
        arguments = _arguments(cascade, settings, callback)
        if source is not None:
            size = {"height": settings.height, "width": settings.width}
            output = cascade.upscale(source, settings.prompt, **size, **arguments)
        else:
            size = {"height": settings.height, "width": settings.width, "native_size": settings.native_size}
            tuned: dict[str, Any] = {"upsamplers": cascade.upsamplers} if settings.method == TUNED else {}
            if settings.method in WITH_WEIGHTS:
                tuned = {"weights": settings.weights}
            if settings.method in FINE_TUNED:
                tuned["in_cascade"] = settings.in_cascade
            output = METHODS[settings.method](cascade.pipe, settings.prompt, **size, **tuned, **arguments)
    seconds = time.perf_counter() - began
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        note("the model's own safety checker has blacked this picture out")
    frames = output.frames[0] if cascade.family.video else None
    image = output.images[0] if frames is None else frames[0]
    results = getattr(output, "stages", ())  # a method may know no stages
    pivots = tuple(result.pivot_step for result in results if result.pivot_step is not None)
    pivot_settings = getattr(output, "pivot_settings", None)
    settings = settings.changed(
        preset=settings.preset or (cascade.default_preset if settings.by_preset else None),
        height=image.height,
        width=image.width,
        pivot_step=pivots or None,
        upsampling=None if pivot_settings is None else pivot_settings.upsampling,
        frames=None if frames is None else len(frames),
        anchor=None if pivot_settings is None else pivot_settings.anchor,
        energy=None if pivot_settings is None else pivot_settings.energy,
    )
    stages = [
        {
            "height": result.size.height,
            "width": result.size.width,
            "pivot_step": result.pivot_step,
            "steps": result.steps,
            "seconds": round(result.seconds, 3),
        }
        for result in results
    ]
    sampler = type(cascade.pipe.scheduler).__name__.removesuffix("Scheduler")
    return Made(image, settings, stages, round(seconds, 3), sampler, frames)


def plan_arguments(settings: Settings) -> dict[str, Any]:
    """What `SelfCascade.plan` takes."""
    pivots = settings.pivot_step
    return {
        "height": settings.height,
        "width": settings.width,
        "num_inference_steps": settings.num_inference_steps,
        "pivot_step": pivots[0] if pivots and len(pivots) == 1 else pivots,
        "preset": settings.preset,
        "guidance_scale": settings.guidance_scale,
    }


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
    cascade: SelfCascade, settings: Settings, callback: Callable[..., dict[str, Any]] | None
) -> dict[str, Any]:
    import torch

    arguments = plan_arguments(settings)
    del arguments["height"], arguments["width"]
    # Drawn on the CPU, so that a seed means the same noise on every device.
    arguments["generator"] = torch.Generator("cpu").manual_seed(settings.seed)
    arguments |= {"upsampling": settings.upsampling, "anchor": settings.anchor, "energy": settings.energy}
    if settings.upsampler_scale is not None:
        arguments["upsampler_scale"] = settings.upsampler_scale
    if settings.negative_prompt is not None:
        arguments["negative_prompt"] = settings.negative_prompt
    if settings.shared_noise is not None:
        arguments["shared_noise"] = settings.shared_noise
    if settings.frames is not None and settings.image is None:
        arguments["num_frames"] = settings.frames
    # ModelScope's pipeline is older than this callback: no bar there.
    if callback is not None and "callback_on_step_end" in inspect.signature(cascade.pipe.__call__).parameters:
        arguments["callback_on_step_end"] = callback
    return arguments


def _default_frames(pipe: Any) -> int | None:
    parameter = inspect.signature(pipe.__call__).parameters.get("num_frames")
    if parameter is not None and isinstance(parameter.default, int):
        return parameter.default
    return getattr(getattr(pipe, "transformer", None), "config", {}).get("sample_frames")


def _default_guidance(pipe: Any) -> float | None:
    parameter = inspect.signature(pipe.__call__).parameters.get("guidance_scale")
    return parameter.default if parameter is not None and isinstance(parameter.default, (int, float)) else None
