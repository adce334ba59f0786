"""Decodes a stage's latents to pictures or clips in the requested output type."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfcascade.base_models.autoencoders import full_precision
from selfcascade.base_models.family import Family
from selfcascade.base_models.frames import frames_at_once, join_parts
from selfcascade.cascade import Size


class Decoded(NamedTuple):
    """Pictures or clips in the requested output type, and the safety checker's results; None without a checker."""

    pictures: Any
    flagged: list[bool] | None = None


def decode_latents(family: Family, z: Tensor, output_type: str, chunk: int | None = None) -> Decoded:
    """Decodes latents exactly as the pipeline itself would.

    Args:
        family: The pipeline's family.
        z: (B, C, h, w) or (B, C, F, h, w).
        output_type: "pil", "np", "pt" or "latent".
        chunk: `decode_chunk_size`; see `decode_clips`.
    """
    if output_type == "latent":
        return Decoded(z)
    if family.framewise:
        return Decoded(decode_clips(family, z, output_type, chunk))
    return checked_pictures(family, family.decode(z).float(), output_type)


def checked_pictures(family: Family, pixels: Tensor, output_type: str) -> Decoded:
    """Pixels in the requested output type, with the pipeline's watermark, or black where its safety checker objects.

    Args:
        family: The pipeline's family.
        pixels: (B, 3, H, W), or for video (B, 3, F, H, W), float32 about [-1, 1].
        output_type: "pil", "np" or "pt".
    """
    pipe: Any = family.pipe
    if family.video:
        return Decoded(family.shown(pixels, output_type))
    flagged: list[bool] | None = None
    if getattr(pipe, "safety_checker", None) is not None:
        pixels, flagged = pipe.run_safety_checker(pixels, pixels.device, family.denoiser.dtype)
    if getattr(pipe, "watermark", None) is not None:
        pixels = pipe.watermark.apply_watermark(pixels)
    clean = [True] * len(pixels) if flagged is None else [not flag for flag in flagged]  # the others are black already
    return Decoded(family.shown(pixels, output_type, clean), flagged)


def as_asked(pictures: object, output_type: str) -> object:
    """A pipeline's own pictures; arrays, (B, H, W, 3), become the tensors that were asked for, (B, 3, H, W)."""
    if output_type == "pt" and isinstance(pictures, np.ndarray):  # some older pipelines know no tensors
        return torch.as_tensor(pictures).movedim(-1, 1)
    return pictures


def decode_clips(family: Family, z: Tensor, output_type: str, chunk: int | None = None) -> Any:
    """Decodes clips with a frame-wise pipeline's own method, a few frames at a time.

    Args:
        family: The pipeline's family.
        z: (B, C, F, h, w).
        output_type: "pil", "np" or "pt".
        chunk: Frames, over all clips, to decode at once; None means as many as make up a megapixel.
    """
    pipe, frames = family.pipe, z.shape[2]
    size = Size(z.shape[-2] * family.factor, z.shape[-1] * family.factor)
    count = frames_at_once(len(z), size) if chunk is None else max(1, chunk // len(z))
    # Pipelines that can decode in float32 for their VAE have this method.
    upcasts = hasattr(pipe, "upcast_vae")
    with full_precision(pipe.vae) if upcasts else contextlib.nullcontext(pipe.vae) as vae:

        def shown(start: int) -> Any:
            part = z[:, :, start : start + count].to(vae.dtype)
            pixels = pipe.decode_latents(part, **family.decoding_arguments(part.shape[2], chunk))
            return pipe.video_processor.postprocess_video(pixels, output_type=output_type)

        clips = join_parts((shown(start) for start in range(0, frames, count)), frames, axis=1)
    pipe.maybe_free_model_hooks()
    return clips
