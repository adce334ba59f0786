"""Every method: a picture of the asked size, the pipeline as it was; and each one's own equation."""

import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor

from cascade_runs import SD, seeded
from selfcascade import METHODS
from selfcascade.methods.attention_scaling import scaled_attention
from tiny import TINY

UNET_FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "animatediff", "text-to-video-synthesis")
UNTRAINED = [name for name in METHODS if name != "self-cascade-tuned"]


def made(name: str, pipe: Any, family: Any = SD, **options: Any) -> Tensor:
    size = {"height": 2 * family.native[0], "width": 2 * family.native[1], "native_size": family.native}
    settings: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "generator": seeded(), **size}
    inputs = {key: value for key, value in family.inputs.items() if key != "prompt"}
    return METHODS[name](pipe, family.inputs["prompt"], **{**inputs, **settings, **options}).stages[-1].latents


@pytest.mark.parametrize("family", UNET_FAMILIES)
@pytest.mark.parametrize("name", UNTRAINED)
def test_each_runs_on_each_u_net_and_leaves_it_as_it_was(name: str, family: str) -> None:
    pipe = TINY[family].build()
    before = made("direct", pipe, TINY[family])
    latents = made(name, pipe, TINY[family])
    side = 2 * TINY[family].native[0] // pipe.vae_scale_factor
    assert latents.shape[-2:] == (side, side) and latents.isfinite().all()
    assert torch.equal(latents, made(name, pipe, TINY[family]))
    assert torch.equal(made("direct", pipe, TINY[family]), before)
    if name != "direct":
        assert not torch.equal(latents, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_attention_logits_are_multiplied_by_the_factor_in_every_kernel(processor: Any) -> None:
    unet = SD.build().unet
    unet.set_attn_processor(processor())
    layer = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    width = layer.to_q.in_features
    x = torch.randn(2, 64, width, generator=seeded())
    # Sixteen tokens in training, 64 now: logits times sqrt(log_16 64).
    factor = math.sqrt(math.log(64) / math.log(16))
    q, k, v = (layer.head_to_batch_dim(part(x)) for part in (layer.to_q, layer.to_k, layer.to_v))
    weights = (factor * layer.scale * q @ k.transpose(1, 2)).softmax(-1)
    expected = layer.to_out[0](layer.batch_to_head_dim(weights @ v))
    with scaled_attention(unet, 4.0):
        assert torch.allclose(layer(x), expected, atol=1e-5)
    assert not torch.allclose(layer(x), expected, atol=1e-5)


def test_at_the_native_size_attention_scaling_changes_nothing() -> None:
    pipe = SD.build()
    size: dict[str, Any] = {"height": SD.native[0], "width": SD.native[1]}
    assert torch.equal(made("attn-sf", pipe, **size), made("direct", pipe, **size))


def test_attention_scaling_refuses_what_it_cannot_scale() -> None:
    pipe = SD.build()
    pipe.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        made("attn-sf", pipe)
    for compiled in ("whole", "blocks"):
        pipe = SD.build()
        if compiled == "whole":
            pipe.unet.compile()
        else:
            pipe.unet.compile_repeated_blocks()
        with pytest.raises(ValueError, match="not compiled"):
            made("attn-sf", pipe)
    transformer = TINY["stable-diffusion-3"].build().transformer
    with pytest.raises(ValueError, match="has no self-attention to scale"), scaled_attention(transformer, 4.0):
        pass
