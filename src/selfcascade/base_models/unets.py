"""Stable Diffusion 1.x, 2.x and XL, and pipelines built like them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.base_models.frames import frames_at_once, over_frames
from selfcascade.cascade import Size


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x: any size that is a multiple of eight pixels."""

    classes = ("StableDiffusionPipeline", "StableDiffusionControlNetPipeline")

    def multiple(self, pipe: Any) -> int:
        return max(8, self.factor(pipe))


class StableDiffusionXL(Family):
    """SDXL and Kolors; the size conditioning is the stage's own size, the pipeline's default."""

    classes = ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline", "KolorsPipeline")

    def multiple(self, pipe: Any) -> int:
        return max(8, self.factor(pipe))


class FramewiseVideo(Family):
    """Video models with a VAE for pictures: latents are (B, C, F, h, w), frames are coded as a batch, in parts."""

    video = True
    framewise = True

    def multiple(self, pipe: Any) -> int:
        return max(8, self.factor(pipe))

    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        def decoded(part: Tensor) -> Tensor:
            return _unfold(super(FramewiseVideo, self).decode(pipe, _fold(part)), len(part))

        factor = self.factor(pipe)
        size = Size(z.shape[-2] * factor, z.shape[-1] * factor)
        return over_frames(decoded, z, frames_at_once(len(z), size))

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        def encoded(part: Tensor) -> Tensor:
            return _unfold(super(FramewiseVideo, self).encode(pipe, _fold(part)), len(part))

        return over_frames(encoded, pixels, frames_at_once(len(pixels), Size(*pixels.shape[-2:])))


class AnimateDiff(FramewiseVideo):
    """AnimateDiff: a Stable Diffusion U-Net with a motion adapter, whose places for frames are numbered."""

    classes = ("AnimateDiffPipeline", "AnimateDiffControlNetPipeline", "AnimateDiffSDXLPipeline")

    def most_frames(self, pipe: Any) -> int | None:
        if getattr(pipe, "free_noise_enabled", False):  # a window slides over clips of any length
            return None
        return pipe.unet.config.get("motion_max_seq_length")


class TextToVideo(FramewiseVideo):
    """ModelScope text-to-video: convolutions and attention along time, so clips of any length."""

    classes = ("TextToVideoSDPipeline",)

    def from_step(self, pipe: Any, latents: Tensor, batch: int) -> Tensor:
        return _unfold(latents, batch)

    def to_step(self, pipe: Any, z: Tensor) -> Tensor:
        return _fold(z)


def _fold(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(0, 1)  # (B, C, F, h, w) -> (B F, C, h, w)


def _unfold(z: Tensor, batch: int) -> Tensor:
    return z.unflatten(0, (batch, -1)).transpose(1, 2)  # (B F, C, h, w) -> (B, C, F, h, w)
