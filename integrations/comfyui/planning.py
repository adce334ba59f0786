"""Converts the nodes' widgets to the library's options, and plans the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfcascade.cascade import Size, Stage, plan_stages
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.presets import DEFAULT_PRESET, ModelDefaults, Preset, preset_named
from selfcascade.pipeline.planning import enlarged_size, planned, sizes_from, target_size
from selfcascade.pipeline.preset_choice import tuned_preset, with_changes

from .schedules import ComfySchedules
from .skips import Attached

FROM_PRESET = "preset"
DEFAULT = "default"
# Of model configurations in ComfyUI: the sides that they were trained at.
NATIVE_SIDES = {
    **{"SD15": 512, "SD20": 512, "SD21UnclipL": 768, "SD21UnclipH": 768, "SDXL": 1024, "SDXLRefiner": 1024},
    **{"SSD1B": 1024, "Segmind_Vega": 1024, "SD3": 1024, "Flux": 1024, "FluxSchnell": 1024, "Chroma": 1024},
    **{"SD15_instructpix2pix": 512, "SDXL_instructpix2pix": 1024, "Bundled": 64},
}
V_PREDICTION = "V_PREDICTION"
# Options as the widgets have them.
WIDGETS = {"num_inference_steps": "steps", "guidance_scale": "cfg", "upsampler_scale": "strength"}
WIDGETS |= {"pivot_upscaler": "upscale_model"}


def asked(values: Mapping[str, Any]) -> Options:
    """The options that widgets say.

    Raises:
        ValueError: A value is out of range; the sentence names its widget.
    """
    steps = per_stage("stage_steps", values.get("stage_steps", ""), int)
    guidance = per_stage("stage_cfg", values.get("stage_cfg", ""), float)
    given: dict[str, Any] = {
        "num_inference_steps": values["steps"] if steps is None else steps,
        "guidance_scale": float(values["cfg"]) if guidance is None else guidance,
        "pivot_step": per_stage("pivot_step", values.get("pivot_step", ""), int),
    }
    if values.get("width") or values.get("height"):
        given |= {side: values[side] for side in ("width", "height") if values.get(side)}
    else:
        given["scale"] = float(values["scale"])
    given |= {
        name: values[name] for name in ("upsampling", "attention") if values.get(name, FROM_PRESET) != FROM_PRESET
    }
    given |= {name: float(values[name]) for name in ("anchor", "energy") if values.get(name, -1) >= 0}
    given["pivot_upscaler"] = values.get("upscale_model")
    if values.get("preset", DEFAULT) != DEFAULT:
        given["preset"] = values["preset"]
    return told(lambda: Options(**given))


def told(function: Any) -> Any:
    """Calls the function; its errors name widgets instead of options.

    Raises:
        ValueError: What the function raises.
    """
    try:
        return function()
    except OptionError as error:
        raise ValueError(error.told(lambda name: WIDGETS.get(name, name))) from None


def per_stage(name: str, text: str, kind: type[int] | type[float]) -> Any:
    """'' is None, '500' a number, '500, 300' one for each stage.

    Raises:
        ValueError: It is none of them.
    """
    try:
        values = [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(
            f"{name} must be a number, or one for each stage with commas between them, not {text[:60]!r}"
        ) from None
    return None if not values else values[0] if len(values) == 1 else tuple(values)


def native_side(model: Any, given: int) -> int:
    """The side in pixels that the model was trained at: as given, or where that is 0 as ComfyUI's kind of model has it.

    Raises:
        ValueError: The kind is not known.
    """
    kind = type(model.model.model_config).__name__
    if given == 0 and kind not in NATIVE_SIDES:
        raise ValueError(f"native_size is not known of {kind}; give the side in pixels that the model was trained at")
    # Stable Diffusion 2 at 512 and at 768 pixels are one kind; the larger predicts v.
    if not given and kind == "SD20" and getattr(getattr(model.model, "model_type", None), "name", "") == V_PREDICTION:
        return 768
    return given or NATIVE_SIDES[kind]


def chosen(options: Options, attached: Attached | None, schedules: ComfySchedules) -> Preset:
    """The preset that is asked for, or the one that suits the upsamplers, with the options in its settings' places."""
    if options.preset is None and attached is not None:
        preset = tuned_preset(attached.upsamplers.config, schedules)
    else:
        preset = preset_named(options.preset or DEFAULT_PRESET)
    return with_changes(preset, options)


def stages_from_latents(
    latents: Size, multiple: int, finished: bool, schedules: ComfySchedules, preset: Preset, options: Options
) -> tuple[Stage, ...]:
    """The stages of a cascade whose base stage has the latents' size; without that one where they are finished.

    Args:
        latents: Size in pixels.
        multiple: Pixels that sides are multiples of.
        finished: Whether they hold a picture, the first pivot.
        schedules, preset, options: Schedules of the model, and the given settings.

    Raises:
        ValueError: A setting is out of range, or finished latents have another ratio than the target.
    """
    in_proportion = finished or (options.width is None) != (options.height is None)
    target = (enlarged_size if in_proportion else target_size)(latents, multiple, options)
    sizes = plan_stages(latents, target, multiple)
    stages = planned(schedules, latents, ModelDefaults(), sizes, 1, preset, options)
    if not finished:
        return stages
    if len(stages) == 1:
        raise ValueError(f"scale must be over 1 for latents that hold a picture of {latents} already, not {target}")
    if max(abs(sizes[0].height - latents.height), abs(sizes[0].width - latents.width)) > multiple:
        raise ValueError(
            f"width and height must have the ratio of the latents, {latents}, as they hold a picture already, "
            f"not that of {target}"
        )
    return stages[1:]


def stages_above_picture(
    own: Size, native: int, multiple: int, schedules: ComfySchedules, preset: Preset, options: Options
) -> tuple[tuple[Stage, ...], Size]:
    """The stages that enlarge a user's picture, and the size of the stage before them, had there been one."""
    target = enlarged_size(own, multiple, options)
    sizes, before = sizes_from(own, target, Size(native, native), multiple)
    return planned(schedules, Size(native, native), ModelDefaults(), sizes, 0, preset, options), before


def described(stages: Sequence[Stage], preset: Preset, counts: Sequence[int]) -> str:
    """The stages in a line each, and the settings of those with a pivot."""
    lines = [
        f"{stage.size.width} x {stage.size.height}: "
        + ("from noise" if stage.pivot_step is None else f"K = {stage.pivot_step}")
        + f", {count} of {stage.num_inference_steps} steps, cfg {stage.guidance_scale:g}"
        for stage, count in zip(stages, counts, strict=True)
    ]
    held = f"pivots by {preset.upsampling}, anchor {preset.anchor:g}, energy {preset.energy:g}"
    return "\n".join([*lines, f"{preset.name}: {held}, {preset.attention} attention"])
