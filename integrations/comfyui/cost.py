"""What the stages of a plan cost, counted on weightless copies of ComfyUI's own network; nothing is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.ldm.modules.attention
import torch
from torch import Tensor, nn

from selfcascade.cascade import Stage
from selfcascade.cost.forward import CLIP_TOKENS, ForwardCost, count
from selfcascade.upsamplers.ldm import is_ldm

from .schedules import ComfySchedules

GIB = 2**30


def costs_told(model: Any, schedules: ComfySchedules, stages: Sequence[Stage], batch: int, factor: int) -> str:
    """TFLOPs and memory of the stages' denoising with guidance, in words; only U-Nets are supported.

    Args:
        model: A `ModelPatcher`.
        schedules: The model's schedules.
        stages: The plan.
        batch: Pictures made together.
        factor: Pixels per latent pixel and side.
    """
    if not is_ldm(model.model.diffusion_model):
        return "TFLOPs and memory are counted for U-Nets (Stable Diffusion 1.x, 2.x, XL) only"
    network, total, most, lines = weightless(model), 0.0, 0, list[str]()
    for stage in stages:
        guided = stage.guidance_scale is None or stage.guidance_scale > 1
        shape = (2 * batch if guided else batch, stage.size.height // factor, stage.size.width // factor)
        cost = forward_cost(model, network, shape)
        steps = len(schedules.sigmas(stage.num_inference_steps, stage.pivot_step)) - 1
        tflops, peak = steps * cost.flops / 1e12, model.model_size() + cost.peak_bytes
        lines.append(f"{stage.size.width} x {stage.size.height}: {tflops:.3g} TFLOPs, {peak / GIB:.3g} GiB")
        total, most = total + tflops, max(most, peak)
    return "\n".join([*lines, f"all: {total:.3g} TFLOPs, {most / GIB:.3g} GiB, without the VAE and the text encoder"])


def weightless(model: Any) -> nn.Module:
    """The network built again from its configuration, on the meta device."""
    config = dict(model.model.model_config.unet_config)
    if model.model.manual_cast_dtype is not None:  # weights that are stored in fewer bits than it computes in
        config["dtype"] = model.model.manual_cast_dtype
    operations = model.model.model_config.custom_operations or comfy.ops.disable_weight_init
    return type(model.model.diffusion_model)(**{**config, "device": "meta", "operations": operations})


def forward_cost(model: Any, network: nn.Module, shape: tuple[int, int, int]) -> ForwardCost:
    """The cost of one pass of a U-Net with latents of shape (B, h, w)."""
    channels, dtype = network.in_channels, network.dtype
    context, labels = model.model.model_config.unet_config["context_dim"], model.model.adm_channels
    # Its own attention may be one that a meta tensor cannot pass; this one is counted as a fused kernel.
    options = {"optimized_attention_override": _fused}

    def forward(unet: nn.Module, sizes: tuple[int, int, int]) -> Tensor:
        batch, h, w = sizes
        place: dict[str, Any] = {"device": "meta", "dtype": dtype}
        y = torch.zeros(batch, labels, **place) if labels else None
        z_t, text = torch.zeros(batch, channels, h, w, **place), torch.zeros(batch, CLIP_TOKENS, context, **place)
        return unet(z_t, torch.zeros(batch, device="meta"), context=text, y=y, transformer_options=dict(options))

    return count(network, forward, shape)


def _fused(function: Any, *given: Any, **named: Any) -> Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*given, **named)
