"""Stable Diffusion 1.x, 2.x and XL, and pipelines built like them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selfcascade.base_models.family import Family


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


class AnimateDiff(Family):
    """AnimateDiff: a motion U-Net whose latents are (B, C, F, h, w); frames are decoded as a batch."""

    classes = ("AnimateDiffPipeline", "AnimateDiffControlNetPipeline", "AnimateDiffSDXLPipeline")
    video = True

    def multiple(self, pipe: Any) -> int:
        return max(8, self.factor(pipe))

    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        pixels = super().decode(pipe, _fold(z))
        return _unfold(pixels, len(z))

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        return _unfold(super().encode(pipe, _fold(pixels)), len(pixels))


class TextToVideo(Family):
    """ModelScope text-to-video: its scheduler steps on folded frames, (B F, C, h, w)."""

    classes = ("TextToVideoSDPipeline",)
    video = True

    def multiple(self, pipe: Any) -> int:
        return max(8, self.factor(pipe))

    def from_step(self, pipe: Any, latents: Tensor, batch: int) -> Tensor:
        return _unfold(latents, batch)

    def to_step(self, pipe: Any, z: Tensor) -> Tensor:
        return _fold(z)

    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        return _unfold(super().decode(pipe, _fold(z)), len(z))

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        return _unfold(super().encode(pipe, _fold(pixels)), len(pixels))


def _fold(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(0, 1)  # (B, C, F, h, w) -> (B F, C, h, w)


def _unfold(z: Tensor, batch: int) -> Tensor:
    return z.unflatten(0, (batch, -1)).transpose(1, 2)  # (B F, C, h, w) -> (B, C, F, h, w)
