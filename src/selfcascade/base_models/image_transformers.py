"""Diffusion transformers for pictures. A family states the layout of its latents where that is not (B, C, h, w)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.cascade import Size


class PlainTransformer(Family):
    """Transformers with plain latents."""

    classes = (
        "PixArtSigmaPipeline",
        "PixArtSigmaPAGPipeline",
        "PixArtAlphaPipeline",
        "HunyuanDiTPipeline",
        "HunyuanDiTPAGPipeline",
        "HunyuanDiTControlNetPipeline",
        "CogView4Pipeline",
        "CogView4ControlPipeline",
    )


class StableDiffusion3(Family):
    """Stable Diffusion 3 and 3.5: plain latents, positions cut from the middle of a table."""

    classes = ("StableDiffusion3Pipeline", "StableDiffusion3ControlNetPipeline", "StableDiffusion3PAGPipeline")

    @property
    def position_tokens(self) -> int | None:
        return self.denoiser.config.get("pos_embed_max_size")


class AuraFlow(Family):
    """AuraFlow: plain latents, patches of 2 x 2, positions cut from the middle of a table."""

    classes = ("AuraFlowPipeline",)
    token_side = 2

    @property
    def position_tokens(self) -> int | None:
        return math.isqrt(self.denoiser.config.pos_embed_max_size)  # the config counts the whole table


class Lumina2(Family):
    """Lumina 2: plain latents, patches of 2 x 2, positions from a table."""

    classes = ("Lumina2Pipeline",)
    token_side = 2

    @property
    def position_tokens(self) -> int | None:
        return min(self.denoiser.config.axes_lens[1:])


class ZImage(Family):
    """Z-Image: plain latents, patches of 2 x 2, positions from a table."""

    classes = (
        "ZImagePipeline",
        "ZImageControlNetPipeline",
        "ZImageControlNetInpaintPipeline",
        "ZImageOmniPipeline",
    )
    token_side = 2
    stated_size = (1024, 1024)

    @property
    def position_tokens(self) -> int | None:
        return min(self.denoiser.config.axes_lens[1:])


class Sana(Family):
    """Sana: a 32-fold autoencoder."""

    classes = ("SanaPipeline", "SanaPAGPipeline")
    flow = True
    least_multiple = 32


class Flux(Family):
    """Flux, Chroma and Ovis: 2 x 2 latent pixels packed into a token, (B, h w / 4, 4 C)."""

    classes = ("FluxPipeline", "FluxControlNetPipeline", "FluxControlPipeline", "ChromaPipeline", "OvisImagePipeline")
    token_side = 2

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return self.pipe._unpack_latents(latents, size.height, size.width, self.factor)

    def from_spatial(self, z: Tensor) -> Tensor:
        return self.pipe._pack_latents(z, *z.shape)


class QwenImage(Flux):
    """Qwen-Image: packed like Flux, with a video VAE of one frame."""

    classes = ("QwenImagePipeline", "QwenImageControlNetPipeline")
    clip_vae = True

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return super().to_spatial(latents, size)[:, :, 0]  # (B, C, 1, h, w) -> (B, C, h, w)


class Flux2(Family):
    """Flux 2: patches of 2 x 2 latent pixels as channels, normalised by the VAE's running statistics, then tokens."""

    classes = ("Flux2Pipeline",)
    token_side = 2

    def shift(self, size: Size, steps: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        height, width = self.latent_size(size)
        return compute_empirical_mu(height * width // self.patch**2, steps)

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        rows = size.height // self.multiple
        patches = latents.transpose(1, 2).reshape(len(latents), latents.shape[-1], rows, -1)  # (B, 4 C, h/2, w/2)
        return self.pipe._unpatchify_latents(patches)

    def from_spatial(self, z: Tensor) -> Tensor:
        return self.pipe._patchify_latents(z)

    def to_step(self, z: Tensor) -> Tensor:
        return self.pipe._pack_latents(self.pipe._patchify_latents(z))

    def to_vae(self, z: Tensor) -> Tensor:
        mean, std = self._statistics(z)
        return self.pipe._unpatchify_latents(self.pipe._patchify_latents(z) * std + mean)

    def from_vae(self, z: Tensor) -> Tensor:
        mean, std = self._statistics(z)
        return self.pipe._unpatchify_latents((self.pipe._patchify_latents(z) - mean) / std)

    def _statistics(self, z: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.pipe.vae.bn
        mean: Tensor = norm.running_mean
        variance: Tensor = norm.running_var + self.pipe.vae.config.batch_norm_eps
        return mean.view(1, -1, 1, 1).to(z), variance.sqrt().view(1, -1, 1, 1).to(z)


class Flux2Klein(Flux2):
    """Flux 2 Klein, whose pipeline returns latents with the VAE's own scale and mean."""

    classes = ("Flux2KleinPipeline",)

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return self.from_vae(latents) if latents.ndim == 4 else super().to_spatial(latents, size)


class PRX(Family):
    """PRX: plain latents; its pipeline states the native size in pixels."""

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
    """Lumina-Next: plain latents; the pipeline has a table of 384 positions per side."""

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
    """Kandinsky 5 for pictures: channels last, (B, 1, h, w, C); it rounds sizes to those in a list."""

    classes = ("Kandinsky5T2IPipeline",)
    least_multiple = 16
    stated_size = (1024, 1024)
    output_name = "image"

    @property
    def position_tokens(self) -> int | None:
        return min(self.pipe.transformer.visual_rope_embeddings.max_pos[1:])

    def lent_attributes(self, size: Size) -> dict[str, object]:
        return {"resolutions": [(size.width, size.height)]}

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return latents[:, 0].movedim(-1, 1)

    def from_spatial(self, z: Tensor) -> Tensor:
        return z.movedim(1, -1).unsqueeze(1)


class FluxKontext(Flux):
    """Flux Kontext: packed like Flux; it scales sizes to a given area, which is set to the stage's."""

    classes = ("FluxKontextPipeline",)

    def size_arguments(self, size: Size) -> dict[str, object]:
        return {**super().size_arguments(size), "max_area": size.area}


class QwenImage21(QwenImage):
    """Qwen-Image 2.1: one token per latent pixel, sides even, and an autoencoder with an alpha channel."""

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
