"""Named settings of the cascade, and those that a model's own folder carries.

`quality` is the default: it measured best. `paper` reproduces the publication; the others say what they were chosen by.
The figures are of the bundled world, thirty pictures a setting (`experiments/table2`); docs/presets.md has more.
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
        name: As given to `SelfCascade(...)(preset=...)`.
        summary: What it is for, in a line.
        pivot_share: K / T of the first up-scaling stage, in (0, 1].
        later_pivot_share: K / T of the stages after it, whose composition is made already.
        upsampling: phi: "latent-bilinear", "latent-bicubic" or "rgb" (decode, Lanczos, encode).
        matched: Whether the two shares are meant at the native size; each stage then starts at the step that hides as
            much of its larger picture (`matched_step`: SNR(K) = SNR(share T) / the ratio of the pixels).
        step_share: Steps of up-scaling stages' schedules, as a share, below 1, of num_inference_steps where that is one
            number; never so few that none lies at or below K.
        anchor: Share of a stage's steps, the first ones, whose low band is the pivot's, in [0, 1].
        energy: Strength at which the enlarged pivot's high band gets its energy back, in [0, 1].
        attention: In stages larger than the native size a token attends to the whole picture, "full", or to a window
            of the native size, "local"; full where a network of the model does not support local attention.

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
            "K = 500, half the steps anchored, the lost energy back: patch FID 17.7 at 16x, rgb 24.0, paper 34.5",
            0.5,
            0.5,
            "rgb",
            anchor=0.5,
            energy=1.0,
        ),
        Preset(
            "fast",
            "K = 300, then 200, half the steps: a sixth of paper's TFLOPs at 16x, patch FID 22.0",
            0.3,
            0.2,
            "rgb",
            step_share=0.5,
        ),
    )
}


DEFAULT_PRESET = "quality"
UNANCHORED_PRESET = "rgb"  # the best that is measured without an anchor, which some schedulers cannot hold
DEFAULTS_FILE = "selfcascade.json"
MAX_DEFAULTS_BYTES = 10_000


class ModelDefaults(BaseModel):
    """What a model is sampled with where a call does not say: `selfcascade.json` beside its `model_index.json`.

    Raises:
        ValueError: A key is unknown or a value out of range (pydantic's `ValidationError` is one).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_inference_steps: int = Field(default=50, ge=1, le=10_000, description="Steps of the whole schedule.")
    guidance_scale: float | None = Field(
        default=None, ge=0, le=1000, allow_inf_nan=False, description="Guidance; none: the pipeline's own default."
    )
    preset: str | None = Field(default=None, description="A name of PRESETS; none: 'quality'.")
    native_size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="[height, width] in pixels the model was trained at; none: as the pipeline says."
    )

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return None if name is None else preset_named(name).name


def defaults_of(pipe: Any) -> ModelDefaults:
    """The defaults in the folder that a pipeline was loaded from; the general ones where it carries none.

    A pipeline that was built by hand is told its folder by `pipe.register_to_config(_name_or_path=folder)`.

    Raises:
        ValueError: The file is damaged, has an unknown key, or a value is out of range; the file is named.
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
        OptionError: There is none.
    """
    if isinstance(name, Preset):
        return name
    if not isinstance(name, str) or name not in PRESETS:
        raise OptionError("{preset} must be one of {known}, not {found}", known=", ".join(PRESETS), found=shown(name))
    return PRESETS[name]
