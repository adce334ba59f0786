"""What is switched in an autoencoder for a time, and put back: its precision, its tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch


@contextlib.contextmanager
def full_precision(vae: Any) -> Generator[Any]:
    """The VAE, in float32 where half precision is known to overflow (`force_upcast`); restored afterwards."""
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        yield vae
    finally:
        if upcast:
            vae.to(torch.float16)


@contextlib.contextmanager
def tiling(vae: Any, wanted: bool) -> Generator[None]:
    """With it the VAE decodes in tiles, if that is wanted and it can; afterwards it is as it was."""
    switch = wanted and hasattr(vae, "enable_tiling") and not getattr(vae, "use_tiling", False)
    if switch:
        vae.enable_tiling()
    try:
        yield
    finally:
        if switch:
            vae.disable_tiling()
