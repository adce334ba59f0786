"""Diffusion transformers; those whose pipelines keep latents in a layout of their own say which."""

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
    """Lumina 2: plain latents, patches of 2 x 2."""

    classes = ("Lumina2Pipeline",)
    token_side = 2


class ZImage(Family):
    """Z-Image: plain latents, patches of 2 x 2."""

    classes = (
        "ZImagePipeline",
        "ZImageControlNetPipeline",
        "ZImageControlNetInpaintPipeline",
        "ZImageOmniPipeline",
    )
    token_side = 2
    stated_size = (1024, 1024)


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


class Wan(Family):
    """Wan and SkyReels 2: (B, C, F, h, w), each channel with its own mean and standard deviation."""

    classes = ("WanPipeline", "WanVACEPipeline", "SkyReelsV2Pipeline")
    video = True
    flow = True
    least_multiple = 16
    stated_size = (480, 832)


class LTX(Family):
    """LTX-Video: tokens of latent pixels, (B, F h w, C)."""

    classes = ("LTXPipeline",)
    video = True
    least_multiple = 32
    stated_size = (512, 704)

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        height, width = self.latent_size(size)
        across, along = self._patches
        frames = latents.shape[1] * across * across * along // (height * width)
        return self.pipe._unpack_latents(latents, frames, height, width, across, along)

    def from_spatial(self, z: Tensor) -> Tensor:
        return self.pipe._pack_latents(z, *self._patches)

    def to_vae(self, z: Tensor) -> Tensor:
        vae = self.pipe.vae
        return self.pipe._denormalize_latents(z, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)

    def from_vae(self, z: Tensor) -> Tensor:
        vae = self.pipe.vae
        mean, std = (values.view(1, -1, 1, 1, 1).to(z) for values in (vae.latents_mean, vae.latents_std))
        return (z - mean) * vae.config.scaling_factor / std

    def decoder_arguments(self, z: Tensor) -> tuple[Tensor, ...]:
        """From 0.9.1 on the VAE is told a noise level; the pipeline's default is 0, and then it adds no noise."""
        timed = self.pipe.vae.config.timestep_conditioning
        return (torch.zeros(len(z), device=z.device, dtype=z.dtype),) if timed else ()  # (B,)

    @property
    def _patches(self) -> tuple[int, int]:
        return self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size
