"""Diffusion transformers for video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from selfcascade.base_models.family import Family
from selfcascade.cascade import Size
from selfcascade.options.checks import OptionError

GUIDER = "pipe.guider = pipe.guider.new(guidance_scale=...)"


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
        """From 0.9.1 on the VAE takes a noise level; at 0, the pipeline's default, it adds no noise."""
        timed = self.pipe.vae.config.timestep_conditioning
        return (torch.zeros(len(z), device=z.device, dtype=z.dtype),) if timed else ()  # (B,)

    @property
    def _patches(self) -> tuple[int, int]:
        return self.pipe.transformer_spatial_patch_size, self.pipe.transformer_temporal_patch_size


class CogVideoX(Family):
    """CogVideoX: frames before channels, (B, F, C, h, w).

    From 1.5 on a token covers two latent frames: the pipeline puts a padding frame before an odd number of them, which
    is denoised with the rest and dropped before decoding. Positions end at the size in the configuration.
    """

    classes = ("CogVideoXPipeline",)
    video = True
    frames_first = True

    @property
    def frame_step(self) -> int:
        return 2 * self.frames_each  # its VAE decodes latent frames in pairs, after the first

    def latent_frames(self, frames: int) -> int:
        return -(-super().latent_frames(frames) // self.frame_patch) * self.frame_patch

    def frames_of(self, latent_frames: int) -> int:
        return super().frames_of(latent_frames - self._padding)

    @property
    def native_size(self) -> Size:
        if self.frame_patch > 1:
            return Size(768, 1360)
        return self._stated

    def check_size(self, size: Size) -> None:
        most = self._stated
        if self.frame_patch > 1 and (size.height > most.height or size.width > most.width):
            raise ValueError(f"{size} is too large for {self.name}, whose positions end at {most}")

    def decode(self, z: Tensor) -> Tensor:
        return super().decode(z[:, :, self._padding :])

    def encode(self, pixels: Tensor) -> Tensor:
        z = super().encode(pixels)
        return torch.cat([z[:, :, :1]] * self._padding + [z], dim=2)

    @property
    def _padding(self) -> int:
        return self.frame_patch - 1  # as clips have an odd number of latent frames

    @property
    def _stated(self) -> Size:
        config = self.denoiser.config
        return Size(config.sample_height * self.factor, config.sample_width * self.factor)


class SanaVideo(Family):
    """Sana-Video: (B, C, F, h, w), with the autoencoder of Wan, of LTX 2 or Sana's own."""

    classes = ("SanaVideoPipeline",)
    video = flow = True
    frames_name = "frames"
    least_multiple = 32

    @property
    def native_size(self) -> Size:
        return Size(704, 1280) if self.denoiser.config.sample_size == 22 else Size(480, 832)

    def to_vae(self, z: Tensor) -> Tensor:
        mean, std = self._statistics(z)
        return z * std + mean

    def from_vae(self, z: Tensor) -> Tensor:
        mean, std = self._statistics(z)
        return (z - mean) / std

    def _statistics(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of latents: LTX 2's are buffers, Wan's in the configuration, Sana's 0 and 1."""
        config = self.vae.config
        mean, std = (getattr(self.vae, key, config.get(key)) for key in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return torch.zeros_like(z[:1, :, :1, :1, :1]), torch.ones_like(z[:1, :, :1, :1, :1])
        shape = (1, -1, 1, 1, 1)
        return torch.as_tensor(mean).view(shape).to(z), torch.as_tensor(std).view(shape).to(z)


class AnyFlow(Wan):
    """AnyFlow: Wan's latents, and a scheduler that tells the network where a step ends."""

    classes = ("AnyFlowPipeline",)


class Mochi(Family):
    """Mochi: (B, C, F, h, w), each channel with its own mean and deviation; its timesteps count from noise."""

    classes = ("MochiPipeline",)
    video = counts_signal = True
    stated_size = (480, 848)

    @property
    def factor(self) -> int:
        return self.pipe.vae_spatial_scale_factor

    @property
    def frames_each(self) -> int:
        return self.pipe.vae_temporal_scale_factor

    def sigmas(self, steps: int) -> Sequence[float]:
        # Imported here because it imports transformers.
        from diffusers.pipelines.mochi.pipeline_mochi import (
            linear_quadratic_schedule,  # pyright: ignore[reportUnknownVariableType]
        )

        if steps == 1:
            raise OptionError(f"{{num_inference_steps}} must be at least 2 for {self.name}, not 1")
        return cast("list[float]", linear_quadratic_schedule(steps, 0.025))


class EasyAnimate(Family):
    """EasyAnimate: (B, C, F, h, w)."""

    classes = ("EasyAnimatePipeline",)
    video = True
    least_multiple = 16
    stated_size = (512, 512)


class Latte(Family):
    """Latte: (B, C, F, h, w), encoded frame by frame; it has positions for one length of clip."""

    classes = ("LattePipeline",)
    video = framewise = True
    frames_name = "video_length"

    @property
    def only_frames(self) -> int | None:
        return self.denoiser.config.video_length

    def decoding_arguments(self, frames: int, chunk: int | None) -> dict[str, object]:
        return {**super().decoding_arguments(frames, chunk), "video_length": frames}


class HunyuanVideo(Family):
    """HunyuanVideo: (B, C, F, h, w)."""

    classes = ("HunyuanVideoPipeline",)
    video = True
    stated_size = (720, 1280)


class HunyuanVideo15(Family):
    """HunyuanVideo 1.5: 16 pixels a latent pixel; its guidance is the pipeline's `guider`."""

    classes = ("HunyuanVideo15Pipeline",)
    video = True
    guided_by = GUIDER

    @property
    def native_size(self) -> Size:
        width, height = self.pipe.default_aspect_ratio
        processor = self.pipe.video_processor
        return Size(*processor.calculate_default_height_width(height, width, self.pipe.target_size))


class MotifVideo(Family):
    """Motif-Video: (B, C, F, h, w), each channel with its own mean and standard deviation, guided by a `guider`."""

    classes = ("MotifVideoPipeline",)
    video = True
    guided_by = GUIDER
    flow = True
    stated_size = (736, 1280)


class Kandinsky5Video(Family):
    """Kandinsky 5: channels last, (B, F, h, w, C), followed by a clip to continue, which is empty here."""

    classes = ("Kandinsky5T2VPipeline",)
    video = True
    least_multiple = 16
    stated_size = (512, 768)

    @property
    def position_tokens(self) -> int | None:
        return min(self.pipe.transformer.visual_rope_embeddings.max_pos[1:])

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return latents.movedim(-1, 1)

    def from_spatial(self, z: Tensor) -> Tensor:
        latents = self.to_step(z)
        # The pipeline adds the clip and its mask to latents that it draws itself, but not to given ones.
        more = z.shape[1] + 1 if self.pipe.transformer.visual_cond else 0
        empty = latents.new_zeros(*latents.shape[:-1], more)
        return torch.cat([latents, empty], dim=-1)

    def to_step(self, z: Tensor) -> Tensor:
        return z.movedim(1, -1)
