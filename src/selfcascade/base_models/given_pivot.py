"""Continues from latents of an earlier call: checks them, and finds the stages that are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.base_models.request import Request
from selfcascade.cascade import Size, Stage


def taken_up(pivot: Any, stages: Sequence[Stage], request: Request, family: Family) -> tuple[Sequence[Stage], Request]:
    """The stages left to run after the pivot, and the request with a prompt for each of its samples.

    Args:
        pivot: z_0 of a stage, (B, C, h, w) or for video (B, C, F, h, w); None runs all stages.
        stages: The whole plan.
        request: The call's arguments; a single prompt applies to all samples.
        family: The model's family.

    Raises:
        ValueError: The pivot is not a tensor of finite latents at the size of a stage before the last, or its number of
            samples or frames differs from the call's.
    """
    if pivot is None:
        return stages, request
    left = _stages_after(pivot, stages, family)
    return left, _request_for(request, pivot, family)


def _stages_after(pivot: Any, stages: Sequence[Stage], family: Family) -> Sequence[Stage]:
    if not isinstance(pivot, Tensor) or not pivot.is_floating_point():
        raise ValueError(f"pivot must be latents, a tensor of floating-point numbers, not {type(pivot).__name__}")
    sizes = [Size(*family.latent_size(stage.size)) for stage in stages[:-1]]
    axes = "(B, C, F, h, w)" if family.video else "(B, C, h, w)"
    if pivot.ndim != axes.count(",") + 1 or Size(*pivot.shape[-2:]) not in sizes or not pivot.numel():
        wanted = ", ".join(map(str, sizes)) or "none, as there is but one stage"
        raise ValueError(
            f"pivot must be a stage's latents, {axes} with height x width {wanted}; its shape is {[*pivot.shape]}"
        )
    channels = getattr(getattr(family.pipe, "unet", None), "config", {}).get("out_channels")
    if channels not in (None, pivot.shape[1]):
        raise ValueError(f"pivot must have {channels} channels, as the model's latents have, not {pivot.shape[1]}")
    if not torch.isfinite(pivot).all():
        raise ValueError("pivot has values that are not finite")
    return stages[sizes.index(Size(*pivot.shape[-2:])) + 1 :]


def _request_for(request: Request, pivot: Tensor, family: Family) -> Request:
    count, copies = len(pivot), request.copies
    if family.video:
        held = family.frames_of(pivot.shape[2])
        frames = request.arguments.get("num_frames", held)
        if family.latent_frames(frames) != pivot.shape[2]:
            raise ValueError(f"num_frames is the pivot's, {held}, not {frames!r}; leave it out")
        request = replace(request, arguments={**request.arguments, "num_frames": frames})
    # Many pipelines of clips pass over the number of clips per prompt.
    if count == request.prompts * copies or (family.video and count == request.prompts):
        return request
    if request.prompts == copies == 1 and request.prompt is not None:
        return request.for_pictures(count, family.video)
    raise ValueError(f"pivot has {count} samples, and the call makes {request.prompts * copies}; give as many prompts")
