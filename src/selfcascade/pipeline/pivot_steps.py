"""K, the noise level that each stage above the base starts from.

In this order: the caller's `pivot_step` or `strength`; the step that feature upsamplers were trained for; the preset's
share of T (`options/presets.py`). A K of the last two that leaves a stage no step is raised to the
lowest that leaves it one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from selfcascade.base_models.last_timesteps import Schedules, lowest_pivot
from selfcascade.cascade import Size
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.presets import PRESETS, Preset

Value = TypeVar("Value")


def pivot_steps(
    schedules: Schedules, native: Size, sizes: Sequence[Size], preset: Preset, options: Options
) -> list[int]:
    """K of each stage with a pivot.

    Args:
        schedules: The model's.
        native: The size that a `matched` preset's shares are meant at.
        sizes: Sizes of the stages with a pivot.
        preset: Its shares of T, where the caller asks for nothing.
        options: Their K, or K / T, for all of them or one each.

    Raises:
        OptionError: K lies outside (0, T], or there are not as many as stages.
    """
    asked = options.pivot_step
    if options.strength is not None:
        asked = steps_of(options.strength, schedules.training_steps)
    chosen = tuple(preset_pivots(schedules, native, sizes, preset)) if asked is None else asked
    found = per_stage("pivot_step", chosen, len(sizes))
    check_range("pivot_step", found, schedules.training_steps)
    return found


def steps_of(strength: float | tuple[float, ...], training_steps: int) -> int | tuple[int, ...]:
    """K of a strength, diffusers' K / T, or of one for each stage."""
    if isinstance(strength, tuple):
        return tuple(max(1, round(one * training_steps)) for one in strength)
    return max(1, round(strength * training_steps))


def preset_pivots(schedules: Schedules, native: Size, sizes: Sequence[Size], preset: Preset) -> list[int]:
    """K of each stage with a pivot: the preset's share of T, carried to the stage's size where `matched`."""
    limit = schedules.training_steps
    shares = [preset.pivot_share] + [preset.later_pivot_share] * (len(sizes) - 1)
    steps = [round(share * limit) for share in shares[: len(sizes)]]
    if not preset.matched:
        return steps
    return [schedules.matched_step(step, size.area / native.area) for step, size in zip(steps, sizes, strict=True)]


def trained_preset(config: Mapping[str, Any], schedules: Schedules) -> Preset:
    """The settings that upsamplers of this configuration were trained for.

    Stages after the first start no deeper in noise than in `rgb`: with the adapter's own K they make texture anew over
    outlines that are right already (docs/upsamplers.md).
    """
    pivot_step = config.get("sampling_pivot_step") or config["pivot_step"]
    share = pivot_step / schedules.training_steps
    later = min(share, PRESETS["rgb"].later_pivot_share)
    return Preset("upsamplers", "as the upsamplers were trained", share, later, config["upsampling"])


def reachable(schedules: Schedules, steps: int, pivot_step: int, chosen: bool) -> int:
    """K, or where so few steps leave none at or below it, the lowest K that leaves one.

    Args:
        schedules: The model's.
        steps: Steps of the stage's whole schedule.
        pivot_step: K.
        chosen: Whether the caller asked for that K, which is then not changed.

    Raises:
        OptionError: No step is left at the chosen K, or none at all but one that starts from pure noise.
    """
    last = schedules.last_timesteps(steps)
    if not last or max(last) <= pivot_step:
        return pivot_step
    if chosen and min(last) <= pivot_step:  # the pipeline knows, and is asked before anything runs
        return pivot_step
    if chosen:
        raise OptionError(
            f"{{pivot_step}} {pivot_step} leaves no step to run: the last of {steps} scheduled steps is at "
            f"{min(last):g}; raise {{pivot_step}} or {{num_inference_steps}}"
        )
    return lowest_pivot(schedules.training_steps, steps, max(last))


def per_stage(name: str, value: Value | tuple[Value, ...], count: int) -> list[Value]:
    """One value for each stage.

    Raises:
        OptionError: There are several values, but not one a stage.
    """
    if not isinstance(value, tuple):
        return [cast("Value", value)] * count
    values = list(cast("tuple[Value, ...]", value))
    if len(values) != count:
        raise OptionError(f"{{{name}}} has {len(values)} values, and there are {count} stages it applies to")
    return values


def check_range(name: str, values: Sequence[int], most: int) -> None:
    """Raises OptionError, naming the option, unless all values are from 1 to `most`."""
    for value in values:
        if not 1 <= value <= most:
            raise OptionError(f"{{{name}}} must be a whole number from 1 to {most}, not {value}")
