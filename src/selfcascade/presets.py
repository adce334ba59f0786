"""Named settings of the cascade. `paper` reproduces the publication; the others say what they were chosen by.

The figures are of the bundled world, thirty pictures a setting (`experiments/table2`); docs/presets.md has more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from selfcascade.checks import OptionError, Share, check_fields, shown

Upsampling = Literal["latent-bilinear", "latent-bicubic", "rgb"]
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


def preset_named(name: object) -> Preset:
    """The preset of this name; one that is no name but a preset is returned as it is.

    Raises:
        OptionError: There is none.
    """
    if isinstance(name, Preset):
        return name
    if not isinstance(name, str) or name not in PRESETS:
        raise OptionError("{preset} must be one of {known}, not {found}", known=", ".join(PRESETS), found=shown(name))
    return PRESETS[name]
