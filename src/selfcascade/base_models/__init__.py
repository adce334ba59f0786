"""Drives an untouched diffusers pipeline as a base model; one small class per family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from selfcascade.base_models.family import Family
from selfcascade.base_models.image_transformers import (
    PRX,
    AuraFlow,
    CogView3Plus,
    Flux,
    Flux2,
    Flux2Klein,
    FluxKontext,
    Kandinsky5Image,
    Krea2,
    Lumina,
    Lumina2,
    NucleusMoE,
    PlainTransformer,
    QwenImage,
    QwenImage21,
    Sana,
    StableDiffusion3,
    ZImage,
)
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.unets import AnimateDiff, Kandinsky3, StableDiffusion, StableDiffusionXL, TextToVideo
from selfcascade.base_models.unserved import UNSERVED
from selfcascade.base_models.video_transformers import (
    LTX,
    AnyFlow,
    CogVideoX,
    EasyAnimate,
    HunyuanVideo,
    HunyuanVideo15,
    Kandinsky5Video,
    Latte,
    Mochi,
    MotifVideo,
    SanaVideo,
    Wan,
)

__all__ = ["FAMILIES", "UNSERVED", "Family", "family_of", "register_family"]

FamilyClass = TypeVar("FamilyClass", bound=type[Family])

FAMILIES: list[type[Family]] = [
    StableDiffusion,
    StableDiffusionXL,
    AnimateDiff,
    TextToVideo,
    PlainTransformer,
    StableDiffusion3,
    AuraFlow,
    Lumina2,
    Flux,
    Flux2,
    Flux2Klein,
    QwenImage,
    ZImage,
    Sana,
    Wan,
    LTX,
    CogVideoX,
    HunyuanVideo,
    HunyuanVideo15,
    MotifVideo,
    Kandinsky5Video,
    SanaVideo,
    AnyFlow,
    Mochi,
    EasyAnimate,
    Latte,
    PRX,
    CogView3Plus,
    Lumina,
    Krea2,
    NucleusMoE,
    Kandinsky5Image,
    FluxKontext,
    QwenImage21,
    Kandinsky3,
]


def register_family(family: FamilyClass) -> FamilyClass:
    """Registers your own family for its pipeline classes; it takes precedence over those that serve them already.

    Args:
        family: A subclass of `Family` that names its pipeline classes. It is returned, so this works as a decorator.

    Raises:
        ValueError: `family` is not a subclass of `Family`, or names no classes.
    """
    named = cast("object", family.classes) if _is_family(family) else ()
    names = cast("Sequence[object]", named) if isinstance(named, (tuple, list)) else ()
    if not names or not all(isinstance(one, str) for one in names):
        raise ValueError(f"family must be a subclass of selfcascade.Family that names its classes, not {family!r}")
    if family not in FAMILIES:
        FAMILIES.insert(0, family)
    return family


def family_of(pipe: Pipeline, family: type[Family] | None = None) -> Family:
    """The family that serves this pipeline, bound to it.

    Args:
        pipe: A diffusers pipeline.
        family: The family to use, registered or not; None picks the registered one for the pipeline's class.

    Raises:
        ValueError: No family serves the pipeline, or a component is of a kind that the family cannot drive.
    """
    if family is not None and not _is_family(family):
        raise ValueError(f"family must be a subclass of selfcascade.Family or None, not {family!r}")
    bound = (family or _registered(pipe))(pipe)
    bound.check()
    return bound


def _registered(pipe: Pipeline) -> type[Family]:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    for kind in type(pipe).__mro__:
        for family in FAMILIES:
            if kind.__name__ in family.classes:
                return family
    why = next((UNSERVED[kind.__name__] for kind in type(pipe).__mro__ if kind.__name__ in UNSERVED), None)
    if why is not None:
        raise ValueError(f"{type(pipe).__name__} is not supported as a base model: {why}")
    if not isinstance(pipe, DiffusionPipeline):
        raise ValueError(f"{type(pipe).__name__} is not supported as a base model; give a diffusers pipeline")
    known = ", ".join(sorted({name for family in FAMILIES for name in family.classes}))
    raise ValueError(f"{type(pipe).__name__} is not supported as a base model; use one of {known}")


def _is_family(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Family)
