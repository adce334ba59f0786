"""Plans the stages of a call: their sizes, pivot steps and numbers of steps. Nothing runs here."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfcascade.base_models import family_of
from selfcascade.base_models.family import Family
from selfcascade.base_models.guidance import leaves_guidance_out
from selfcascade.base_models.last_timesteps import SchedulerSchedules, Schedules, shortened
from selfcascade.base_models.named_schedulers import scheduler_named
from selfcascade.base_models.pivot_controls import check_anchorable
from selfcascade.base_models.protocols import Pipeline, Scheduler
from selfcascade.base_models.scheduler_kinds import check_scheduler
from selfcascade.base_models.stage_values import DistinctStage
from selfcascade.cascade import LEAST_AREA, Size, Stage, plan_stages
from selfcascade.cost.fitting import fitted
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, check_range
from selfcascade.options.presets import (
    DEFAULT_PRESET,
    UNANCHORED_PRESET,
    Attention,
    ModelDefaults,
    Preset,
    Upsampling,
    defaults_of,
    preset_named,
)
from selfcascade.pipeline.pivot_steps import per_stage, pivot_steps, reachable
from selfcascade.pipeline.preset_choice import anchorable_preset, tuned_preset, with_changes
from selfcascade.upsamplers.model import FeatureUpsamplers
from selfcascade.upsamplers.skip_features import check_hookable


class Planner:
    """Plans the stages that `SelfCascade` runs. Takes the same arguments, and raises the same errors."""

    def __init__(
        self,
        pipe: Pipeline,
        upsamplers: FeatureUpsamplers | None = None,
        native_size: Sequence[int] | None = None,
        family: type[Family] | None = None,
    ) -> None:
        self.pipe, self.upsamplers, self.family = pipe, upsamplers, family_of(pipe, family)
        if isinstance(upsamplers, FeatureUpsamplers):
            check_hookable(self.family.denoiser)
            upsamplers.check_unet(self.family.denoiser)
        elif upsamplers is not None:
            raise ValueError(f"upsamplers must be FeatureUpsamplers or None, not {type(upsamplers).__name__}")
        check_scheduler(self.family)
        self.multiple, self.defaults = self.family.multiple, defaults_of(pipe)
        size = native_size if native_size is not None else self.defaults.native_size or self.family.native_size
        self.native_size = plan_stages(size, size, self.multiple)[0]

    def plan(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        preset: str | Preset | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        *,
        scale: float | None = None,
        pixels: float | None = None,
        strength: float | Sequence[float] | None = None,
        stage_scheduler: str | Sequence[str] | None = None,
        upsampling: Upsampling | None = None,
        anchor: float | None = None,
        energy: float | None = None,
        attention: Attention | None = None,
        max_memory: str | None = None,
    ) -> tuple[Stage, ...]:
        """The stages of a call with these arguments; nothing runs.

        Args:
            height, width: Target size in pixels.
            num_inference_steps: Steps of the whole schedule, for all stages or one value each.
            pivot_step: K, a training timestep in (0, T], for all stages with a pivot or one value each.
            preset: A name in `selfcascade.PRESETS`, or your own `Preset`.
            guidance_scale: Guidance weight, for all stages or one value each.
            scale: Instead of height and width, a factor of 1 or more for the native sides; the result is rounded to
                what the model supports.
            pixels: The same as a factor for the number of pixels: 4 is a scale of 2.
            strength: Instead of pivot_step, K / T in (0, 1].
            stage_scheduler: Name of a scheduler for stages with a pivot, for all of them or one each.
            upsampling, anchor, energy, attention: Replace the preset's values; see `Preset`.
            max_memory: Most memory, such as "8GB"; refused if no way of running takes so little (`cost.fitting`).
            For each argument, None means the default in docs/options.md.

        Raises:
            ValueError: An argument is out of range; the message names it.
        """
        given: dict[str, Any] = dict(
            height=height, width=width, scale=scale, pixels=pixels, preset=preset, pivot_step=pivot_step
        )
        given |= dict(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, strength=strength)
        given |= dict(upsampling=upsampling, anchor=anchor, energy=energy, attention=attention)
        options = Options(**given, stage_scheduler=stage_scheduler, max_memory=max_memory)
        stages = self._plan(options)
        fitted(self, stages, options, tuned=self.upsamplers is not None)
        return stages

    def _plan(self, options: Options) -> tuple[Stage, ...]:
        target = target_size(self.native_size, self.multiple, options)
        sizes = plan_stages(self.native_size, target, self.multiple)
        return self._stages(sizes, 1, options)

    def _stages(self, sizes: Sequence[Size], first_pivot: int, options: Options) -> tuple[Stage, ...]:
        check_scheduler(self.family)  # it may have been replaced since
        self.family.check_size(sizes[-1])
        guided = options.guidance_scale is not None or self.defaults.guidance_scale is not None
        if guided and (instead := self.family.guided_by) is not None:
            raise OptionError(f"{{guidance_scale}} is not a keyword of {self.family.name}; use {instead}")
        preset = self.chosen_preset(options)
        names = per_stage("stage_scheduler", options.stage_scheduler, len(sizes) - first_pivot)
        if preset.anchor > 0:
            for scheduler in map(self._scheduler, names or [None]):
                check_anchorable(scheduler)
        own = replace(self.schedules, shift=functools.partial(self.family.shift, sizes[0]))
        later = [replace(own, scheduler=self._scheduler(name)) for name in names]
        return planned(own, self.native_size, self.defaults, sizes, first_pivot, preset, options, later)

    def _scheduler(self, name: str | None) -> Scheduler:
        own = self.pipe.scheduler
        return own if name is None else scheduler_named(own, name, "stage_scheduler")

    @property
    def schedules(self) -> SchedulerSchedules:
        """Schedules of the pipeline's current scheduler."""
        return SchedulerSchedules(self.pipe.scheduler, self.family.sigmas)

    def chosen_preset(self, options: Options) -> Preset:
        """The preset of a call, with the settings that the options replace."""
        named = self.default_preset_of(options) if options.preset is None else options.preset
        if options.preset is None and self.upsamplers is not None:
            preset = tuned_preset(self.upsamplers.config, self.schedules, str(named))
        else:
            preset = preset_named(named)
        preset = with_changes(preset, options)
        return preset if leaves_guidance_out(self.family) else replace(preset, guided=True)

    def default_preset_of(self, options: Options) -> str:
        """Like `default_preset`, for a call whose stages may have their own schedulers."""
        asked = options.stage_scheduler
        names: tuple[str | None, ...] = asked if isinstance(asked, tuple) else (asked,)
        found = {anchorable_preset(self._own_preset, self._scheduler(name)) for name in names}
        return found.pop() if len(found) == 1 else UNANCHORED_PRESET

    @property
    def default_preset(self) -> str:
        """Name of the preset of calls that name none: the upsamplers', else the model's, else "quality".

        If it has an anchor and the scheduler cannot anchor, "rgb".
        """
        return anchorable_preset(self._own_preset, self.pipe.scheduler)

    @property
    def _own_preset(self) -> str:
        if self.upsamplers is not None:
            return self.upsamplers.config["sampling_preset"]
        return self.defaults.preset or DEFAULT_PRESET


def target_size(native: Size, multiple: int, options: Options) -> Size:
    """The target size: height and width if given; a missing side is the native one times the scale, 2 by default.

    Args:
        native: Native size of the model, or size of the picture to enlarge.
        multiple: Sides must be multiples of this many pixels; scaled sides are rounded to it.
        options: The call's options; height, width, scale and pixels are used.

    Raises:
        OptionError: A given side is not a multiple.
    """
    scale = 2.0 if options.side_scale is None else options.side_scale
    scaled = (max(1, round(scale * side / multiple)) * multiple for side in native)
    given = zip((options.height, options.width), scaled, strict=True)
    sides = Size(*(default if side is None else side for side, default in given))
    for name, side, other in (("height", *sides), ("width", *reversed(sides))):
        if side % multiple:
            least = math.ceil(LEAST_AREA * native.area / other / multiple)  # below it the nearest would be refused too
            near = max(1, round(side / multiple), least) * multiple
            raise OptionError(f"{{{name}}} must be a multiple of {multiple}, not {side}; {near} is the nearest")
    return sides


def enlarged_size(own: Size, multiple: int, options: Options) -> Size:
    """The size that a picture is enlarged to. If one side is given, the other follows from the picture's ratio.

    Warns that the picture is cropped if its ratio differs from the target's by more than rounding explains.

    Args:
        own: Size of the picture.
        multiple, options: See `target_size`.

    Raises:
        OptionError: A given side is not a multiple.
    """
    if options.width is None and options.height is not None:
        options = options.changed(width=max(1, round(own.width * options.height / own.height / multiple)) * multiple)
    elif options.height is None and options.width is not None:
        options = options.changed(height=max(1, round(own.height * options.width / own.width / multiple)) * multiple)
    target = target_size(own, multiple, options)
    scale = max(target.height / own.height, target.width / own.width)
    if own.height * scale - target.height >= multiple or own.width * scale - target.width >= multiple:
        kept = Size(round(target.height / scale), round(target.width / scale))
        sentence = f"the image, {own}, is cropped at its centre to {kept}, the ratio of {target}"
        warnings.warn(f"{sentence}; give height or width alone to keep all of it", UserWarning, stacklevel=3)
    return target


def sizes_from(own: Size, target: Size, native: Size, multiple: int) -> tuple[list[Size], Size]:
    """Sizes of the stages above the user's picture, and the size that a base stage before them would have.

    Raises:
        ValueError: The target has fewer pixels than the picture.
    """
    if target.area < own.area:
        raise ValueError(f"target {target} is smaller than the image, {own}; it must have at least its pixels")
    planned = plan_stages(native, target, multiple)
    sizes = [size for size in planned if size.area > 1.05 * own.area] or [target]
    half = Size(*(max(1, side // 2 // multiple) * multiple for side in sizes[0]))
    return sizes, [half, *(size for size in planned if size.area < sizes[0].area)][-1]


def planned(
    schedules: Schedules,
    native: Size,
    defaults: ModelDefaults,
    sizes: Sequence[Size],
    first_pivot: int,
    preset: Preset,
    options: Options,
    later: Sequence[Schedules] = (),
) -> tuple[Stage, ...]:
    """Plans the stages of a cascade, and checks their settings.

    Args:
        schedules: The model's schedules.
        native: The size at which a `matched` preset's shares apply.
        defaults: Steps and guidance for options without them.
        sizes: Sizes of the stages.
        first_pivot: Index of the first stage that starts from a pivot.
        preset: The preset from `with_changes`.
        options: The call's options.
        later: Schedules of each stage with a pivot, if they differ from the model's.

    Raises:
        ValueError: A setting is out of range; the message names it.
    """
    steps = defaults.num_inference_steps if options.num_inference_steps is None else options.num_inference_steps
    guidance_scale = defaults.guidance_scale if options.guidance_scale is None else options.guidance_scale
    pivots = pivot_steps(schedules, native, sizes[first_pivot:], preset, options)
    all_steps = per_stage("num_inference_steps", steps, len(sizes))
    guidance = per_stage("guidance_scale", guidance_scale, len(sizes))
    check_range("num_inference_steps", all_steps, schedules.training_steps)
    later = later or [schedules] * len(pivots)
    if preset.step_share < 1 and isinstance(steps, int):
        pairs = zip(later, pivots, strict=True)
        all_steps[first_pivot:] = [shortened(own, steps, preset.step_share, pivot) for own, pivot in pairs]
    if not (preset.guided or isinstance(guidance_scale, tuple) or options.stage_negative_prompt is not None):
        guidance[first_pivot:] = [own if own is not None and own < 1 else 1.0 for own in guidance[first_pivot:]]
    for number in all_steps[:first_pivot]:
        schedules.last_timesteps(number)  # which the scheduler may refuse
    for index, number in enumerate(all_steps[first_pivot:]):
        pivots[index] = reachable(later[index], number, pivots[index], options.pivot_chosen_by)
    plan = zip(sizes, all_steps, [None] * first_pivot + pivots, guidance, strict=True)
    stages = [Stage(index, len(sizes), *values) for index, values in enumerate(plan)]
    return (*stages[:first_pivot], *_distinct(stages[first_pivot:], options))


def _distinct(stages: list[Stage], options: Options) -> list[Stage]:
    """The stages, with the options that apply to stages with a pivot only."""
    names = ("prompt", "negative_prompt", "scheduler", "lora_scale")
    given = {name: getattr(options, f"stage_{name}") for name in names}
    own = {name: per_stage(f"stage_{name}", value, len(stages)) for name, value in given.items() if value is not None}
    if not own:
        return stages
    values = (dict(zip(own, each, strict=True)) for each in zip(*own.values(), strict=True))
    return [DistinctStage(**vars(stage), **each) for stage, each in zip(stages, values, strict=True)]
