"""Tiny image transformers whose latents keep their (B, C, h, w) shape."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3Pipeline,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from .parts import (
    NATIVE,
    NO_TEXT,
    TEXT_DIM,
    TinyPipeline,
    autoencoder,
    flow_autoencoder,
    text_inputs,
    twin_of,
)


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """StableDiffusion3Pipeline; positions for six times the native side, as SD 3.5 has them."""
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        caption_projection_dim=16,
        pooled_projection_dim=TEXT_DIM,
        pos_embed_max_size=24,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_autoencoder(),
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
        **NO_TEXT,
    )


def pixart_sigma() -> PixArtSigmaPipeline:
    """PixArtSigmaPipeline, with the learned variance channels of the real one."""
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        cross_attention_dim=16,
        caption_channels=TEXT_DIM,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        transformer=transformer, scheduler=DPMSolverMultistepScheduler(), vae=autoencoder(), **NO_TEXT
    )


def sana() -> SanaPipeline:
    """SanaPipeline with its deep-compression autoencoder, here 8 pixels a latent pixel."""
    transformer = SanaTransformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT_DIM,
    )
    vae = AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",),
        decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",),
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,)),
        scaling_factor=0.41407,
    )
    return SanaPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, **NO_TEXT
    )


def auraflow() -> AuraFlowPipeline:
    """AuraFlowPipeline; positions for 64 latent pixels a side."""
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        caption_projection_dim=16,
        pos_embed_max_size=32 * 32,
    )
    return AuraFlowPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73), vae=autoencoder(), **NO_TEXT
    )


def lumina2() -> Lumina2Pipeline:
    """Lumina2Pipeline; its factor 8 is written into the pipeline, so the autoencoder has to have four levels.

    Positions for eight times the native side, as the published model has them.
    """
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(8, 32, 32),
        cap_feat_dim=TEXT_DIM,
    )
    return Lumina2Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0), vae=flow_autoencoder(), **NO_TEXT
    )


def z_image() -> ZImagePipeline:
    """ZImagePipeline, whose prompt embeddings are a list with one (N, D) tensor a prompt.

    Positions for eight times the native side, as the published model has them.
    """
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_DIM,
        axes_dims=[8, 4, 4],
        axes_lens=[96, 32, 32],
    )
    # Both tokens are left uninitialised by the model.
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    return ZImagePipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=flow_autoencoder(), **NO_TEXT
    )


MASKED = text_inputs("prompt_attention_mask")
UNBINNED = MASKED | {"negative_prompt": None, "use_resolution_binning": False}
LISTED = {name: [value[0]] for name, value in text_inputs().items()}

DITS = (
    TinyPipeline(
        "stable-diffusion-3",
        stable_diffusion_3,
        NATIVE,
        text_inputs(pooled=True),
        "dit",
        twin_of(StableDiffusion3Img2ImgPipeline),
    ),
    TinyPipeline("pixart-sigma", pixart_sigma, NATIVE, UNBINNED, "dit"),
    TinyPipeline("sana", sana, NATIVE, UNBINNED, "dit"),
    TinyPipeline("auraflow", auraflow, NATIVE, MASKED, "dit"),
    TinyPipeline("lumina2", lumina2, NATIVE, MASKED, "dit"),
    TinyPipeline("z-image", z_image, NATIVE, LISTED, "dit", twin_of(ZImageImg2ImgPipeline)),
)
