"""Crops and resizes latents and pixels on the way to a larger stage.

Axis letters: B images, C channels, F frames, h, w latent pixels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

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
        z: Latents of any dtype; the result has the same.
        target: (h', w').
        mode: "bilinear" or "bicubic".
    """
    folded = fold(z) if z.ndim == 5 else z
    larger = interpolate(folded.float(), size=target, mode=mode, align_corners=False).to(z.dtype)
    return unfold(larger, len(z)) if z.ndim == 5 else larger


def lanczos(pixels: Tensor, size: Size) -> Tensor:
    """Resizes pixels, (B, 3, H, W) or (B, 3, F, H, W) in any value range, with Lanczos windows in float32."""
    planes = pixels.float().cpu().flatten(0, -3).numpy()  # (B 3 F, H, W)
    resample = Image.Resampling.LANCZOS
    resized = [np.asarray(Image.fromarray(plane).resize((size.width, size.height), resample)) for plane in planes]
    return torch.as_tensor(np.stack(resized)).view(*pixels.shape[:-2], *size).to(pixels)


def cropped(pixels: Tensor, size: Size) -> Tensor:
    """The largest part around the centre of pixels (..., H, W) that has the size's ratio."""
    height, width = pixels.shape[-2:]
    scale = min(height / size.height, width / size.width)
    rows, columns = max(1, round(size.height * scale)), max(1, round(size.width * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[..., top : top + rows, left : left + columns]


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1]: bytes become float32, floats are returned unchanged."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def fitted(pixels: Tensor, size: Size, enlarge: Callable[[Tensor, Size], Tensor] = lanczos) -> Tensor:
    """Pixels in [-1, 1] from bytes or from [0, 1], cropped at the centre to the size's ratio and resized.

    Args:
        pixels: (B, 3, H, W) or (B, 3, F, H, W).
        size: The size wanted.
        enlarge: Resizes pixels in [0, 1].
    """
    return enlarge(as_floats(cropped(pixels, size)), size).clamp(0, 1) * 2 - 1
