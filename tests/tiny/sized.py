"""Tiny image transformers that are told the picture's size beside its latents: CogView4, HunyuanDiT."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from diffusers import (
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
)

from .parts import NATIVE, NO_TEXT, TEXT_DIM, TEXT_TOKENS, TinyPipeline, autoencoder, text_inputs


def cogview4() -> CogView4Pipeline:
    """CogView4Pipeline, whose noise schedule shifts with the size."""
    transformer = CogView4Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=16,
        condition_dim=4,
        rope_axes_dim=(64, 64),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return CogView4Pipeline(transformer=transformer, scheduler=scheduler, vae=autoencoder(), **NO_TEXT)


def hunyuan_dit() -> HunyuanDiTPipeline:
    """HunyuanDiTPipeline, a diffusion transformer with skips and image-size conditions."""
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        hidden_size=16,
        cross_attention_dim=TEXT_DIM,
        cross_attention_dim_t5=TEXT_DIM,
        pooled_projection_dim=TEXT_DIM,
        text_len=TEXT_TOKENS,
        text_len_t5=TEXT_TOKENS,
        activation_fn="gelu-approximate",
    )
    return HunyuanDiTPipeline(
        transformer=transformer,
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.02, beta_schedule="scaled_linear"),
        vae=autoencoder(),
        text_encoder_2=None,
        tokenizer_2=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **NO_TEXT,
    )


MASKED = text_inputs("prompt_attention_mask")
BILINGUAL = MASKED | {f"{name}_2": value for name, value in MASKED.items()} | {"use_resolution_binning": False}

SIZED = (
    TinyPipeline("cogview4", cogview4, NATIVE, text_inputs(), "dit"),
    TinyPipeline("hunyuan-dit", hunyuan_dit, NATIVE, BILINGUAL, "dit"),
)
