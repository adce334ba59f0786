"""The U-Net's conditions besides the timestep: the caption, and for SDXL the sizes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def encode_captions(pipe: Any, captions: Sequence[str]) -> dict[str, Tensor]:
    """The pipeline's own prompt embeddings, without guidance.

    Args:
        pipe: Stable Diffusion 1.x, 2.x, XL, AnimateDiff or ModelScope.
        captions: One caption per picture or clip.

    Returns:
        "encoder_hidden_states" (B, tokens, D), and for SDXL "pooled" (B, D').
    """
    names = inspect.signature(pipe.encode_prompt).parameters
    count = {name: 1 for name in ("num_images_per_prompt", "num_videos_per_prompt") if name in names}
    encoded = pipe.encode_prompt(list(captions), device=pipe.unet.device, do_classifier_free_guidance=False, **count)
    embeds = {"encoder_hidden_states": encoded[0]}
    if takes_sizes(pipe.unet):
        embeds["pooled"] = encoded[2]
    return embeds


def unet_arguments(
    pipe: Any, embeds: dict[str, Tensor], original_sizes: Tensor, crops: Tensor, size: Sequence[int], frames: int = 1
) -> dict[str, Any]:
    """The U-Net's keyword arguments.

    Args:
        pipe: The pipeline; see `encode_captions`.
        embeds: Result of `encode_captions`.
        original_sizes: Heights and widths of the files, (B, 2).
        crops: Top and left of the crops, (B, 2), in pixels of the resized picture.
        size: (height, width) of this pass.
        frames: Number of frames in each clip. AnimateDiff's U-Net takes each caption once per frame; ModelScope's
            repeats captions itself.
    """
    states = embeds["encoder_hidden_states"]
    if "motion_max_seq_length" in pipe.unet.config:
        states = states.repeat_interleave(frames, 0)  # (B F, tokens, D)
    arguments: dict[str, Any] = {"encoder_hidden_states": states}
    if takes_sizes(pipe.unet):
        target = torch.tensor(list(size)).expand(len(crops), 2)
        # In float32 whatever the captions' precision: half precision cannot distinguish large sizes.
        time_ids = torch.cat([original_sizes, crops, target], 1).to(embeds["pooled"].device, torch.float32)
        arguments["added_cond_kwargs"] = {"text_embeds": embeds["pooled"], "time_ids": time_ids}
    return arguments


def takes_sizes(unet: Any) -> bool:
    """Whether the U-Net takes the picture's sizes, like SDXL's."""
    return unet.config.get("addition_embed_type") == "text_time"
