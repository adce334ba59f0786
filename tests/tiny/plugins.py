"""ControlNet, LoRA and IP-Adapter for the tiny Stable Diffusion pipeline, each with weights that change the picture."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

import torch
from diffusers import (
    AnimateDiffControlNetPipeline,
    AnimateDiffPipeline,
    AnimateDiffSDXLPipeline,
    ControlNetModel,
    MotionAdapter,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from peft import LoraConfig
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .parts import TEXT_DIM, autoencoder, clip_text, clip_text_projected, clip_tokenizer, embeds, quiet
from .unets import animatediff_unet, ddim, unet_2d

IMAGE_DIM = 16
IMAGE_TOKENS = 4


def tiny_controlnet(pipe: StableDiffusionPipeline) -> StableDiffusionControlNetPipeline:
    """A ControlNet pipeline on `pipe`'s own components; takes `image`, resized to the call's height and width."""
    controlnet = random_controlnet(pipe.unet)
    return quiet(
        StableDiffusionControlNetPipeline(**pipe.components, controlnet=controlnet, requires_safety_checker=False)
    )


def tiny_video_controlnet(pipe: AnimateDiffPipeline) -> AnimateDiffControlNetPipeline:
    """The same for AnimateDiff; takes `conditioning_frames`, one a frame."""
    controlnet = random_controlnet(animatediff_unet())
    return quiet(AnimateDiffControlNetPipeline(**pipe.components, controlnet=controlnet))


def tiny_video_xl() -> AnimateDiffSDXLPipeline:
    """AnimateDiff on SDXL, with SDXL's own VAE setting: in float16 it asks to be decoded in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = unet_2d(
            sample_size=8,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1),
            cross_attention_dim=2 * TEXT_DIM,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + TEXT_DIM,
        )
        adapter = MotionAdapter(
            block_out_channels=(8, 8),
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            use_motion_mid_block=False,
        )
        parts = {"text_encoder": clip_text(TEXT_DIM), "text_encoder_2": clip_text_projected(TEXT_DIM)}
        words = {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
        vae = autoencoder(scaling_factor=0.13025, force_upcast=True)
        motion = UNetMotionModel.from_unet2d(unet, adapter)
        scheduler = ddim(beta_schedule="linear")
        return quiet(
            AnimateDiffSDXLPipeline(**parts, **words, vae=vae, unet=motion, motion_adapter=adapter, scheduler=scheduler)
        )


def random_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet of the U-Net whose zero convolutions are random: as initialised they would change nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4, 4))
        for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            nn.init.normal_(block.weight, std=0.5)
        for parameter in controlnet.controlnet_cond_embedding.parameters():
            nn.init.normal_(parameter, std=0.5)
    return controlnet


def add_tiny_lora(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """`pipe` itself with a rank-2 LoRA, both factors random, on the attention projections of its U-Net."""
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.unet.add_adapter(config)
    return pipe


def ip_adapter_state(pipe: StableDiffusionPipeline) -> dict[str, dict[str, Tensor]]:
    """Random weights of an IP-Adapter in the published file's layout, sized to the U-Net of `pipe`.

    `ip_adapter` counts the attention processors, of which every second one is a cross-attention.
    """
    text_dim = pipe.unet.config.cross_attention_dim
    projections: dict[str, Tensor] = {}
    for index, name in enumerate(pipe.unet.attn_processors):
        if name.endswith("attn2.processor"):
            query: nn.Linear = pipe.unet.get_submodule(name.removesuffix(".processor")).to_q
            for seed, part in enumerate(("to_k_ip", "to_v_ip")):
                projections[f"{index}.{part}.weight"] = embeds(query.out_features, text_dim, seed=2 * index + seed)
    image_proj = {
        "proj.weight": embeds(IMAGE_TOKENS * text_dim, IMAGE_DIM),
        "proj.bias": torch.zeros(IMAGE_TOKENS * text_dim),
        "norm.weight": torch.ones(text_dim),
        "norm.bias": torch.zeros(text_dim),
    }
    return {"image_proj": image_proj, "ip_adapter": projections}


def add_tiny_ip_adapter(pipe: StableDiffusionPipeline) -> dict[str, Any]:
    """Loads an IP-Adapter and a vision encoder into `pipe`; returns the keyword argument a guided call needs with it.

    Returns:
        `ip_adapter_image_embeds`: one tensor, (2, 1, 16), the negative embedding before the positive.
    """
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=IMAGE_DIM,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image_encoder = CLIPVisionModelWithProjection(config).eval()
    pipe.register_modules(image_encoder=image_encoder)
    pipe.load_ip_adapter(ip_adapter_state(pipe), subfolder="", weight_name="", image_encoder_folder=None)
    with torch.no_grad():
        positive = image_encoder(embeds(1, 3, 32, 32)).image_embeds
    return {"ip_adapter_image_embeds": [torch.stack([torch.zeros_like(positive), positive])]}
