"""Diffusion transformers whose pipelines keep latents in a layout of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import Family, full_precision_vae
from selfcascade.cascade import Size


class Flux(Family):
    """Flux and Chroma: 2 x 2 latent pixels packed into a token, (B, h w / 4, 4 C)."""

    classes = ("FluxPipeline", "FluxControlNetPipeline", "ChromaPipeline")

    def patch(self, pipe: Any) -> int:
        return 2

    def native_size(self, pipe: Any) -> Size:
        return Size(*(pipe.default_sample_size * self.factor(pipe),) * 2)

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        return pipe._unpack_latents(latents, size.height, size.width, self.factor(pipe))

    def from_spatial(self, pipe: Any, z: Tensor) -> Tensor:
        return pipe._pack_latents(z, *z.shape)


class QwenImage(Flux):
    """Qwen-Image: packed like Flux, with a video VAE of one frame."""

    classes = ("QwenImagePipeline",)

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        return super().to_spatial(pipe, latents, size)[:, :, 0]  # (B, C, 1, h, w) -> (B, C, h, w)

    def to_vae(self, pipe: Any, z: Tensor) -> Tensor:
        return super().to_vae(pipe, z).unsqueeze(2)

    def from_vae(self, pipe: Any, z: Tensor) -> Tensor:
        return super().from_vae(pipe, z)[:, :, 0]

    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        return super().decode(pipe, z)[:, :, 0]

    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        return super().encode(pipe, pixels.unsqueeze(2))


class Flux2(Family):
    """Flux 2: patches of 2 x 2 latent pixels as channels, normalised by the VAE's running statistics, then tokens."""

    classes = ("Flux2Pipeline",)

    def patch(self, pipe: Any) -> int:
        return 2

    def native_size(self, pipe: Any) -> Size:
        return Size(*(pipe.default_sample_size * self.factor(pipe),) * 2)

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        patches = latents.transpose(1, 2).unflatten(2, (size.height // self.multiple(pipe), -1))  # (B, 4 C, h/2, w/2)
        return pipe._unpatchify_latents(patches)

    def from_spatial(self, pipe: Any, z: Tensor) -> Tensor:
        return pipe._patchify_latents(z)

    def to_step(self, pipe: Any, z: Tensor) -> Tensor:
        return pipe._pack_latents(pipe._patchify_latents(z))

    def to_vae(self, pipe: Any, z: Tensor) -> Tensor:
        mean, std = self._statistics(pipe, z)
        return pipe._unpatchify_latents(pipe._patchify_latents(z) * std + mean)

    def from_vae(self, pipe: Any, z: Tensor) -> Tensor:
        mean, std = self._statistics(pipe, z)
        return pipe._unpatchify_latents((pipe._patchify_latents(z) - mean) / std)

    def _statistics(self, pipe: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        norm = pipe.vae.bn
        variance = norm.running_var + pipe.vae.config.batch_norm_eps
        return tuple(values.view(1, -1, 1, 1).to(z) for values in (norm.running_mean, variance.sqrt()))


class AuraFlow(Family):
    """AuraFlow: plain latents, patches of 2 x 2 fixed by the pipeline's size check."""

    classes = ("AuraFlowPipeline",)

    def patch(self, pipe: Any) -> int:
        return 2


class ZImage(Family):
    """Z-Image: plain latents, patches of 2 x 2."""

    classes = ("ZImagePipeline",)

    def patch(self, pipe: Any) -> int:
        return 2

    def native_size(self, pipe: Any) -> Size:
        return Size(1024, 1024)


class Sana(Family):
    """Sana: a 32-fold autoencoder."""

    classes = ("SanaPipeline",)

    def multiple(self, pipe: Any) -> int:
        return max(32, self.factor(pipe))


class Lumina2(Family):
    """Lumina 2: sizes in multiples of sixteen pixels."""

    classes = ("Lumina2Pipeline",)

    def patch(self, pipe: Any) -> int:
        return 2


class Wan(Family):
    """Wan: (B, C, F, h, w), each channel with its own mean and standard deviation."""

    classes = ("WanPipeline",)
    video = True

    def native_size(self, pipe: Any) -> Size:
        return Size(480, 832)

    def multiple(self, pipe: Any) -> int:
        return max(16, super().multiple(pipe))


class LTX(Family):
    """LTX-Video: tokens of latent pixels, (B, F h w, C)."""

    classes = ("LTXPipeline",)
    video = True

    def native_size(self, pipe: Any) -> Size:
        return Size(512, 704)

    def factor(self, pipe: Any) -> int:
        return pipe.vae_spatial_compression_ratio

    def multiple(self, pipe: Any) -> int:
        return max(32, self.factor(pipe))

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        height, width = (side // self.factor(pipe) for side in size)
        across, along = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        frames = latents.shape[1] * across * across * along // (height * width)
        return pipe._unpack_latents(latents, frames, height, width, across, along)

    def from_spatial(self, pipe: Any, z: Tensor) -> Tensor:
        return pipe._pack_latents(z, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)

    def to_vae(self, pipe: Any, z: Tensor) -> Tensor:
        vae = pipe.vae
        return pipe._denormalize_latents(z, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)

    def from_vae(self, pipe: Any, z: Tensor) -> Tensor:
        vae = pipe.vae
        mean, std = (values.view(1, -1, 1, 1, 1).to(z) for values in (vae.latents_mean, vae.latents_std))
        return (z - mean) * vae.config.scaling_factor / std

    @torch.no_grad()
    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        """As `Family.decode`; from 0.9.1 on the VAE is told a noise level, the pipeline's default 0: no noise added."""
        if not pipe.vae.config.timestep_conditioning:
            return super().decode(pipe, z)
        with full_precision_vae(pipe) as vae:
            clean = torch.zeros(len(z), device=z.device, dtype=vae.dtype)  # (B,)
            return vae.decode(self.to_vae(pipe, z).to(vae.dtype), clean, return_dict=False)[0]


class CogVideoX(Family):
    """CogVideoX 1.0: frames before channels, (B, F, C, h, w)."""

    classes = ("CogVideoXPipeline",)
    video = True
    frames_first = True

    def check(self, pipe: Any) -> None:
        along = pipe.transformer.config.get("patch_size_t")
        if along is not None:
            raise ValueError(
                f"{type(pipe).__name__} with patch_size_t {along}, CogVideoX 1.5, is not supported as a base model: "
                f"its positions end at the size in its config, and latents hold frames of padding; use CogVideoX 1.0"
            )

    def frame_step(self, pipe: Any) -> int:
        return 2 * super().frame_step(pipe)  # its VAE decodes latent frames in pairs, after the first

    def native_size(self, pipe: Any) -> Size:
        config = pipe.transformer.config
        return Size(config.sample_height * self.factor(pipe), config.sample_width * self.factor(pipe))

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        return latents.transpose(1, 2)

    def from_spatial(self, pipe: Any, z: Tensor) -> Tensor:
        return z.transpose(1, 2)
