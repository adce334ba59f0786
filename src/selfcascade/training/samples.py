"""Differences between training on clips and on pictures: supported models, and the encoding of frames.

Axis letters: B pictures or clips, C channels, F frames, h, w latent pixels, H, W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.base_models import family_of
from selfcascade.training.config import TrainingConfig


def check_model(pipe: Any, config: TrainingConfig) -> None:
    """Raises ValueError if this model cannot be trained on such pictures or clips."""
    what, frames = f"model {config.model!r} is a {type(pipe).__name__}", config.frames
    if not hasattr(pipe, "unet"):
        raise ValueError(f"{what}; only models with a U-Net are trained")
    family = family_of(pipe)
    if family.video and frames is None:
        raise ValueError(f"{what}, which makes clips; give frames, the number that is taken of each")
    if not family.video and frames is not None:
        raise ValueError(f"{what}, which makes pictures; frames must be left out, not {frames}")
    most = family.most_frames if family.video else None
    if frames is not None and most is not None and frames > most:
        raise ValueError(f"frames must be at most {most}, where the motion adapter's positions end, not {frames}")


@torch.no_grad()
def encode_with_pivot(pipe: Any, pixels: Tensor, scale: float) -> dict[str, Tensor]:
    """z^r = E(x) and the pivot z^(r-1) = E(downsample(x)), by area averaging (paper, Algorithm 1).

    Args:
        pipe: The pipeline whose VAE encodes; clips are encoded a few frames at a time.
        pixels: (B, 3, H, W), or (B, F, 3, H, W) for clips, in [-1, 1].
        scale: Ratio of the sides to the pivot's, which are rounded to a size that the model supports.

    Returns:
        "z_0" and "pivot", (B, C, h, w), or (B, C, F, h, w) for clips, float32.
    """
    family = family_of(pipe)
    multiple = family.multiple
    sides = [max(multiple, round(side / scale / multiple) * multiple) for side in pixels.shape[-2:]]
    small = interpolate(pixels.flatten(0, -4), size=sides, mode="area").unflatten(0, pixels.shape[:-3])
    return {
        name: family.encode(x.transpose(1, 2) if family.video else x).float().contiguous()
        for name, x in (("z_0", pixels), ("pivot", small))
    }
