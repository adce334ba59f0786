"""All options of a call, each declared once: name, type, range, default, help, and which commands and methods take it.

The checks of `SelfCascade`'s calls, the commands' flags, the record next to a picture and docs/options.md are all
derived from `Options`. To add an option, add an entry here (or in `load_options` if it concerns loading), and use it.
Nothing here imports torch.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from selfcascade.options.checks import (
    Allowed,
    Generators,
    Guidance,
    Latents,
    OptionError,
    PerStage,
    Pixels,
    Share,
    Steps,
    Text,
    Upscaler,
    refusal,
)
from selfcascade.options.load_options import LoadOptions, SchedulerName, Weight
from selfcascade.options.memory import MemorySize
from selfcascade.options.presets import PRESETS, Attention, Portion, Preset, Upsampling, preset_named
from selfcascade.options.use import (
    CALLS,
    CLIPS,
    GENERATE,
    MAKE,
    PLAN,
    PROMPTED,
    SAMPLE,
    UPSCALE,
    Use,
    of_cascade,
    of_method,
    of_own_stages,
    of_python,
    of_source,
    planned,
)

MAX_SEED = 2**63 - 1
MAX_FRAMES = 10_000


def _known(value: object) -> object:
    preset_named(value)
    return value


PresetName = Annotated[str | Preset, BeforeValidator(_known), Allowed(f"one of {', '.join(PRESETS)}")]
Scale = Annotated[float, Field(ge=1, le=1024, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=1, le=1024**2, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Fps = Annotated[float, Field(ge=0.01, le=240, allow_inf_nan=False)]
Start = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
NoiseLevel = Annotated[int, Field(ge=0, le=10_000)]
OutputType = Literal["pil", "np", "pt", "latent"]


class Options(LoadOptions):
    """Everything that determines a picture or clip. None leaves a value to the preset, the method or the model.

    Raises:
        OptionError: An option is unknown, or its value is out of range.
    """

    prompt: Annotated[Text, Use("What the picture or clip shows.", "", PROMPTED | UPSCALE, PROMPTED, passed=False)] = ""
    negative_prompt: Annotated[Text | None, Use("What it does not show.", "", MAKE, any_object=True)] = None
    image: Annotated[
        Text | None,
        of_source("Picture to enlarge; for video, the clip.", commands=UPSCALE, positional=UPSCALE, metavar="FILE"),
    ] = None
    image_sha256: Annotated[Text | None, of_source("SHA-256 of that file.")] = None
    method: Annotated[
        Text, Use("How the target size is reached; see `selfcascade info`.", "self-cascade", GENERATE, passed=False)
    ] = "self-cascade"
    height: Annotated[
        Pixels | None,
        planned("Height in pixels.", "twice the native height; in proportion for a picture to enlarge"),
    ] = None
    width: Annotated[
        Pixels | None,
        planned("Width in pixels.", "twice the native width; in proportion for a picture to enlarge"),
    ] = None
    scale: Annotated[
        Scale | None,
        planned("Sides, as a multiple of the native or the enlarged picture's sides: 2 is 4x the pixels.", "2"),
    ] = None
    pixels: Annotated[
        Ratio | None, planned("Pixels, as a multiple of the native or the enlarged picture's: 4 is 2x a side.", "4")
    ] = None
    seed: Annotated[Seed, Use("Seed of the first picture; each further one adds 1.", "0", MAKE, passed=False)] = 0
    num_inference_steps: Annotated[
        PerStage[Steps] | None,
        planned(
            "Steps of the whole schedule, for all stages or for each.",
            "the model's default",
            commands=SAMPLE,
            flag="--steps",
        ),
    ] = None
    guidance_scale: Annotated[
        PerStage[Guidance] | None,
        planned("Weight of the prompt, for all stages or for each.", "the model's default", commands=SAMPLE),
    ] = None
    preset: Annotated[
        PresetName | None, of_cascade("Named settings; see `selfcascade info`.", unless="the model's default")
    ] = None
    pivot_step: Annotated[
        PerStage[Steps] | None,
        of_cascade("K, the training timestep where stages with a pivot start, for all of them or for each."),
    ] = None
    strength: Annotated[
        PerStage[Portion] | None,
        of_cascade("K / T: 0.5 of 1000 training timesteps is a K of 500. diffusers counts steps instead."),
    ] = None
    stage_prompt: Annotated[
        PerStage[Text] | None,
        of_own_stages("Prompt of stages with a pivot, for all of them or for each.", "prompt"),
    ] = None
    stage_negative_prompt: Annotated[
        PerStage[Text] | None,
        of_own_stages("Negative prompt of stages with a pivot, for all of them or for each.", "negative_prompt"),
    ] = None
    stage_scheduler: Annotated[
        PerStage[SchedulerName] | None,
        of_cascade("Scheduler of stages with a pivot, for all of them or for each.", unless="the base stage's"),
    ] = None
    stage_lora_scale: Annotated[
        PerStage[Weight] | None,
        of_own_stages("Strength of the LoRAs in stages with a pivot, times their own.", "1"),
    ] = None
    upsampling: Annotated[Upsampling | None, of_cascade("How pivots are enlarged.")] = None
    pivot_upscaler: Annotated[
        Upscaler | None,
        of_own_stages(
            "Super-resolution model that enlarges pivots: a .safetensors file, a folder, a Hub id, or 'bundled'.",
            "Lanczos windows",
            metavar="PATH",
        ),
    ] = None
    anchor: Annotated[
        Share | None, of_cascade("Share of a stage's steps, from the first, whose low band is held to the pivot's.")
    ] = None
    energy: Annotated[Share | None, of_cascade("How much of the fine detail's energy an enlarged pivot gets back.")] = (
        None
    )
    attention: Annotated[
        Attention | None,
        of_cascade("Self-attention above the native size: full, or local, whose cost is linear in pixels."),
    ] = None
    shared_noise: Annotated[
        Share | None,
        Use(
            "Share of the noise that all frames of a clip have in common, in stages with a pivot.",
            "0",
            CLIPS,
            calls=CALLS,
            taken_by="cascade",
        ),
    ] = None
    upsamplers: Annotated[
        Text | None,
        of_method(
            "Feature upsamplers: a folder, a Hub id, or full or micro for the bundled model.",
            commands=PLAN,
            metavar="DIR",
            any_object=True,
        ),
    ] = None
    upsampler_scale: Annotated[
        Strength | None,
        Use("Strength of the upsamplers; 0 is the tuning-free version.", "1", MAKE, calls=CALLS, taken_by="upsamplers"),
    ] = None
    weights: Annotated[
        Text | None,
        of_method(
            "What `selfcascade train` wrote; for sr a super-resolver's folder or Hub id, or 'bundled'.",
            commands=GENERATE,
            metavar="DIR",
            any_object=True,
        ),
    ] = None
    in_cascade: Annotated[
        bool | None, of_method("Use the weights in a cascade, above the native size only.", "no", commands=GENERATE)
    ] = None
    dilated_share: Annotated[
        Share | None, of_method("Share of the noise levels, from the top, with dilated convolutions.", "by size")
    ] = None
    noise_level: Annotated[
        NoiseLevel | None, of_method("Noise added to the super-resolver's input: a step of its schedule.", "20")
    ] = None
    num_frames: Annotated[
        Frames | None, Use("Number of frames in a clip.", "the model's default", CLIPS | {"plan"}, flag="--frames")
    ] = None
    fps: Annotated[Fps | None, Use("Frames per second of a clip.", "8", CLIPS, passed=False)] = None
    start: Annotated[Start | None, of_source("Where to begin in the clip, in seconds.", "0", commands=UPSCALE)] = None
    vae_tiling: Annotated[
        bool | None,
        Use("Decode the last stage in tiles.", "from 2048x2048 pixels on", MAKE, calls=CALLS, taken_by="vae_tiling"),
    ] = None
    max_memory: Annotated[
        MemorySize | None,
        of_cascade("Most memory for weights and activations; the call is done in parts to fit.", unless="no limit"),
    ] = None
    generator: Annotated[
        Generators | None, of_python("Source of all random numbers; a list gives each picture its own.")
    ] = None
    output_type: Annotated[OutputType, of_python("Format of the returned pictures.", "pil")] = "pil"
    return_dict: Annotated[bool, of_python("False returns a tuple of pictures and stages.", "True", taken_by="")] = True
    pivot: Annotated[
        Latents | None,
        of_python("z_0 of a stage of an earlier call, to continue from.", calls=frozenset({"__call__"}), taken_by=""),
    ] = None

    def __init__(self, **given: object) -> None:
        try:
            BaseModel.__init__(self, **given)
        except ValidationError as error:
            raise refusal(error, hints(type(self)), given) from None

    @model_validator(mode="after")
    def _says_things_once(self) -> Self:
        sides = [name for name in ("height", "width") if getattr(self, name) is not None]
        ratios = [name for name in ("scale", "pixels") if getattr(self, name) is not None]
        if len(ratios) == 2 or (ratios and sides):
            others = "{height} or {width}" if sides else "{pixels}"
            raise OptionError(f"{{{ratios[0]}}} cannot be given with {others}; leave one of them out")
        if self.strength is not None and self.pivot_step is not None:
            raise OptionError("{strength} cannot be given with {pivot_step}: K is the strength times T; leave one out")
        if self.pivot_upscaler is not None and self.max_memory is not None:
            raise OptionError("{pivot_upscaler} cannot be given with {max_memory}, as its memory is not counted")
        return self

    @property
    def pivot_chosen_by(self) -> str | None:
        """The option by which K is given, "pivot_step" or "strength"; None if neither is."""
        return next((name for name in ("pivot_step", "strength") if getattr(self, name) is not None), None)

    @property
    def side_scale(self) -> float | None:
        """The factor for the sides, from `scale` or `pixels`; None if neither is given."""
        return self.scale if self.pixels is None else self.pixels**0.5

    def changed(self, **values: object) -> Self:
        """A copy with other values, all of them checked."""
        return type(self)(**{**dict(self), **values})

    def given(self) -> dict[str, Any]:
        """The given values, which are not left to defaults, by name."""
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {
            name: value
            for name, value in self
            if value is not None and (defaults[name] is None or value != defaults[name])
        }

    def keywords(self, call: str | None = None) -> dict[str, Any]:
        """Given values as keywords for this method of `SelfCascade`, or, with None, for any of `METHODS`."""
        found = {name: use for name, use in uses(type(self)).items() if use.passed}
        if call is not None:
            found = {name: use for name, use in found.items() if call in use.calls}
        return {name: value for name, value in self.given().items() if name in found}

    def as_record(self) -> dict[str, Any]:
        """The values for the record next to a picture, as JSON."""
        kept = {name for name, use in uses(type(self)).items() if use.recorded}
        record = self.model_dump(mode="json", include=kept)
        return record | {"preset": self.preset.name} if isinstance(self.preset, Preset) else record


@functools.cache
def hints(options: type[Options] = Options) -> Mapping[str, object]:
    """The options' annotated types, by name."""
    found = typing.get_type_hints(options, include_extras=True)
    return {name: found[name] for name in options.model_fields}


@functools.cache
def uses(options: type[Options] = Options) -> Mapping[str, Use]:
    """Where each option is taken, by name."""
    fields = options.model_fields
    return {name: next(one for one in field.metadata if isinstance(one, Use)) for name, field in fields.items()}
