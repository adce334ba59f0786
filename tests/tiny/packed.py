"""Tiny image transformers whose latents travel as tokens, (B, N, C): Flux, Chroma, Qwen-Image, Flux 2."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaImg2ImgPipeline,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxImg2ImgPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImageImg2ImgPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)

from .parts import (
    FOUR_LEVELS,
    NATIVE,
    NO_TEXT,
    TEXT_DIM,
    TEXT_TOKENS,
    TinyPipeline,
    embeds,
    flow_autoencoder,
    text_inputs,
    twin_of,
)

JOINT: dict[str, Any] = dict(  # of transformers that attend to patches of four latent pixels and to text together
    in_channels=16, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=TEXT_DIM
)


def shifting_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Flow matching with the size-dependent shift of Flux."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


def flux() -> FluxPipeline:
    """FluxPipeline with guidance embedding, as the dev model has it."""
    transformer = FluxTransformer2DModel(
        **JOINT,
        num_layers=1,
        num_single_layers=1,
        pooled_projection_dim=TEXT_DIM,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=shifting_scheduler(),
        vae=flow_autoencoder(),
        text_encoder_2=None,
        tokenizer_2=None,
        **NO_TEXT,
    )


def chroma() -> ChromaPipeline:
    """ChromaPipeline: Flux without pooled embeddings, with classifier-free guidance and a text mask."""
    transformer = ChromaTransformer2DModel(
        **JOINT,
        num_layers=1,
        num_single_layers=1,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return ChromaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_beta_sigmas=False),
        vae=flow_autoencoder(),
        **NO_TEXT,
    )


def qwen_image() -> QwenImagePipeline:
    """QwenImagePipeline with its video autoencoder; latent means and deviations are not trivial."""
    transformer = QwenImageTransformer2DModel(
        **JOINT,
        out_channels=4,
        num_layers=2,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[-0.7, 0.2, 0.5, -0.1],
        latents_std=[2.8, 1.4, 2.3, 3.1],
    )
    return QwenImagePipeline(transformer=transformer, scheduler=shifting_scheduler(), vae=vae, **NO_TEXT)


def flux2() -> Flux2Pipeline:
    """Flux2Pipeline; its latents are normalised by the autoencoder's batch-norm statistics."""
    transformer = Flux2Transformer2DModel(
        **JOINT,
        num_layers=1,
        num_single_layers=1,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
    )
    vae = AutoencoderKLFlux2(**FOUR_LEVELS)
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    return Flux2Pipeline(transformer=transformer, scheduler=shifting_scheduler(), vae=vae, **NO_TEXT)


FLUX = {"prompt_embeds": embeds(1, TEXT_TOKENS, TEXT_DIM), "pooled_prompt_embeds": embeds(1, TEXT_DIM, seed=2)}

# Floats, as Chroma's own text encoding gives them: its twin casts the mask, the text pipeline does not.
CHROMA = {name: value.float() for name, value in text_inputs("prompt_attention_mask").items()}

PACKED = (
    TinyPipeline("flux", flux, NATIVE, FLUX, "dit", twin_of(FluxImg2ImgPipeline)),
    TinyPipeline("chroma", chroma, NATIVE, CHROMA, "dit", twin_of(ChromaImg2ImgPipeline)),
    TinyPipeline(
        "qwen-image",
        qwen_image,
        NATIVE,
        text_inputs("prompt_embeds_mask"),
        "dit",
        twin_of(QwenImageImg2ImgPipeline),
    ),
    TinyPipeline("flux2", flux2, NATIVE, {"prompt_embeds": FLUX["prompt_embeds"]}, "dit"),
)
