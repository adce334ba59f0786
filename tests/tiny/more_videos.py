"""Tiny video transformers beside those of `videos`, each with the configuration its published model has."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
    WanPipeline,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5RoPE3D

from .packed import shifting_scheduler
from .parts import NO_TEXT, SMALL, TEXT_DIM, TEXT_TOKENS, TinyPipeline, embeds, text_inputs
from .videos import wan

NO_SECOND_TEXT: dict[str, Any] = {**NO_TEXT, "text_encoder_2": None, "tokenizer_2": None}
FRAMES = {"num_frames": 5}


def hunyuan_autoencoder() -> AutoencoderKLHunyuanVideo:
    """8 pixels and 4 frames a latent pixel."""
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )


def hunyuan_video() -> HunyuanVideoPipeline:
    """HunyuanVideoPipeline, told its guidance weight."""
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        pooled_projection_dim=TEXT_DIM,
        rope_axes_dim=(4, 6, 6),
    )
    return HunyuanVideoPipeline(
        transformer=transformer,
        vae=hunyuan_autoencoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        **NO_SECOND_TEXT,
    )


def hunyuan_video_15() -> HunyuanVideo15Pipeline:
    """HunyuanVideo15Pipeline: 16 pixels a latent pixel, a guider, two texts and places for a picture's tokens."""
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * 4 + 1,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=TEXT_DIM,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
        target_size=64,
        task_type="t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1)
    return HunyuanVideo15Pipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
        **NO_SECOND_TEXT,
    )


def motif_video() -> MotifVideoPipeline:
    """MotifVideoPipeline: Wan's autoencoder, a size-dependent shift, a guider."""
    transformer = MotifVideoTransformer3DModel(
        in_channels=2 * 16 + 1,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        text_embed_dim=TEXT_DIM,
        rope_axes_dim=(4, 6, 6),
    )
    return MotifVideoPipeline(
        transformer=transformer,
        vae=wan().vae,
        scheduler=shifting_scheduler(),
        guider=ClassifierFreeGuidance(guidance_scale=8.0),
        **NO_TEXT,
    )


def kandinsky_transformer(side: int, **config: Any) -> Kandinsky5Transformer3DModel:
    """One block for the text and one for the picture or clip, and positions for this many tokens a side."""
    made = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=TEXT_DIM,
        in_text_dim2=TEXT_DIM,
        time_dim=16,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
        **config,
    )
    made.visual_rope_embeddings = Kandinsky5RoPE3D((4, 6, 6), (128, side, side))  # in no configuration
    return made


def kandinsky_5_video() -> Kandinsky5T2VPipeline:
    """Kandinsky5T2VPipeline, which is shown a clip to go on from, as the published ones are.

    Positions for 2.7 times the native side: the published ones have 2048 pixels, and clips of 512 x 768.
    """
    return Kandinsky5T2VPipeline(
        transformer=kandinsky_transformer(5, visual_cond=True),
        vae=hunyuan_autoencoder(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        **NO_SECOND_TEXT,
    )


def wan_22() -> WanPipeline:
    """Wan 2.2: one transformer for high noise and one for low, from 875 of 1000 down."""
    high, low = wan(), wan()
    return WanPipeline(**{**high.components, "transformer_2": low.transformer}, boundary_ratio=0.875)


def wan_22_small() -> WanPipeline:
    """Wan 2.2 TI2V: one transformer, told a time for every token."""
    return WanPipeline(**wan().components, expand_timesteps=True)


def wan_vace() -> WanVACEPipeline:
    """WanVACEPipeline without a clip to follow, so that it makes one of the prompt alone."""
    made = wan()
    transformer = WanVACETransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=128,
        vace_layers=[0],
        vace_in_channels=2 * 16 + 64,
    )
    return WanVACEPipeline(**{**made.components, "transformer": transformer})


HUNYUAN = {
    "prompt_embeds": embeds(1, TEXT_TOKENS, TEXT_DIM),
    "pooled_prompt_embeds": embeds(1, TEXT_DIM, seed=2),
    "prompt_attention_mask": torch.ones(1, TEXT_TOKENS),
}
HUNYUAN_15 = text_inputs("prompt_embeds_mask") | {
    f"{name}_2": value for name, value in text_inputs("prompt_embeds_mask").items()
}
KANDINSKY = {
    "prompt_embeds_qwen": embeds(1, TEXT_TOKENS, TEXT_DIM),
    "prompt_embeds_clip": embeds(1, TEXT_DIM, seed=1),
    "prompt_cu_seqlens": torch.tensor([0, TEXT_TOKENS]),
    "negative_prompt_embeds_qwen": embeds(1, TEXT_TOKENS, TEXT_DIM, seed=2),
    "negative_prompt_embeds_clip": embeds(1, TEXT_DIM, seed=3),
    "negative_prompt_cu_seqlens": torch.tensor([0, TEXT_TOKENS]),
}

MORE_VIDEOS = (
    TinyPipeline("hunyuan-video", hunyuan_video, SMALL, HUNYUAN | FRAMES, "dit", video=True),
    TinyPipeline("hunyuan-video-1.5", hunyuan_video_15, SMALL, HUNYUAN_15 | FRAMES, "dit", video=True),
    TinyPipeline("motif-video", motif_video, SMALL, text_inputs("prompt_attention_mask") | FRAMES, "dit", video=True),
    TinyPipeline("kandinsky-5-video", kandinsky_5_video, SMALL, KANDINSKY | FRAMES, "dit", video=True),
    TinyPipeline("wan-2.2", wan_22, SMALL, text_inputs() | FRAMES, "dit", video=True),
    TinyPipeline("wan-2.2-ti2v", wan_22_small, SMALL, text_inputs() | FRAMES, "dit", video=True),
    TinyPipeline("wan-vace", wan_vace, SMALL, text_inputs() | FRAMES, "dit", video=True),
)
