"""What a call of `SelfCascade` is given, checked before anything runs, and what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, get_overloads

from torch import Tensor

from selfcascade.base_models.driver import PipelineSample
from selfcascade.base_models.family import Family
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.request import Request
from selfcascade.base_models.stage_scheduler import matched_step, training_steps
from selfcascade.cascade import Size, Stage, StageResult, plan_stages
from selfcascade.checks import OptionError, nearest
from selfcascade.options import Options, uses
from selfcascade.presets import PRESETS, Preset

Function = TypeVar("Function", bound=Callable[..., Any])
STEPS = 50  # where nothing else says how many
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Keywords of pipelines whose values would change what a stage's latents mean.
REPLACED = {"latents": "stages make their own; use pivot, or upscale(image)", "strength": "use pivot_step"}


@dataclass
class SelfCascadeOutput:
    """What a cascade made.

    Attributes:
        images: Pictures in the asked `output_type`; None for video.
        frames: Clips in the asked `output_type`; None for pictures.
        stages: What each stage did: size, pivot_step, steps, seconds, latents.
        interrupted: Whether the caller stopped it; the pictures are then those of the last stage that ran.
        nsfw_content_detected: As the pipeline reports it; None where it does not.
        pivot_settings: How pivots were enlarged and stages held to them; None where no stage had one.
    """

    images: Any
    frames: Any
    stages: list[StageResult[PipelineSample]]
    interrupted: bool = False
    nsfw_content_detected: list[bool] | None = None
    pivot_settings: PivotSettings | None = None


def read_call(pipe: Any, call: str, given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The options of a call of `SelfCascade`, and the keywords that are its pipeline's.

    Args:
        pipe: The pipeline.
        call: "plan", "__call__" or "upscale".
        given: All keywords of the call.

    Raises:
        OptionError: A keyword is neither ours nor in the pipeline's signature, or a value is out of range.
    """
    ours = {name for name, use in uses().items() if call in use.calls}
    theirs = set() if call == "plan" else keywords_of(pipe) - ours
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
    """The function with the signature of its first overload, which spells its keywords out, for `help` and others."""
    vars(function)["__signature__"] = inspect.signature(get_overloads(function)[0])
    return function


def keywords_of(pipe: Any) -> set[str]:
    """Names in the signature of a pipeline's call, and in those that its classes pass keywords on to."""
    calls = [kind.__call__ for kind in type(pipe).__mro__ if "__call__" in vars(kind)]
    found = [parameter for call in calls for parameter in inspect.signature(call).parameters.values()]
    return {parameter.name for parameter in found if parameter.kind in NAMED}


def is_count(value: Any) -> bool:
    """Whether it is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def per_stage(name: str, value: Any, count: int) -> list[Any]:
    """One value for each stage.

    Raises:
        ValueError: There are several values, but not one a stage.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise OptionError(f"{{{name}}} has {len(value)} values, and there are {count} stages it applies to")
    return list(value)


def with_changes(preset: Preset, options: Options) -> Preset:
    """The preset, with the options in the places of its own settings."""
    own = {field.name for field in fields(preset)} - {"name", "summary"}
    return replace(preset, **{name: value for name, value in options.keywords("plan").items() if name in own})


def planned(
    scheduler: Any, native: Size, sizes: Sequence[Size], first_pivot: int, preset: Preset, options: Options
) -> tuple[Stage, ...]:
    """The stages of a cascade, their settings checked.

    Args:
        scheduler: The pipeline's.
        native: The size that a `matched` preset's shares are meant at.
        sizes: Of the stages.
        first_pivot: Index of the first stage that starts from a pivot.
        preset: With the options in the places of its own settings.
        options: Their steps, pivot step and guidance.

    Raises:
        ValueError: A setting is out of range; the sentence names it.
    """
    limit = training_steps(scheduler)
    scaling = len(sizes) - first_pivot
    default = preset_pivots(scheduler, native, sizes[first_pivot:], preset)
    steps = STEPS if options.num_inference_steps is None else options.num_inference_steps
    pivots = per_stage("pivot_step", default if options.pivot_step is None else options.pivot_step, scaling)
    all_steps = per_stage("num_inference_steps", steps, len(sizes))
    guidance = per_stage("guidance_scale", options.guidance_scale, len(sizes))
    for name, values, most in (("pivot_step", pivots, limit), ("num_inference_steps", all_steps, limit)):
        for value in values:
            if not 1 <= value <= most:
                raise OptionError(f"{{{name}}} must be a whole number from 1 to {most}, not {value}")
    if preset.step_share < 1 and isinstance(steps, int):
        least = (-(-limit // pivot) for pivot in pivots)  # with fewer, none might lie at or below K
        all_steps[first_pivot:] = [min(steps, max(round(preset.step_share * steps), few)) for few in least]
    plan = zip(sizes, all_steps, [None] * first_pivot + pivots, guidance, strict=True)
    return tuple(Stage(index, len(sizes), *values) for index, values in enumerate(plan))


def preset_pivots(scheduler: Any, native: Size, sizes: Sequence[Size], preset: Preset) -> list[int]:
    """K of each stage with a pivot: the preset's share of T, carried to the stage's size where `matched`."""
    limit = training_steps(scheduler)
    shares = [preset.pivot_share] + [preset.later_pivot_share] * (len(sizes) - 1)
    steps = [round(share * limit) for share in shares[: len(sizes)]]
    if not preset.matched:
        return steps
    return [matched_step(scheduler, step, size.area / native.area) for step, size in zip(steps, sizes, strict=True)]


def check_call(request: Request, scale: float, tuned: bool) -> None:
    """Raises ValueError, naming the argument, if a call's settings are not acceptable.

    Args:
        request: What is asked of the pipeline.
        scale: `upsampler_scale`.
        tuned: Whether there are upsamplers.
    """
    arguments = request.arguments
    if request.prompt == []:
        raise OptionError("{prompt} is an empty list; give at least one prompt")
    for name in ("num_images_per_prompt", "num_videos_per_prompt", "decode_chunk_size"):
        if not is_count(arguments.get(name, 1)):
            raise ValueError(f"{name} must be a positive whole number, not {arguments[name]!r}")
    if not tuned and scale != 1:
        raise OptionError("{upsampler_scale} is for the tuned version; give {upsamplers}, or leave it out")


def check_clips(family: Family, frames: Any, shared_noise: Any) -> None:
    """Raises ValueError, naming the argument, if the model makes no such clips.

    Args:
        family: The model's.
        frames: `num_frames`; None is the pipeline's default.
        shared_noise: As in `SelfCascade.__call__`.
    """
    Options(shared_noise=shared_noise, num_frames=frames)
    if not family.video:
        if shared_noise:
            raise OptionError(f"{{shared_noise}} is for frames of video, and {family.name} makes pictures")
        return
    if frames is None:
        return
    most, each = family.most_frames, family.frame_step
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
    """Raises OptionError if an option is for stages with a pivot, and there is none."""
    if options.shared_noise and stages[-1].pivot_step is None:
        words = f"here {options.shared_noise}, is for stages above the base, and {stages[-1].size} has none"
        raise OptionError(f"{{shared_noise}}, {words}")


def check_length(arguments: Mapping[str, Any], frames: int) -> None:
    """Raises ValueError if keywords of the pipeline ask for another length than the clip's, or for copies."""
    if arguments.get("num_frames", frames) != frames:
        raise OptionError(f"{{num_frames}} is the clip's, {frames}, not {arguments['num_frames']!r}; leave it out")
    if arguments.get("num_videos_per_prompt", 1) != 1:  # some pipelines take it, and others pass over it
        raise ValueError("num_videos_per_prompt cannot be given with a clip; give a list with the clip in it twice")


def trained_preset(config: Mapping[str, Any], training_steps: int) -> Preset:
    """The settings that upsamplers were trained for.

    Stages after the first start no deeper in noise than in `rgb`: with the adapter's own K they make texture anew over
    outlines that are right already (docs/upsamplers.md).

    Args:
        config: Of the upsamplers.
        training_steps: T of the scheduler.
    """
    share = (config.get("sampling_pivot_step") or config["pivot_step"]) / training_steps
    later = min(share, PRESETS["rgb"].later_pivot_share)
    return Preset("upsamplers", "as the upsamplers were trained", share, later, config["upsampling"])


def target_size(native: Size, multiple: int, options: Options) -> Size:
    """The size of the options: their scale, or twice where there is none, of the native sides that they do not give.

    Args:
        native: Of the model, or of the picture that is enlarged.
        multiple: Pixels that sides are multiples of; scaled sides are rounded to them.
        options: Their height, width and scale.

    Raises:
        OptionError: A side that is given is not such a multiple.
    """
    scale = 2.0 if options.scale is None else options.scale
    sides: dict[str, int] = {}
    for name, given, own in zip(("height", "width"), (options.height, options.width), native, strict=True):
        side = max(1, round(scale * own / multiple)) * multiple if given is None else given
        if side % multiple:
            near = max(multiple, round(side / multiple) * multiple)
            raise OptionError(f"{{{name}}} must be a multiple of {multiple}, not {side}; {near} is the nearest")
        sides[name] = side
    return Size(**sides)


def sizes_from(own: Size, target: Size, native: Size, multiple: int) -> tuple[list[Size], Size]:
    """The stages' sizes above the user's own picture, and the size of the stage before them, had there been one.

    Raises:
        ValueError: The target has fewer pixels than the picture.
    """
    if target.area < own.area:
        raise ValueError(f"target {target} is smaller than the image, {own}; it must have at least its pixels")
    planned = plan_stages(native, target, multiple)
    sizes = [size for size in planned if size.area > 1.05 * own.area] or [target]
    half = Size(*(max(1, side // 2 // multiple) * multiple for side in sizes[0]))
    return sizes, [half, *(size for size in planned if size.area < sizes[0].area)][-1]


def stages_after(pivot: Any, stages: Sequence[Stage], factor: int) -> Sequence[Stage]:
    """The stages that are left to run when the pivot is the result of one of them.

    Args:
        pivot: z_0 of a stage, (B, C, h, w) or (B, C, F, h, w).
        stages: The whole plan.
        factor: Pixels of a latent pixel's side.

    Raises:
        ValueError: The pivot is no tensor of latents of any stage's size but the last's.
    """
    if not isinstance(pivot, Tensor) or not pivot.is_floating_point():
        raise ValueError(f"pivot must be latents, a tensor of floating-point numbers, not {type(pivot).__name__}")
    sizes = [Size(stage.size.height // factor, stage.size.width // factor) for stage in stages[:-1]]
    if pivot.ndim not in (4, 5) or Size(*pivot.shape[-2:]) not in sizes:
        wanted = ", ".join(map(str, sizes)) or "none, as there is but one stage"
        raise ValueError(f"pivot must be a stage's latents, height x width {wanted}; its shape is {[*pivot.shape]}")
    return stages[sizes.index(Size(*pivot.shape[-2:])) + 1 :]
