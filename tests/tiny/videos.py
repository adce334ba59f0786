"""Tiny video transformers: Wan, LTX-Video, CogVideoX."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)

from .packed import shifting_scheduler
from .parts import NATIVE, NO_TEXT, TEXT_DIM, TEXT_TOKENS, TinyPipeline, text_inputs, twin_of


def wan() -> WanPipeline:
    """WanPipeline: 8 pixels and 4 frames a latent pixel."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return WanPipeline(
        transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **NO_TEXT
    )


def ltx(timestep_conditioning: bool = False) -> LTXPipeline:
    """LTXPipeline: 8 pixels and 8 frames a latent pixel, latents as tokens.

    Args:
        timestep_conditioning: Whether the VAE's decoder is told a noise level, as from LTX-Video 0.9.1 on.
    """
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=TEXT_DIM,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=timestep_conditioning,
        patch_size=1,
    )
    vae.use_framewise_encoding = False
    vae.use_framewise_decoding = False
    return LTXPipeline(transformer=transformer, vae=vae, scheduler=shifting_scheduler(), **NO_TEXT)


def cogvideox(patch_size_t: int | None = None) -> CogVideoXPipeline:
    """CogVideoXPipeline: 8 pixels and 4 frames a latent pixel, frames before channels.

    Args:
        patch_size_t: Latent frames of a patch, 2 in CogVideoX 1.5.
    """
    rotary = {"patch_size_t": patch_size_t, "patch_bias": False, "use_rotary_positional_embeddings": True}
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=TEXT_DIM,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=TEXT_TOKENS,
        **({} if patch_size_t is None else rotary),
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    return CogVideoXPipeline(transformer=transformer, vae=vae, scheduler=scheduler, **NO_TEXT)


VIDEOS = (
    TinyPipeline(
        "wan",
        wan,
        NATIVE,
        text_inputs() | {"num_frames": 5},
        "dit",
        twin_of(WanVideoToVideoPipeline),
        video=True,
    ),
    TinyPipeline("ltx", ltx, NATIVE, text_inputs("prompt_attention_mask") | {"num_frames": 9}, "dit", video=True),
    TinyPipeline(
        "cogvideox",
        cogvideox,
        NATIVE,
        text_inputs() | {"num_frames": 9},
        "dit",
        twin_of(CogVideoXVideoToVideoPipeline),
        video=True,
    ),
)
