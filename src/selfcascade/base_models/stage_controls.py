"""Resizes control pictures to each stage's size.

Pipelines of transformers resize a `control_image` that is a picture or an array, but not a tensor, and so do those with
T2I-adapters their `image`: a tensor of the target's size would not fit the stages before it.

Axis letters: B images, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size

PIXEL_CHANNELS = (1, 3)  # other tensors hold latents


def at_size(control: object, size: Size) -> Any:
    """A control picture at the stage's size; anything but a tensor of pixels, (B, C, H, W), is returned unchanged.

    Args:
        control: A tensor in the pipeline's value range, which is kept, or a list with one for each ControlNet.
        size: The stage's size.
    """
    if isinstance(control, list):
        return [at_size(item, size) for item in cast("list[object]", control)]
    if not isinstance(control, Tensor) or control.ndim != 4 or control.shape[1] not in PIXEL_CHANNELS:
        return control
    if tuple(control.shape[-2:]) == size:
        return control
    return lanczos(control, size).clamp(float(control.min()), float(control.max()))


def controls_at(pipe: object, arguments: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """A call's control tensors at the stage's size; empty if there are none."""
    name = "image" if getattr(pipe, "adapter", None) is not None else "control_image"
    resizes = hasattr(pipe, "unet") and name == "control_image"  # pipelines of U-Nets do so for ControlNets
    if resizes or arguments.get(name) is None:
        return {}
    return {name: at_size(arguments[name], size)}
