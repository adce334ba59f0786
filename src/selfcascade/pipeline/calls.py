"""The arguments of a call of `SelfCascade`, checked before anything runs, and its result."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_overloads

import torch
from torch import Tensor

from selfcascade.base_models.driver import PipelineSample
from selfcascade.base_models.family import Family
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.request import Request
from selfcascade.base_models.saving_memory import WHOLE, Saving
from selfcascade.cascade import Stage, StageResult
from selfcascade.options import Options, uses
from selfcascade.options.checks import OptionError, is_whole, nearest, shown
from selfcascade.options.presets import Preset

Function = TypeVar("Function", bound=Callable[..., Any])
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Pipeline keywords that would change what a stage's latents mean, and what to use instead.
REPLACED = {
    "latents": "stages make their own; use pivot, or upscale(image)",
    "denoise_strength": "stages start at a noise level; use pivot_step",
    "noise_scale": "stages start at a noise level; use pivot_step",
    "max_area": "stages say their own size; use height and width",
    "denoising_start": "stages start at a noise level; use pivot_step",
    "denoising_end": "a stage hands on clean latents; give the result to a refiner as its image instead",
}

FOR_PIVOTS = (
    "shared_noise",
    "stage_prompt",
    "stage_negative_prompt",
    "stage_scheduler",
    "stage_lora_scale",
    "pivot_upscaler",
)


@dataclass
class SelfCascadeOutput:
    """The result of a cascade.

    Attributes:
        images: Pictures in the requested `output_type`; None for video.
        frames: Clips in the requested `output_type`; None for pictures.
        stages: Size, pivot_step, steps, seconds and latents of each stage.
        interrupted: Whether the caller stopped it; the pictures are then from the last stage that ran.
        nsfw_content_detected: The safety checker's result for each picture; None if the pipeline reports none.
        pivot_settings: How pivots were enlarged and used; None if no stage had one.
        saving: The parts in which the call ran to fit into its `max_memory`.
    """

    images: Any
    frames: Any
    stages: list[StageResult[PipelineSample]]
    interrupted: bool = False
    nsfw_content_detected: list[bool] | None = None
    pivot_settings: PivotSettings | None = None
    saving: Saving = WHOLE

    def __getitem__(self, key: int | str) -> Any:
        """Access as in diffusers' outputs: 0 for the pictures or clips, or the name of an attribute."""
        return (
            getattr(self, key)
            if isinstance(key, str)
            else (self.frames if self.images is None else self.images, self.stages)[key]
        )


def read_call(family: Family, call: str, given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Splits a call's keywords into options of `SelfCascade` and keywords of the pipeline.

    Args:
        family: The pipeline's family; its own keyword for the number of frames is returned as `num_frames`.
        call: "plan", "__call__" or "upscale".
        given: All keywords of the call.

    Raises:
        OptionError: A keyword is unknown to both, or a value is out of range.
    """
    ours = {name for name, use in uses().items() if call in use.calls}
    pipe, frames_name = family.pipe, family.frames_name
    theirs: set[str] = set() if call == "plan" else keywords_of(pipe) - ours
    if frames_name in theirs and frames_name != "num_frames":
        theirs.add("num_frames")
        if {frames_name, "num_frames"} <= given.keys():
            raise OptionError(f"{{num_frames}} and {frames_name} are the same for {family.name}; give one of them")
        given = {("num_frames" if name == frames_name else name): value for name, value in given.items()}
    for name in given:
        if name in REPLACED:
            raise OptionError(f"{{{name}}} cannot be given: {REPLACED[name]}")
        if name not in ours | theirs:
            short = {str(use.flag).lstrip("-"): option for option, use in uses().items() if option in ours}
            hint = f"; did you mean {short[name]}?" if name in short else nearest(name, ours | theirs)
            raise OptionError(f"{{{name}}} is a keyword of neither SelfCascade nor {type(pipe).__name__}{hint}")
    options = Options(**{name: value for name, value in given.items() if name in ours})
    return options, {name: value for name, value in given.items() if name in theirs}


def signed_as_overloaded(function: Function) -> Function:
    """The function with the signature of its first overload, which names all keywords, for `help`."""
    vars(function)["__signature__"] = inspect.signature(get_overloads(function)[0])
    return function


def keywords_of(pipe: Pipeline) -> set[str]:
    """Keywords in the signature of a pipeline's call, and in the base classes' calls that it passes them on to."""
    calls = [kind.__call__ for kind in type(pipe).__mro__ if "__call__" in vars(kind)]
    found = [parameter for call in calls for parameter in inspect.signature(call).parameters.values()]
    return {parameter.name for parameter in found if parameter.kind in NAMED}


def is_finite(value: object) -> bool:
    """Whether all values of a tensor, or of the tensors in a list, are finite."""
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, cast("Sequence[object]", value)))
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


def check_call(request: Request, scale: float, tuned: bool) -> None:
    """Raises ValueError, naming the argument, if a call's arguments cannot be used.

    Args:
        request: The call's arguments for the pipeline.
        scale: The call's `upsampler_scale`.
        tuned: Whether the cascade has upsamplers.
    """
    arguments = request.arguments
    if request.prompt == []:
        raise OptionError("{prompt} is an empty list; give at least one prompt")
    texts: dict[str, object] = {"prompt": request.prompt, "negative_prompt": arguments.get("negative_prompt")}
    for name, value in texts.items():
        found = shown(value)
        each = cast("list[object]", value) if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str) for one in each):
            raise OptionError(f"{{{name}}} must be text or a list of texts, not {{found}}", found=found)
    negative = texts["negative_prompt"]
    count = len(cast("list[object]", negative)) if isinstance(negative, list) else request.prompts
    if count != request.prompts:
        raise OptionError(f"{{negative_prompt}} has {count} texts, and there are {request.prompts} prompts")
    for name, value in arguments.items():
        if not is_finite(value):
            raise ValueError(f"{name} has values that are not finite")
    for name in ("num_images_per_prompt", "num_videos_per_prompt", "decode_chunk_size"):
        if not is_whole(arguments.get(name, 1)):
            raise ValueError(f"{name} must be a positive whole number, not {arguments[name]!r}")
    results, generator = request.prompts * request.copies, request.generator
    if isinstance(generator, list) and len(generator) != results:
        raise ValueError(f"generator has {len(generator)} entries, and there are {results} results")
    if not tuned and scale != 1:
        raise OptionError("{upsampler_scale} is for the tuned version; give {upsamplers}, or leave it out")


def check_clips(family: Family, frames: int | None, shared_noise: float) -> None:
    """Raises ValueError, naming the argument, if the model cannot make such clips.

    Args:
        family: The model's family.
        frames: The call's `num_frames`; None means the pipeline's default.
        shared_noise: Share of the noise that frames have in common; see `SelfCascade.__call__`.
    """
    Options(shared_noise=shared_noise, num_frames=frames)
    if not family.video:
        if shared_noise:
            raise OptionError(f"{{shared_noise}} is for frames of video, and {family.name} makes pictures")
        return
    if frames is None:
        return
    most, each, only = family.most_frames, family.frame_step, family.only_frames
    if only not in (None, frames):
        raise OptionError(f"{{num_frames}} must be {only}, the length that {family.name} is made for, not {frames}")
    if most is not None and frames > most:
        raise OptionError(
            f"{{num_frames}} must be at most {most}, where the motion adapter's positions end, not {frames}"
        )
    if (frames - 1) % each:
        near = (2 * (frames - 1) + each) // (2 * each) * each + 1  # of two the longer
        raise OptionError(
            f"{{num_frames}} must be one more than a multiple of {each} for {family.name}, not {frames}; "
            f"{near} is the nearest"
        )


def check_has_pivot(options: Options, stages: Sequence[Stage]) -> None:
    """Raises OptionError if an option for stages with a pivot is given, but there are none."""
    if stages[-1].pivot_step is not None:
        return
    for name in FOR_PIVOTS:
        value = getattr(options, name)
        if value not in (None, 0.0):
            words = f"is for stages above the base, and {stages[-1].size} has none"
            raise OptionError(f"{{{name}}}, here {{found}}, {words}", found=shown(value))


def warn_of_negative_prompt(preset: Preset, options: Options, request: Request, stages: Sequence[Stage]) -> None:
    """Warns that a preset's stages without guidance ignore the negative prompt."""
    ignored = any(stage.pivot_step is not None and stage.guidance_scale == 1 for stage in stages)
    if ignored and not preset.guided and options.guidance_scale != 1 and request.arguments.get("negative_prompt"):
        sentence = f"preset {preset.name!r} has no guidance above the base, so negative_prompt has no effect there"
        warnings.warn(f"{sentence}; give stage_negative_prompt, or a guidance_scale for each stage", stacklevel=4)


def check_length(arguments: Mapping[str, Any], frames: int) -> None:
    """Raises ValueError if keywords of the pipeline ask for a length other than the clip's, or for several copies."""
    if arguments.get("num_frames", frames) != frames:
        raise OptionError(f"{{num_frames}} is the clip's, {frames}, not {arguments['num_frames']!r}; leave it out")
    for name in ("num_videos_per_prompt", "num_images_per_prompt"):  # some pipelines take it, and others pass over it
        if arguments.get(name, 1) != 1:
            raise ValueError(f"{name} cannot be given with a clip; give a list with the clip in it twice")
