"""Changes an autoencoder's precision or tiling for the length of a context."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch

# From here on a decoded picture alone takes gigabytes inside a VAE, so it is decoded in tiles unless told otherwise.
TILING_AREA = 2048 * 2048


def is_upcast(vae: Any) -> bool:
    """Whether the VAE works in float32 though its weights are stored in half precision."""
    return vae.dtype == torch.float16 and bool(vae.config.get("force_upcast", False))


@contextlib.contextmanager
def full_precision(vae: Any) -> Generator[Any]:
    """The VAE, in float32 where half precision is known to overflow (`force_upcast`); restored afterwards."""
    upcast = is_upcast(vae)
    if upcast:
        vae.to(torch.float32)
    try:
        yield vae
    finally:
        if upcast:
            vae.to(torch.float16)


def in_tiles(vae: Any, wanted: bool | None, area: int) -> bool:
    """Whether a call's VAE works in tiles: as `wanted`; None: if it does already, or a picture has a large area."""
    return getattr(vae, "use_tiling", False) or area >= TILING_AREA if wanted is None else wanted


@contextlib.contextmanager
def tiling(vae: Any, wanted: bool) -> Generator[None]:
    """The VAE works in tiles within this context, or whole if not `wanted`, where it can; restored afterwards."""
    now = bool(getattr(vae, "use_tiling", False))
    switch = wanted != now and hasattr(vae, "enable_tiling")
    if switch:
        vae.enable_tiling() if wanted else vae.disable_tiling()
    try:
        yield
    finally:
        if switch:
            vae.enable_tiling() if now else vae.disable_tiling()
