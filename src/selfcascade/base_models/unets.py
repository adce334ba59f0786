"""U-Nets: Stable Diffusion 1.x, 2.x and XL, pipelines built like them, and Kandinsky 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffusers.image_processor import VaeImageProcessor
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
        "StableDiffusionAdapterPipeline",
        "LatentConsistencyModelPipeline",
    )
    least_multiple = 8

    @property
    def multiple(self) -> int:
        adapter = getattr(self.pipe, "adapter", None)  # a T2I-adapter divides its picture into squares of its own
        return super().multiple if adapter is None else math.lcm(super().multiple, adapter.downscale_factor)


class StableDiffusionXL(StableDiffusion):
    """SDXL and Kolors; the size conditioning is the stage's size, which is the pipeline's default."""

    classes = (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "StableDiffusionXLAdapterPipeline",
        "KolorsPipeline",
        "KolorsPAGPipeline",
    )
    least_multiple = 8


class AnimateDiff(Family):
    """AnimateDiff: a Stable Diffusion U-Net with a motion adapter, with positions for a fixed number of frames."""

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


class Kandinsky3(Family):
    """Kandinsky 3: plain latents of an autoencoder called movq, which has no scale."""

    classes = ("Kandinsky3Pipeline",)
    least_multiple = 64
    stated_size = (1024, 1024)

    @property
    def vae(self) -> Any:
        return self.pipe.movq

    @property
    def factor(self) -> int:
        return 8  # hard-coded in the pipeline

    def to_vae(self, z: Tensor) -> Tensor:
        return z

    def from_vae(self, z: Tensor) -> Tensor:
        return z

    def decoder_arguments(self, z: Tensor) -> tuple[object, ...]:
        return (True,)  # latents are not codes

    def shown(self, pixels: Tensor, output_type: str, clean: Sequence[bool] | None = None) -> Any:
        # The pipeline has no image processor, and returns tensors in [-1, 1].
        return pixels if output_type == "pt" else VaeImageProcessor().postprocess(pixels, output_type=output_type)
