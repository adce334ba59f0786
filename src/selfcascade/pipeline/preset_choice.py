"""Which preset a call uses, and with which values: the model's, the upsamplers', and the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from selfcascade.base_models.last_timesteps import Schedules
from selfcascade.base_models.pivot_controls import check_anchorable
from selfcascade.base_models.protocols import Scheduler
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.presets import PRESETS, UNANCHORED_PRESET, Preset


def with_changes(preset: Preset, options: Options) -> Preset:
    """The preset, with the settings that the options replace.

    Raises:
        OptionError: An upscaler is given for pivots that are not enlarged as pictures.
    """
    own = {field.name for field in fields(preset)} - {"name", "summary"}
    changed = replace(preset, **{name: value for name, value in options.keywords("plan").items() if name in own})
    if options.pivot_upscaler is not None and changed.upsampling != "rgb":
        raise OptionError(
            "{pivot_upscaler} enlarges pictures, so {upsampling} must be rgb, not {found}", found=changed.upsampling
        )
    return changed


def anchorable_preset(name: str, scheduler: Scheduler) -> str:
    """Name of the preset, or of the unanchored one if it has an anchor and the scheduler cannot anchor."""
    if PRESETS[name].anchor > 0:
        try:
            check_anchorable(scheduler)
        except ValueError:
            return UNANCHORED_PRESET
    return name


def tuned_preset(config: Mapping[str, Any], schedules: Schedules, name: str | None = None) -> Preset:
    """The settings that upsamplers of this configuration bring: their own K and upsampling, the rest of a preset.

    Stages after the first start with no more noise than in `rgb`: with the trained K they redraw texture over outlines
    that are already right (docs/upsamplers.md).

    Args:
        config: The configuration; upsamplers of earlier versions have neither `sampling_preset` nor `attention`.
        schedules: The model's.
        name: The preset instead of theirs, for a scheduler that cannot anchor. K is then no higher than its own, as
            nothing else holds the composition.
    """
    own = PRESETS[config.get("sampling_preset", "paper")]
    preset = own if name is None else PRESETS[name]
    share = (config.get("sampling_pivot_step") or config["pivot_step"]) / schedules.training_steps
    share = share if preset is own else min(share, preset.pivot_share)
    return replace(
        preset,
        name="upsamplers",
        summary=f"{preset.name}, with the upsamplers' K",
        pivot_share=share,
        later_pivot_share=min(share, PRESETS["rgb"].later_pivot_share),
        upsampling=config["upsampling"],
        matched=False,
        attention="local" if "local" in (preset.attention, config.get("attention")) else "full",
    )
