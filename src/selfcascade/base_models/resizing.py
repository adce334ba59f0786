"""Latents and pixels cropped and resized on the way to a larger stage.

Axis letters: B images, C channels, F frames, h, w latent pixels, H, W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.base_models.frames import fold, unfold
from selfcascade.cascade import Size


def resize_latents(z: Tensor, target: tuple[int, int], mode: str) -> Tensor:
    """Latents (B, C, h, w) or (B, C, F, h, w) at height and width `target`, interpolated in float32 frame by frame.

    Args:
        z: Any dtype, which the result has too.
        target: (h', w').
        mode: "bilinear" or "bicubic".
    """
    folded = fold(z) if z.ndim == 5 else z
    larger = interpolate(folded.float(), size=target, mode=mode, align_corners=False).to(z.dtype)
    return unfold(larger, len(z)) if z.ndim == 5 else larger


def lanczos(pixels: Tensor, size: Size) -> Tensor:
    """Pixels resized with Lanczos windows in float32, (B, 3, H, W) or (B, 3, F, H, W), any value range."""
    planes = pixels.float().cpu().flatten(0, -3).numpy()  # (B 3 F, H, W)
    resample = Image.Resampling.LANCZOS
    resized = [np.asarray(Image.fromarray(plane).resize((size.width, size.height), resample)) for plane in planes]
    return torch.as_tensor(np.stack(resized)).view(*pixels.shape[:-2], *size).to(pixels)


def cropped(pixels: Tensor, size: Size) -> Tensor:
    """The largest part around the centre that has the size's ratio; pixels (..., H, W)."""
    height, width = pixels.shape[-2:]
    scale = min(height / size.height, width / size.width)
    rows, columns = max(1, round(size.height * scale)), max(1, round(size.width * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[..., top : top + rows, left : left + columns]


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1]: bytes as float32, floats as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def fitted(pixels: Tensor, size: Size) -> Tensor:
    """A user's pixels, bytes or in [0, 1], cropped at the centre to the size's ratio and resized: in [-1, 1]."""
    return lanczos(as_floats(cropped(pixels, size)), size).clamp(0, 1) * 2 - 1
