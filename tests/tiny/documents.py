"""Stand-ins for the models that the documents name: the same classes, small enough to make a picture of 2048 pixels.

Their VAE has 32 pixels a latent pixel instead of 8, and their networks a few thousand weights.
"""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline, TextToVideoSDPipeline

from .parts import TEXT_DIM, autoencoder, quiet
from .unets import TIME_IDS, modelscope, stable_diffusion, stable_diffusion_xl, unet_2d

LEVELS: dict[str, Any] = dict(
    sample_size=512,  # of its tiles
    block_out_channels=(4,) * 6,
    down_block_types=("DownEncoderBlock2D",) * 6,
    up_block_types=("UpDecoderBlock2D",) * 6,
    force_upcast=False,
)
TWO_LEVELS: dict[str, Any] = dict(block_out_channels=(8, 8), layers_per_block=1, cross_attention_dim=TEXT_DIM)


def picture_model() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's class and native size, 512 pixels."""
    unet = unet_2d(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **TWO_LEVELS,
    )
    own = {**stable_diffusion().components, "vae": autoencoder(**LEVELS), "unet": unet}
    return StableDiffusionPipeline(**own, requires_safety_checker=False)


def large_picture_model() -> StableDiffusionXLPipeline:
    """SDXL's class and native size, 1024 pixels."""
    unet = unet_2d(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        **TIME_IDS,
        **{**TWO_LEVELS, "cross_attention_dim": 2 * TEXT_DIM},
    )
    own = {"vae": autoencoder(**{**LEVELS, "scaling_factor": 0.13025}), "unet": unet}
    return StableDiffusionXLPipeline(**{**stable_diffusion_xl().components, **own}, add_watermarker=False)


def clip_model() -> TextToVideoSDPipeline:
    """ModelScope's class and native size, 256 pixels."""
    return TextToVideoSDPipeline(**{**modelscope().components, "vae": autoencoder(**LEVELS)})


MODELS: dict[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": picture_model,
    "stabilityai/stable-diffusion-xl-base-1.0": large_picture_model,
    "ali-vilab/text-to-video-ms-1.7b": clip_model,
}


def build(name: str) -> DiffusionPipeline:
    """The stand-in for a Hub id, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return quiet(MODELS[name]())
