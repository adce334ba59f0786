"""Image transformers beside those of `transformers`."""

from __future__ import annotations

from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.base_models.transformers import QwenImage, StableDiffusion3
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
