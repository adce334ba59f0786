"""K, the noise level that each stage above the base starts from.

The first of these that applies: the caller's `pivot_step` or `strength`; the step that the feature upsamplers bring;
the preset's share of T (`options/presets.py`). In the last two cases, a K that leaves a stage no step is
raised to the lowest one that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from selfcascade.base_models.last_timesteps import Schedules, lowest_pivot
from selfcascade.base_models.stage_scheduler import NoStepLeft
from selfcascade.cascade import Size
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, check_range
from selfcascade.options.presets import Preset

Value = TypeVar("Value")


def pivot_steps(
    schedules: Schedules, native: Size, sizes: Sequence[Size], preset: Preset, options: Options
) -> list[int]:
    """K of each stage with a pivot.

    Args:
        schedules: The model's.
        native: The size at which a `matched` preset's shares apply.
        sizes: Sizes of the stages with a pivot.
        preset: Supplies the shares of T if the options have neither `pivot_step` nor `strength`.
        options: The call's options; `pivot_step` or `strength`, one value for all stages or one each.

    Raises:
        OptionError: K lies outside (0, T], or the number of values differs from the number of stages.
    """
    asked = options.pivot_step
    if options.strength is not None:
        asked = steps_of(options.strength, schedules.training_steps)
    chosen = tuple(preset_pivots(schedules, native, sizes, preset)) if asked is None else asked
    found = per_stage("pivot_step", chosen, len(sizes))
    check_range("pivot_step", found, schedules.training_steps)
    return found


def steps_of(strength: float | tuple[float, ...], training_steps: int) -> int | tuple[int, ...]:
    """K for a strength, which is K / T as in diffusers, or for each stage's strength."""
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


def reachable(schedules: Schedules, steps: int, pivot_step: int, chosen_by: str | None) -> int:
    """K, raised to the lowest value that leaves a step to run if the schedule has none at or below K.

    Args:
        schedules: The model's.
        steps: Steps of the stage's whole schedule.
        pivot_step: K, the wanted training timestep.
        chosen_by: The option by which the caller asked for this K, which is then never changed; None: nobody did.

    Raises:
        OptionError: The chosen K leaves no step, or only a step that starts from pure noise would be left.
    """
    last = schedules.last_timesteps(steps)
    if not last or max(last) <= pivot_step:
        return pivot_step
    if chosen_by and min(last) <= pivot_step:  # the pipeline knows, and is asked before anything runs
        return pivot_step
    if chosen_by:
        raise NoStepLeft(pivot_step, steps, min(last), chosen_by)
    return lowest_pivot(schedules.training_steps, steps, max(last))


def per_stage(name: str, value: Value | tuple[Value, ...], count: int) -> list[Value]:
    """A list with one value for each stage.

    Raises:
        OptionError: There are several values, but not one for each stage.
    """
    if not isinstance(value, tuple):
        return [cast("Value", value)] * count
    values = list(cast("tuple[Value, ...]", value))
    if len(values) != count:
        raise OptionError(f"{{{name}}} has {len(values)} values, and there are {count} stages it applies to")
    return values
