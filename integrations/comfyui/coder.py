"""A ComfyUI VAE between latents and pixels whose values are not cut off, so that a pivot loses nothing on the way."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pixels of latents, (B, C, h, w) to (B, 3, H, W), about [-1, 1]; in tiles where memory is short."""
    exact = copy.copy(vae)  # shares the weights; the user's own is not changed
    exact.process_output = _as_it_is
    return exact.decode(latents).movedim(-1, 1)


def encode(vae: Any, pixels: Tensor) -> Tensor:
    """The inverse: the mode of the posterior, (B, 3, H, W) to (B, C, h, w)."""
    exact = copy.copy(vae)
    exact.process_input = _as_it_is
    return exact.encode(pixels.movedim(1, -1))


def factor(vae: Any) -> int:
    """Pixels per latent pixel and side.

    Raises:
        ValueError: It is a VAE for clips or sounds.
    """
    stated = vae.spacial_compression_decode()
    if not isinstance(stated, int) or getattr(vae, "latent_dim", 2) != 2:
        raise ValueError("vae must be one for pictures, whose latents are (batch, channels, height, width)")
    return stated


def _as_it_is(pixels: Tensor) -> Tensor:
    return pixels
