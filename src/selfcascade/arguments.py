"""Checks of what users pass to a cascade, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.driver import UPSAMPLINGS
from selfcascade.base_models.family import Family
from selfcascade.base_models.pivot_controls import check_anchorable
from selfcascade.base_models.request import Request
from selfcascade.base_models.stage_scheduler import check_pivot_step, matched_step, training_steps
from selfcascade.base_models.stage_schedules import last_timesteps, reachable, shortened
from selfcascade.cascade import Size, Stage, plan_stages
from selfcascade.presets import DEFAULT_PRESET, PRESETS, UNANCHORED_PRESET, ModelDefaults, Preset

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
MAX_STEPS = 10_000
MAX_GUIDANCE = 1000.0
MAX_FRAMES = 10_000
# Of pipelines' own arguments those that say where latents start or end, and why stages cannot take them.
OF_STAGES = {
    "latents": "stages make their own; use pivot=, the latents of an earlier call's stage, or upscale(image)",
    "strength": "stages start at a noise level; use pivot_step",
    "denoise_strength": "stages start at a noise level; use pivot_step",
    "noise_scale": "stages start at a noise level; use pivot_step",
    "denoising_start": "stages start at a noise level; use pivot_step",
    "denoising_end": "a stage hands on clean latents; give the result to a refiner as its image instead",
}


def _is_finite(value: Any) -> bool:
    """Whether all numbers of a tensor, or of tensors in a list, are finite."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(torch.isfinite(value).all())


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
        raise ValueError(f"{name} has {len(value)} values, and there are {count} stages it applies to")
    return list(value)


def with_changes(preset: Preset, **changes: Any) -> Preset:
    """The preset with those of the changes that are not None.

    Raises:
        ValueError: `anchor` or `energy` is no number in [0, 1].
    """
    chosen = replace(preset, **{name: value for name, value in changes.items() if value is not None})
    for name in ("anchor", "energy"):
        value = getattr(chosen, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}")
    return chosen


def planned(
    scheduler: Any,
    native: Size,
    defaults: ModelDefaults,
    sizes: Sequence[Size],
    first_pivot: int,
    steps: int | Sequence[int] | None,
    pivot_step: int | Sequence[int] | None,
    preset: Preset,
    guidance_scale: float | Sequence[float] | None,
) -> tuple[Stage, ...]:
    """The stages of a cascade, their settings checked.

    Args:
        scheduler: The pipeline's.
        native: The size that a `matched` preset's shares are meant at.
        defaults: The steps and guidance where they are None.
        sizes: Of the stages.
        first_pivot: Index of the first stage that starts from a pivot.
        steps, pivot_step, preset, guidance_scale: As in `SelfCascade.plan`.

    Raises:
        ValueError: A setting is out of range; the sentence names it.
    """
    limit = training_steps(scheduler)
    scaling = len(sizes) - first_pivot
    steps = defaults.num_inference_steps if steps is None else steps
    guidance_scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
    default = preset_pivots(scheduler, native, sizes[first_pivot:], preset)
    pivots = per_stage("pivot_step", default if pivot_step is None else pivot_step, scaling)
    all_steps = per_stage("num_inference_steps", steps, len(sizes))
    guidance = per_stage("guidance_scale", guidance_scale, len(sizes))
    for value in pivots:
        check_pivot_step(value, limit)
    for value in all_steps:
        if not is_count(value) or value > min(limit, MAX_STEPS):
            raise ValueError(f"num_inference_steps must be a whole number from 1 to {limit}, not {value!r}")
    if preset.step_share < 1 and isinstance(steps, int):
        all_steps[first_pivot:] = [shortened(scheduler, steps, preset.step_share, pivot) for pivot in pivots]
    for number in all_steps[:first_pivot]:
        last_timesteps(scheduler, number)  # which the scheduler may refuse
    for index, number in enumerate(all_steps[first_pivot:]):
        pivots[index] = reachable(scheduler, number, pivots[index], chosen=pivot_step is not None)
    for value in guidance:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= MAX_GUIDANCE):
            raise ValueError(f"guidance_scale must be a number from 0 to {MAX_GUIDANCE:g}, not {value!r}")
    plan = zip(sizes, all_steps, [None] * first_pivot + pivots, guidance, strict=True)
    return tuple(Stage(index, len(sizes), *values) for index, values in enumerate(plan))


def default_preset(defaults: ModelDefaults, scheduler: Any) -> str:
    """Name of a model's default preset; where that one anchors and the scheduler cannot be anchored, another one's."""
    name = defaults.preset or DEFAULT_PRESET
    if PRESETS[name].anchor > 0:
        try:
            check_anchorable(scheduler)
        except ValueError:
            return UNANCHORED_PRESET
    return name


def trained_preset(config: Mapping[str, Any], scheduler: Any) -> Preset:
    """The settings that upsamplers of this configuration were trained for.

    Stages after the first start no deeper in noise than in `rgb`: with the adapter's own K they make texture anew over
    outlines that are right already (docs/upsamplers.md).
    """
    pivot_step = config.get("sampling_pivot_step") or config["pivot_step"]
    share = pivot_step / training_steps(scheduler)
    later = min(share, PRESETS["rgb"].later_pivot_share)
    return Preset("upsamplers", "as the upsamplers were trained", share, later, config["upsampling"])


def preset_pivots(scheduler: Any, native: Size, sizes: Sequence[Size], preset: Preset) -> list[int]:
    """K of each stage with a pivot: the preset's share of T, carried to the stage's size where `matched`."""
    limit = training_steps(scheduler)
    shares = [preset.pivot_share] + [preset.later_pivot_share] * (len(sizes) - 1)
    steps = [round(share * limit) for share in shares[: len(sizes)]]
    if not preset.matched:
        return steps
    return [matched_step(scheduler, step, size.area / native.area) for step, size in zip(steps, sizes, strict=True)]


def check_call(request: Request, upsampling: str, scale: Any, tuned: bool) -> None:
    """Raises ValueError, naming the argument, if a call's settings are not acceptable.

    Args:
        request: What is asked of the pipeline.
        upsampling: As in `SelfCascade.__call__`.
        scale: `upsampler_scale`.
        tuned: Whether there are upsamplers.
    """
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"upsampling must be one of {', '.join(UPSAMPLINGS)}, not {upsampling!r}")
    arguments = request.arguments
    if request.output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be 'pil', 'np', 'pt' or 'latent', not {request.output_type!r}")
    for name in arguments.keys() & OF_STAGES.keys():
        raise ValueError(f"{name} cannot be given: {OF_STAGES[name]}")
    for name, value in arguments.items():
        if not _is_finite(value):
            raise ValueError(f"{name} has values that are no finite numbers")
    if request.prompt == []:
        raise ValueError("prompt is an empty list; give at least one prompt")
    for name in ("num_images_per_prompt", "num_videos_per_prompt", "decode_chunk_size"):
        if not is_count(arguments.get(name, 1)):
            raise ValueError(f"{name} must be a positive whole number, not {arguments[name]!r}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not -10 <= scale <= 10:
        raise ValueError(f"upsampler_scale must be a number from -10 to 10, not {scale!r}")
    if not tuned and scale != 1:
        raise ValueError("upsampler_scale is for the tuned version; give SelfCascade upsamplers, or leave it out")


def check_clips(family: Family, frames: Any, shared_noise: Any) -> None:
    """Raises ValueError, naming the argument, if the model makes no such clips.

    Args:
        family: The model's.
        frames: `num_frames`; None is the pipeline's default.
        shared_noise: As in `SelfCascade.__call__`.
    """
    if isinstance(shared_noise, bool) or not isinstance(shared_noise, (int, float)) or not 0 <= shared_noise <= 1:
        raise ValueError(f"shared_noise must be a number from 0 to 1, not {shared_noise!r}")
    if not family.video:
        if shared_noise:
            raise ValueError(f"shared_noise is for frames of video, and {family.name} makes pictures")
        return
    if frames is None:
        return
    if not is_count(frames) or frames > MAX_FRAMES:
        raise ValueError(f"num_frames must be a whole number from 1 to {MAX_FRAMES}, not {frames!r}")
    most, each = family.most_frames, family.frame_step
    if most is not None and frames > most:
        raise ValueError(f"num_frames must be at most {most}, where the motion adapter's positions end, not {frames}")
    if (frames - 1) % each:
        near = (2 * (frames - 1) + each) // (2 * each) * each + 1  # of two the longer
        raise ValueError(
            f"num_frames must be one more than a multiple of {each} for {family.name}, not {frames}; "
            f"{near} is the nearest"
        )


def target_size(native: Size, multiple: int, height: Any, width: Any) -> Size:
    """(height, width) in pixels, each twice the native one where it is None.

    Raises:
        ValueError: A side is no multiple of what the model's sizes are multiples of.
    """
    target = Size(2 * native.height if height is None else height, 2 * native.width if width is None else width)
    for name, side in zip(("height", "width"), target, strict=True):
        if not is_count(side):
            raise ValueError(f"{name} must be a positive whole number of pixels, not {side!r}")
        if side % multiple:
            near = max(multiple, round(side / multiple) * multiple)
            raise ValueError(f"{name} must be a multiple of {multiple}, not {side}; {near} is the nearest")
    return target


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
