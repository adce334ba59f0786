"""Named settings of the cascade, and the defaults in a model's folder.

`quality` is the default: it measured best. `paper` reproduces the publication; the others say what they were chosen
for. How they were chosen, on the bundled model, is in docs/presets.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from selfcascade.options.checks import OptionError, Share, check_fields, shown

Upsampling = Literal["latent-bilinear", "latent-bicubic", "rgb"]
Attention = Literal["full", "local"]
# Above zero, as a stage has to start somewhere.
Portion = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class Preset:
    """Settings of the up-scaling stages.

    Attributes:
        name: Name, for `SelfCascade(...)(preset=...)`.
        summary: What the preset is for, in one line.
        pivot_share: K / T of the first up-scaling stage, in (0, 1].
        later_pivot_share: K / T of the stages after it, which already have their composition.
        upsampling: phi: "latent-bilinear", "latent-bicubic" or "rgb" (decode, Lanczos, encode).
        matched: Whether the shares apply at the native size. A larger stage then starts at the step that hides as much
            of its picture (`matched_step`: SNR(K) = SNR(share T) / ratio of the pixels).
        step_share: Steps of an up-scaling stage's schedule, as a share of num_inference_steps. A share below 1 applies
            where that is one number, and always leaves a step at or below K.
        guided: Whether stages with a pivot use guidance. False applies where guidance_scale is one number, the stages
            have no negative prompt of their own, and the pipeline leaves guidance out at a scale of 1.
        anchor: Share of a stage's steps, from the first, whose low band is replaced by the pivot's, in [0, 1].
        energy: How much of its lost energy the enlarged pivot's high band gets back, in [0, 1].
        attention: In stages above the native size a token attends to the whole picture, "full", or to a window of the
            native size, "local". Models that do not support local attention use "full".

    Raises:
        OptionError: A value is out of range.
    """

    name: str
    summary: str
    pivot_share: Portion
    later_pivot_share: Portion
    upsampling: Upsampling
    matched: bool = False
    step_share: Portion = 1.0
    guided: bool = True
    anchor: Share = 0.0
    energy: Share = 0.0
    attention: Attention = "full"

    def __post_init__(self) -> None:
        check_fields(self)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("paper", "K = 700 of 1000, bilinear latents (Guo et al. 2024)", 0.7, 0.7, "latent-bilinear"),
        Preset("rgb", "K = 700, then 400; the pivot enlarged as a picture (docs/bundled.md)", 0.7, 0.4, "rgb"),
        Preset(
            "quality",
            "K = 500, half the steps anchored, the lost energy back; local attention, two fifths of the steps",
            0.5,
            0.5,
            "rgb",
            step_share=0.4,
            anchor=0.5,
            energy=1.0,
            attention="local",
        ),
        Preset(
            "fast",
            "as quality, with a tenth of the steps and without guidance above the base",
            0.5,
            0.5,
            "rgb",
            step_share=0.1,
            guided=False,
            anchor=0.5,
            energy=1.0,
            attention="local",
        ),
    )
}


DEFAULT_PRESET = "quality"
UNANCHORED_PRESET = "rgb"  # the best one measured without an anchor, which some schedulers cannot do
DEFAULTS_FILE = "selfcascade.json"
MAX_DEFAULTS_BYTES = 10_000


class ModelDefaults(BaseModel):
    """A model's own defaults: `selfcascade.json` next to its `model_index.json`.

    Raises:
        ValueError: A key is unknown or a value out of range (pydantic's `ValidationError` is one).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_inference_steps: int = Field(default=50, ge=1, le=10_000, description="Steps of the whole schedule.")
    guidance_scale: float | None = Field(
        default=None, ge=0, le=1000, allow_inf_nan=False, description="Guidance; null: the pipeline's default."
    )
    preset: str | None = Field(default=None, description="A name in PRESETS; null: 'quality'.")
    native_size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="[height, width] in pixels the model was trained at; null: read from the pipeline."
    )

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return None if name is None else preset_named(name).name


def defaults_of(pipe: Any) -> ModelDefaults:
    """The defaults in the folder that a pipeline was loaded from, or the general ones if there are none.

    For a pipeline built by hand, set the folder with `pipe.register_to_config(_name_or_path=folder)`.

    Raises:
        ValueError: The file is damaged, has an unknown key, or a value is out of range; the message names it.
    """
    place = getattr(pipe, "config", {}).get("_name_or_path")
    path = Path(place) / DEFAULTS_FILE if isinstance(place, (str, Path)) else None
    if path is None or not path.is_file():
        return ModelDefaults()
    try:
        if path.stat().st_size > MAX_DEFAULTS_BYTES:
            raise ValueError(f"the file is larger than {MAX_DEFAULTS_BYTES} bytes")
        return ModelDefaults.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{str(path)!r}: {where + ': ' if where else ''}{first['msg']}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def preset_named(name: object) -> Preset:
    """The preset of this name; a `Preset` is returned as it is.

    Raises:
        OptionError: No preset has this name.
    """
    if isinstance(name, Preset):
        return name
    if not isinstance(name, str) or name not in PRESETS:
        raise OptionError("{preset} must be one of {known}, not {found}", known=", ".join(PRESETS), found=shown(name))
    return PRESETS[name]
