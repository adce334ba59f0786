"""Image transformers beside those of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.base_models.transformers import Flux, QwenImage, StableDiffusion3
from selfcascade.cascade import Size


class PRX(Family):
    """PRX: plain latents; it states its native size in pixels."""

    classes = ("PRXPipeline",)

    def check(self) -> None:
        if self.pipe.vae is None:
            raise ValueError(
                f"{self.name} without a VAE works on pixels and is not supported as a base model; "
                f"use a published PRX model that has one"
            )

    @property
    def native_size(self) -> Size:
        side = self.pipe.default_sample_size
        return Size(side, side)


class CogView3Plus(StableDiffusion3):
    """CogView 3 Plus: plain latents, positions cut from a table."""

    classes = ("CogView3PlusPipeline",)


class Lumina(Family):
    """Lumina-Next: plain latents; its pipeline's positions are a table of 384 a side."""

    classes = ("LuminaPipeline",)

    @property
    def position_tokens(self) -> int | None:
        return 384


class Krea2(QwenImage):
    """Krea 2: packed like Flux, with Qwen-Image's VAE."""

    classes = ("Krea2Pipeline",)
    stated_size = (1024, 1024)

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return self.pipe._unpack_latents(latents, size.height, size.width)[:, :, 0]


class NucleusMoE(QwenImage):
    """NucleusMoE-Image: packed into patches of the transformer's own size, with Qwen-Image's VAE."""

    classes = ("NucleusMoEImagePipeline",)
    token_side = None

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return self.pipe._unpack_latents(latents, size.height, size.width, self.patch, self.factor)[:, :, 0]

    def from_spatial(self, z: Tensor) -> Tensor:
        return self.pipe._pack_latents(z, *z.shape, self.patch)


class Kandinsky5Image(Family):
    """Kandinsky 5 for pictures: channels last, (B, 1, h, w, C), and a list of sizes that it rounds others to."""

    classes = ("Kandinsky5T2IPipeline",)
    least_multiple = 16
    stated_size = (1024, 1024)
    output_name = "image"

    def lent_attributes(self, size: Size) -> dict[str, object]:
        return {"resolutions": [(size.width, size.height)]}

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return latents[:, 0].movedim(-1, 1)

    def from_spatial(self, z: Tensor) -> Tensor:
        return z.movedim(1, -1).unsqueeze(1)


class FluxKontext(Flux):
    """Flux Kontext: packed like Flux; it brings sizes to an area that it is told, which is the stage's own."""

    classes = ("FluxKontextPipeline",)

    def size_arguments(self, size: Size) -> dict[str, object]:
        return {**super().size_arguments(size), "max_area": size.area}


class QwenImage21(QwenImage):
    """Qwen-Image 2.1: tokens of a latent pixel, in pairs of pairs, and an autoencoder of pictures with an alpha."""

    classes = ("QwenImage21Pipeline",)
    stated_size = (1024, 1024)
    guided_by = "true_cfg_scale and a negative prompt"

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        height, width = self.latent_size(size)
        return latents.transpose(1, 2).reshape(len(latents), -1, height, width)

    def from_spatial(self, z: Tensor) -> Tensor:
        return z.flatten(2).transpose(1, 2)

    def encode(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1] == 3:
            pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)  # opaque
        return super().encode(pixels)


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
        return 8  # as in the pipeline

    def to_vae(self, z: Tensor) -> Tensor:
        return z

    def from_vae(self, z: Tensor) -> Tensor:
        return z

    def decoder_arguments(self, z: Tensor) -> tuple[object, ...]:
        return (True,)  # latents are not codes

    def shown(self, pixels: Tensor, output_type: str, clean: Sequence[bool] | None = None) -> Any:
        # The pipeline has no processor, and gives tensors out in [-1, 1].
        return pixels if output_type == "pt" else VaeImageProcessor().postprocess(pixels, output_type=output_type)
