"""Checks of what users pass to a cascade, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfcascade.base_models.pipeline import UPSAMPLINGS

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def is_count(value: Any) -> bool:
    """Whether it is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def per_stage(name: str, value: Any, count: int) -> list[Any]:
    """One value for each stage.

    Raises:
        ValueError: There are several values, but not one a stage.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} values, and there are {count} stages it applies to")
    return list(value)


def check_call(arguments: Mapping[str, Any], upsampling: str, output_type: str, scale: Any, tuned: bool) -> None:
    """Raises ValueError, naming the argument, if a call's settings are not acceptable.

    Args:
        arguments: Those for the pipeline.
        upsampling, output_type: As in `SelfCascade.__call__`.
        scale: `upsampler_scale`.
        tuned: Whether there are upsamplers.
    """
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"upsampling must be one of {', '.join(UPSAMPLINGS)}, not {upsampling!r}")
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be 'pil', 'np', 'pt' or 'latent', not {output_type!r}")
    for name in ("latents", "strength"):
        if name in arguments:
            raise ValueError(f"{name} cannot be given: stages make their own; use pivot_step, or upscale(image)")
    if arguments.get("prompt") == []:
        raise ValueError("prompt is an empty list; give at least one prompt")
    for name in ("num_images_per_prompt", "num_videos_per_prompt"):
        if not is_count(arguments.get(name, 1)):
            raise ValueError(f"{name} must be a positive whole number, not {arguments[name]!r}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not -10 <= scale <= 10:
        raise ValueError(f"upsampler_scale must be a number from -10 to 10, not {scale!r}")
    if not tuned and scale != 1:
        raise ValueError("upsampler_scale is for the tuned version; give SelfCascade upsamplers, or leave it out")
