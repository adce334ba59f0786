"""Tiny pipelines around a conditional U-Net: Stable Diffusion, SDXL, AnimateDiff, ModelScope's text-to-video."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

from diffusers import (
    AnimateDiffPipeline,
    AnimateDiffVideoToVideoPipeline,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetMotionModel,
    VideoToVideoSDPipeline,
)

from .parts import NATIVE, TEXT_DIM, TinyPipeline, autoencoder, clip_text, clip_text_projected, clip_tokenizer, twin_of

CHANNELS = (8, 8, 16, 16)
TIME_IDS: dict[str, Any] = dict(  # SDXL's network is told six sizes and a pooled text
    addition_embed_type="text_time",
    addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=6 * 4 + TEXT_DIM,
)
PROMPT = {"prompt": "a red house at night", "negative_prompt": "blurry"}


def ddim(**config: Any) -> DDIMScheduler:
    """Stable Diffusion's own scheduler."""
    settings: dict[str, Any] = dict(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return DDIMScheduler(**(settings | config))


def unet_2d(**config: Any) -> UNet2DConditionModel:
    """Four resolution levels with a layer each, and attention at one of them and in the middle: it is what costs."""
    settings: dict[str, Any] = dict(
        sample_size=16,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    return UNet2DConditionModel(**(settings | config))


def stable_diffusion() -> StableDiffusionPipeline:
    """StableDiffusionPipeline, 128 pixels, no safety checker."""
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet_2d(),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def super_resolver() -> StableDiffusionUpscalePipeline:
    """StableDiffusionUpscalePipeline, four times a side, 10 levels of noise."""
    return StableDiffusionUpscalePipeline(
        vae=autoencoder(
            block_out_channels=(4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            scaling_factor=0.08333,
        ),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet_2d(
            in_channels=7,
            num_class_embeds=10,
            down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        ),
        low_res_scheduler=DDPMScheduler(),
        scheduler=ddim(),
        max_noise_level=9,
    )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """StableDiffusionXLPipeline with two text encoders and time ids, 128 pixels, no watermark."""
    return StableDiffusionXLPipeline(
        vae=autoencoder(scaling_factor=0.13025, force_upcast=False),
        text_encoder=clip_text(TEXT_DIM),
        text_encoder_2=clip_text_projected(TEXT_DIM),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet_2d(
            block_out_channels=(8, 8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=2 * TEXT_DIM,
            **TIME_IDS,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )


def animatediff_unet() -> UNet2DConditionModel:
    """The two-dimensional U-Net that the motion adapter is put into."""
    return unet_2d(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        use_linear_projection=False,
    )


def animatediff() -> AnimateDiffPipeline:
    """AnimateDiffPipeline: a two-dimensional U-Net with a motion adapter put into it, 64 pixels."""
    unet = animatediff_unet()
    adapter = MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
    )
    return AnimateDiffPipeline(
        vae=autoencoder(force_upcast=False),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=UNetMotionModel.from_unet2d(unet, adapter),
        motion_adapter=adapter,
        scheduler=ddim(beta_schedule="linear"),
    )


def modelscope() -> TextToVideoSDPipeline:
    """TextToVideoSDPipeline on a three-dimensional U-Net, 64 pixels."""
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return TextToVideoSDPipeline(
        vae=autoencoder(), text_encoder=clip_text(), tokenizer=clip_tokenizer(), unet=unet, scheduler=ddim()
    )


UNETS = (
    TinyPipeline(
        "stable-diffusion",
        stable_diffusion,
        (128, 128),
        PROMPT,
        "unet",
        twin_of(StableDiffusionImg2ImgPipeline, requires_safety_checker=False),
    ),
    TinyPipeline(
        "stable-diffusion-xl",
        stable_diffusion_xl,
        (128, 128),
        PROMPT,
        "unet",
        twin_of(StableDiffusionXLImg2ImgPipeline, add_watermarker=False),
    ),
    TinyPipeline(
        "animatediff",
        animatediff,
        NATIVE,
        PROMPT | {"num_frames": 4},
        "unet",
        twin_of(AnimateDiffVideoToVideoPipeline),
        video=True,
    ),
    TinyPipeline(
        "text-to-video-synthesis",
        modelscope,
        NATIVE,
        PROMPT | {"num_frames": 4},
        "unet",
        twin_of(VideoToVideoSDPipeline),
        video=True,
    ),
)
