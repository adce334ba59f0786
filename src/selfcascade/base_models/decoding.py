"""Latents of any stage as pictures or clips in the asked output type."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from torch import Tensor

from selfcascade.base_models.autoencoders import full_precision
from selfcascade.base_models.family import Family
from selfcascade.base_models.frames import frames_at_once, join_parts
from selfcascade.cascade import Size


class Decoded(NamedTuple):
    """Pictures or clips in the asked output type, and what a safety checker says of each; None without one."""

    pictures: Any
    flagged: list[bool] | None = None


def decode_latents(family: Family, z: Tensor, output_type: str, chunk: int | None = None) -> Decoded:
    """What the pipeline itself would have made of the latents.

    Args:
        family: The pipeline's family.
        z: (B, C, h, w) or (B, C, F, h, w).
        output_type: "pil", "np", "pt" or "latent".
        chunk: `decode_chunk_size`, as in `decode_clips`.
    """
    if output_type == "latent":
        return Decoded(z)
    if family.framewise:
        return Decoded(decode_clips(family, z, output_type, chunk))
    pipe, pixels = family.pipe, family.decode(z).float()
    if family.video:
        return Decoded(family.shown(pixels, output_type))
    flagged: list[bool] | None = None
    if getattr(pipe, "safety_checker", None) is not None:
        pixels, flagged = pipe.run_safety_checker(pixels, pixels.device, family.denoiser.dtype)
    shown = (
        [True] * len(pixels) if flagged is None else [not flag for flag in flagged]
    )  # flagged ones are black already
    return Decoded(family.shown(pixels, output_type, shown), flagged)


def decode_clips(family: Family, z: Tensor, output_type: str, chunk: int | None = None) -> Any:
    """A frame-wise pipeline's own decoding of clips, a few frames at a time up to the asked output type.

    Args:
        family: The pipeline's family.
        z: (B, C, F, h, w).
        output_type: "pil", "np" or "pt".
        chunk: Frames, of all clips together, that the VAE is to decode at once; None: as many as make a megapixel.
    """
    pipe, frames = family.pipe, z.shape[2]
    size = Size(z.shape[-2] * family.factor, z.shape[-1] * family.factor)
    count = frames_at_once(len(z), size) if chunk is None else max(1, chunk // len(z))
    # Pipelines that decode in float32 where their VAE asks for it have this method.
    upcasts = hasattr(pipe, "upcast_vae")
    with full_precision(pipe.vae) if upcasts else contextlib.nullcontext(pipe.vae) as vae:

        def shown(start: int) -> Any:
            part = z[:, :, start : start + count].to(vae.dtype)
            pixels = pipe.decode_latents(part, **family.decoding_arguments(part.shape[2], chunk))
            return pipe.video_processor.postprocess_video(pixels, output_type=output_type)

        clips = join_parts((shown(start) for start in range(0, frames, count)), frames, axis=1)
    pipe.maybe_free_model_hooks()
    return clips
