"""An untouched diffusers pipeline seen as a base model; one small class per family."""

from __future__ import annotations

from typing import Any

from selfcascade.base_models.family import Family
from selfcascade.base_models.transformers import (
    LTX,
    AuraFlow,
    CogVideoX,
    Flux,
    Flux2,
    Lumina2,
    QwenImage,
    Sana,
    Wan,
    ZImage,
)
from selfcascade.base_models.unets import AnimateDiff, StableDiffusion, StableDiffusionXL, TextToVideo


class PlainTransformer(Family):
    """Transformers with plain latents."""

    classes = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3ControlNetPipeline",
        "PixArtSigmaPipeline",
        "PixArtAlphaPipeline",
        "HunyuanDiTPipeline",
        "CogView4Pipeline",
    )


FAMILIES: tuple[Family, ...] = (
    StableDiffusion(),
    StableDiffusionXL(),
    AnimateDiff(),
    TextToVideo(),
    PlainTransformer(),
    Flux(),
    Flux2(),
    QwenImage(),
    ZImage(),
    AuraFlow(),
    Sana(),
    Lumina2(),
    Wan(),
    LTX(),
    CogVideoX(),
)


def family_of(pipe: Any) -> Family:
    """The family that serves this pipeline.

    Raises:
        ValueError: No family does, or a component of the pipeline is of a kind that it cannot drive.
    """
    names = [kind.__name__ for kind in type(pipe).__mro__]
    for name in names:
        for family in FAMILIES:
            if name in family.classes:
                family.check(pipe)
                return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.classes))
    raise ValueError(f"{type(pipe).__name__} is not supported as a base model; use one of {known}")
