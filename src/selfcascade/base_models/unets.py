"""Stable Diffusion 1.x, 2.x and XL, and pipelines built like them."""

from __future__ import annotations

from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.base_models.frames import fold, unfold


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x: any size that is a multiple of eight pixels."""

    classes = (
        "StableDiffusionPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionControlNetPAGPipeline",
        "LatentConsistencyModelPipeline",
    )
    least_multiple = 8


class StableDiffusionXL(Family):
    """SDXL and Kolors; the size conditioning is the stage's own size, the pipeline's default."""

    classes = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "KolorsPipeline",
        "KolorsPAGPipeline",
    )
    least_multiple = 8


class AnimateDiff(Family):
    """AnimateDiff: a Stable Diffusion U-Net with a motion adapter, whose places for frames are numbered."""

    classes = (
        "AnimateDiffPipeline",
        "AnimateDiffControlNetPipeline",
        "AnimateDiffSDXLPipeline",
        "AnimateDiffPAGPipeline",
        "AnimateDiffSparseControlNetPipeline",
    )
    video = framewise = True
    least_multiple = 8

    @property
    def most_frames(self) -> int | None:
        if getattr(self.pipe, "free_noise_enabled", False):  # a window slides over clips of any length
            return None
        return self.pipe.unet.config.get("motion_max_seq_length")


class TextToVideo(Family):
    """ModelScope text-to-video: convolutions and attention along time, so clips of any length."""

    classes = ("TextToVideoSDPipeline",)
    video = framewise = True
    least_multiple = 8

    def from_step(self, latents: Tensor, batch: int) -> Tensor:
        return unfold(latents, batch)

    def to_step(self, z: Tensor) -> Tensor:
        return fold(z)
