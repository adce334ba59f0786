"""Checks of what users pass to a cascade, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from selfcascade.base_models.pipeline import UPSAMPLINGS
from selfcascade.cascade import Size, Stage

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


def stages_after(pivot: Any, stages: Sequence[Stage], factor: int) -> Sequence[Stage]:
    """The stages that are left to run when the pivot is the result of one of them.

    Args:
        pivot: z_0 of a stage, (B, C, h, w) or (B, C, F, h, w).
        stages: The whole plan.
        factor: Pixels of a latent pixel's side.

    Raises:
        ValueError: The pivot is no tensor of latents of any stage's size but the last's.
    """
    if not isinstance(pivot, Tensor) or not pivot.is_floating_point():
        raise ValueError(f"pivot must be latents, a tensor of floating-point numbers, not {type(pivot).__name__}")
    sizes = [Size(stage.size.height // factor, stage.size.width // factor) for stage in stages[:-1]]
    if pivot.ndim not in (4, 5) or Size(*pivot.shape[-2:]) not in sizes:
        wanted = ", ".join(map(str, sizes)) or "none, as there is but one stage"
        raise ValueError(f"pivot must be a stage's latents, height x width {wanted}; its shape is {[*pivot.shape]}")
    return stages[sizes.index(Size(*pivot.shape[-2:])) + 1 :]
