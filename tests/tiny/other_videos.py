"""Tiny video models beside those of `videos` and `more_videos`, each with the configuration of its published model."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

from diffusers import (
    AnimateDiffSparseControlNetPipeline,
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    AutoencoderKLMagvit,
    AutoencoderKLMochi,
    CogVideoXPipeline,
    DDIMScheduler,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)
from diffusers.models import SparseControlNetModel

from .packed import shifting_scheduler
from .parts import NATIVE, NO_TEXT, SMALL, TEXT_DIM, TEXT_TOKENS, TinyPipeline, autoencoder, embeds, text_inputs
from .unets import PROMPT, animatediff
from .variants import control_image, opened
from .videos import cogvideox, wan

MASKED = text_inputs("prompt_attention_mask")


def sana_video() -> SanaVideoPipeline:
    """SanaVideoPipeline with Wan's autoencoder, as the model of 480 pixels has it."""
    transformer = SanaVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=TEXT_DIM,
        rope_max_seq_len=128,
    )
    return SanaVideoPipeline(
        transformer=transformer, vae=wan().vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0), **NO_TEXT
    )


def mochi() -> MochiPipeline:
    """MochiPipeline: 8 pixels and 6 frames a latent pixel, sigmas that count from noise."""
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        pooled_projection_dim=16,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False,) * 5,
    )
    return MochiPipeline(
        transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), **NO_TEXT
    )


def easyanimate() -> EasyAnimatePipeline:
    """EasyAnimatePipeline; its shift is the same at all sizes."""
    transformer = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=1,
        mmdit_layers=1,
        time_embed_dim=8,
        text_embed_dim=TEXT_DIM,
    )
    vae = AutoencoderKLMagvit(latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2)
    return EasyAnimatePipeline(transformer=transformer, vae=vae, scheduler=shifting_scheduler(), **NO_TEXT)


def latte() -> LattePipeline:
    """LattePipeline: positions in time for clips of four frames, and variance channels."""
    transformer = LatteTransformer3DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        cross_attention_dim=16,
        caption_channels=TEXT_DIM,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
        video_length=4,
    )
    return LattePipeline(transformer=transformer, vae=autoencoder(), scheduler=DDIMScheduler(), **NO_TEXT)


def any_flow() -> AnyFlowPipeline:
    """AnyFlowPipeline, whose transformer is told where a step ends, with Wan's autoencoder."""
    transformer = AnyFlowTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=128,
    )
    return AnyFlowPipeline(
        transformer=transformer, vae=wan().vae, scheduler=FlowMapEulerDiscreteScheduler(shift=5.0), **NO_TEXT
    )


def cogvideox_15() -> CogVideoXPipeline:
    """CogVideoX 1.5: two latent frames a token, positions for a good three times the native sides."""
    made: Any = cogvideox(patch_size_t=2)
    made.transformer.register_to_config(sample_height=13, sample_width=13)
    return made


def sparse_control() -> AnimateDiffSparseControlNetPipeline:
    """AnimateDiffSparseControlNetPipeline, shown the first frame."""
    made: Any = animatediff()
    controlnet = SparseControlNetModel(
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
        motion_num_attention_heads=2,
        conditioning_embedding_out_channels=(4,) * 4,
    )
    return AnimateDiffSparseControlNetPipeline(**made.components, controlnet=opened(controlnet))


SPARSE = {"num_frames": 2, "conditioning_frames": [control_image()], "controlnet_frame_indices": [0]}

OTHER_VIDEOS = (
    TinyPipeline(
        "sana-video",
        sana_video,
        NATIVE,
        MASKED | {"frames": 5, "negative_prompt": None, "use_resolution_binning": False},
        "dit",
        video=True,
    ),
    TinyPipeline("mochi", mochi, SMALL, MASKED | {"num_frames": 7}, "dit", video=True, steps=4),
    TinyPipeline(
        "easyanimate",
        easyanimate,
        SMALL,
        MASKED | {"num_frames": 5},
        "dit",
        video=True,
        twin_note="EasyAnimateInpaintPipeline fails beyond one step in diffusers 0.42 where no channels are for a mask",
    ),
    TinyPipeline(
        "latte", latte, SMALL, text_inputs() | {"video_length": 4, "negative_prompt": None}, "dit", video=True
    ),
    TinyPipeline(
        "any-flow",
        any_flow,
        SMALL,
        {"prompt_embeds": embeds(1, TEXT_TOKENS, TEXT_DIM)} | {"num_frames": 5},
        "dit",
        video=True,
    ),
    TinyPipeline("cogvideox-1.5", cogvideox_15, SMALL, text_inputs() | {"num_frames": 9}, "dit", video=True),
    TinyPipeline("sparse-control", sparse_control, SMALL, PROMPT | SPARSE, "unet", video=True),
)
