"""What differs between families of pipelines: latent layout and scale, sizes, and the conversion to and from pixels.

The default is an image model whose latents are (B, C, h, w) inside and outside the pipeline, with `scaling_factor` and
`shift_factor`. A family states only what differs from that; most need a few class attributes and no method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from selfcascade.base_models.autoencoders import full_precision
from selfcascade.base_models.frames import fold, frames_at_once, over_frames, unfold
from selfcascade.base_models.last_timesteps import linear_sigmas
from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Size
from selfcascade.options.checks import OptionError, is_whole

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

LATENT_KEYS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
FACTOR_NAMES = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
FRAME_STEP_NAMES = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")


class Family:
    """An image model with plain latents, bound to its pipeline: SD 3, PixArt, HunyuanDiT, CogView 4 and their like.

    Attributes:
        classes: Names of the pipeline classes it serves; subclasses of those classes are served too.
        video: Whether latents have a frame axis.
        frames_first: Whether the pipeline keeps video latents (B, F, C, h, w) rather than (B, C, F, h, w).
        frames_name: The pipeline's keyword for the number of frames; calls say `num_frames` whatever it is.
        framewise: Whether the VAE works on single pictures only, so that frames are encoded and decoded a few at a
            time. The pipeline's `decode_latents` must accept any part of a clip.
        clip_vae: Whether an image model's VAE takes clips; it is then given clips of one frame.
        token_side: Latent pixels per token and side; None reads the denoiser's `patch_size`, 1 if it has none.
        least_multiple: Heights and widths are multiples of at least this many pixels.
        counts_signal: Whether timesteps rise from noise to picture, and the model predicts z_0 - eps.
        flow: Whether the model predicts a flow, eps - z_0; None if the pipeline's signature says so.
        stated_size: (height, width) in pixels the published models were trained at, if no configuration says.
        output_name: Attribute of the output with the pictures or clips; None means "images", "frames" for video.
        guided_by: What sets the weight of the prompt instead of `guidance_scale`; None if `guidance_scale` does.
        fixed_arguments: Keywords for every call of a pipeline that accepts them.
        pipe: The pipeline.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    video: ClassVar[bool] = False
    frames_first: ClassVar[bool] = False
    frames_name: ClassVar[str] = "num_frames"
    framewise: ClassVar[bool] = False
    clip_vae: ClassVar[bool] = False
    token_side: ClassVar[int | None] = None
    least_multiple: ClassVar[int] = 1
    flow: ClassVar[bool | None] = None
    counts_signal: ClassVar[bool] = False
    stated_size: ClassVar[tuple[int, int] | None] = None
    output_name: ClassVar[str | None] = None
    guided_by: ClassVar[str | None] = None
    fixed_arguments: ClassVar[Mapping[str, object]] = {"use_resolution_binning": False}

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe

    def check(self) -> None:
        """Raises ValueError if this pipeline cannot be driven, although its class is the family's."""

    @property
    def name(self) -> str:
        """Name of the pipeline's class, for messages."""
        return type(self.pipe).__name__

    @property
    def denoiser(self) -> ModelMixin:
        """The network inside: `unet` or `transformer`."""
        return denoiser(self.pipe)

    @property
    def vae(self) -> Any:
        """The autoencoder between pixels and latents."""
        return getattr(self.pipe, "vae", None)

    @property
    def factor(self) -> int:
        """Pixels per latent pixel and side."""
        stated = _first_integer(self.pipe, FACTOR_NAMES)
        if stated is None:
            raise ValueError(f"{self.name} does not say how many pixels a latent pixel covers")
        return stated

    @property
    def patch(self) -> int:
        """Latent pixels per token and side; 1 for U-Nets."""
        if self.token_side is not None:
            return self.token_side
        size: int | list[int] = self.denoiser.config.get("patch_size", 1)
        return size if isinstance(size, int) else size[-1]

    @property
    def multiple(self) -> int:
        """Pixels that heights and widths must be multiples of."""
        return max(self.least_multiple, self.factor * self.patch)

    @property
    def native_size(self) -> Size:
        """The size the model was trained at, from its configuration.

        Raises:
            OptionError: The configuration does not say.
        """
        if self.stated_size is not None:
            return Size(*self.stated_size)
        stated = self.denoiser.config.get("sample_size") or getattr(self.pipe, "default_sample_size", None)
        sides: Any = [stated, stated] if isinstance(stated, int) else stated
        if stated is None or len(sides) != 2 or not all(is_whole(side) for side in sides):
            how = "does not state its native size" if stated is None else f"states the native size {stated!r}"
            raise OptionError(f"{self.name} {how}; give {{native_size}}, its height and width in pixels")
        return Size(sides[0] * self.factor, sides[1] * self.factor)

    @property
    def position_tokens(self) -> int | None:
        """Tokens per side that the model has positions for; None if it computes them for any size."""
        return None

    def check_size(self, size: Size) -> None:
        """Raises ValueError if the model has no positions for pictures of this size."""
        if self.position_tokens is None:
            return
        most = self.position_tokens * self.patch * self.factor
        if max(size) > most:
            raise ValueError(f"{size} is too large for {self.name}, whose positions end at {most} pixels a side")

    def latent_size(self, size: Size) -> tuple[int, int]:
        """(h, w) of the latents for pictures of this size."""
        return size.height // self.factor, size.width // self.factor

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        """The pipeline's latents as (B, C, h, w) or (B, C, F, h, w)."""
        return latents.transpose(1, 2) if self.frames_first else latents

    def from_spatial(self, z: Tensor) -> Tensor:
        """The inverse of `to_spatial`: what the pipeline takes as `latents`."""
        return z.transpose(1, 2) if self.frames_first else z

    def from_step(self, latents: Tensor, batch: int) -> Tensor:
        """Converts the scheduler's samples to the pipeline's latents."""
        return latents

    def to_step(self, z: Tensor) -> Tensor:
        """Converts latents (B, C, h, w) or (B, C, F, h, w) to the scheduler's samples."""
        return self.from_spatial(z)

    @property
    def frames_each(self) -> int:
        """Frames per latent frame; the first latent frame stands for one frame."""
        return _first_integer(self.pipe, FRAME_STEP_NAMES) or 1

    @property
    def frame_step(self) -> int:
        """n: clips must have k n + 1 frames."""
        return self.frames_each

    @property
    def frame_patch(self) -> int:
        """Latent frames per token."""
        size: int | list[int] = self.denoiser.config.get("patch_size", 1)
        along: int | None = self.denoiser.config.get("patch_size_t")
        return along or (1 if isinstance(size, int) else size[0])

    def latent_frames(self, frames: int) -> int:
        """Number of latent frames in a clip of this many frames."""
        return (frames - 1) // self.frames_each + 1

    def frames_of(self, latent_frames: int) -> int:
        """The inverse of `latent_frames`."""
        return (latent_frames - 1) * self.frames_each + 1

    @property
    def most_frames(self) -> int | None:
        """Frames in the longest clip that the model supports; None if nothing limits it."""
        return None

    @property
    def only_frames(self) -> int | None:
        """The only number of frames that the model supports; None if it supports others."""
        return None

    def sigmas(self, steps: int) -> Sequence[float]:
        """Sigmas that the pipeline gives a flow scheduler for this many steps, as far as known beforehand."""
        return linear_sigmas(steps)

    def shift(self, size: Size, steps: int) -> float:
        """The dynamic shift from the pipeline's own rule; 0 if the scheduler's `max_shift` bounds it."""
        return 0.0

    def size_arguments(self, size: Size) -> dict[str, object]:
        """Keywords that tell the pipeline the size of its pictures."""
        return size._asdict()

    def lent_attributes(self, size: Size) -> dict[str, object]:
        """Attributes that the pipeline needs while it makes pictures of this size."""
        return {}

    def latents_of(self, output: object) -> Tensor:
        """The pictures or clips in the pipeline's output."""
        return getattr(output, self.output_name or ("frames" if self.video else "images"))

    def to_vae(self, z: Tensor) -> Tensor:
        """Latents with the scale and mean that the VAE expects."""
        scale, shift, mean, std = (self.vae.config.get(key) for key in LATENT_KEYS)
        if mean is not None and std is not None:
            return z * _per_channel(std, z) / (scale or 1.0) + _per_channel(mean, z)
        return z / (scale or 1.0) + (shift or 0.0)

    def from_vae(self, z: Tensor) -> Tensor:
        """The inverse of `to_vae`."""
        scale, shift, mean, std = (self.vae.config.get(key) for key in LATENT_KEYS)
        if mean is not None and std is not None:
            return (z - _per_channel(mean, z)) * (scale or 1.0) / _per_channel(std, z)
        return (z - (shift or 0.0)) * (scale or 1.0)

    def decoder_arguments(self, z: Tensor) -> tuple[object, ...]:
        """Further arguments for the VAE's `decode`, after the latents in its device and dtype."""
        return ()

    def decoding_arguments(self, frames: int, chunk: int | None) -> dict[str, object]:
        """Keywords for a frame-wise pipeline's `decode_latents` with this many frames, `chunk` at a time."""
        return {} if chunk is None else {"decode_chunk_size": chunk}

    def shown(self, pixels: Tensor, output_type: str, clean: Sequence[bool] | None = None) -> Any:
        """Pixels from `decode` in the requested output type; pictures that are not `clean` are black already."""
        if self.video:
            return self.pipe.video_processor.postprocess_video(pixels, output_type=output_type)
        return self.pipe.image_processor.postprocess(pixels, output_type=output_type, do_denormalize=clean)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decodes (B, C, h, w) to pixels (B, 3, H, W), or (B, C, F, h, w) to (B, 3, F', H, W), about [-1, 1]."""

        def decoded(part: Tensor) -> Tensor:
            with full_precision(self.vae) as vae:
                latents = self._to_coder(self.to_vae(part)).to(vae.dtype)
                pixels = vae.decode(latents, *self.decoder_arguments(latents), return_dict=False)[0]
            return self._from_coder(pixels, len(part))

        height, width = z.shape[-2:]
        return self.in_parts(decoded, z, Size(height * self.factor, width * self.factor))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Encodes pixels, the inverse of `decode`. Takes the posterior's mode, so no random number is drawn."""

        def encoded(part: Tensor) -> Tensor:
            with full_precision(self.vae) as vae:
                made = vae.encode(self._to_coder(part).to(vae.dtype))
            z = made.latent_dist.mode() if hasattr(made, "latent_dist") else made[0]
            return self.from_vae(self._from_coder(z, len(part))).to(self.denoiser.dtype)

        return self.in_parts(encoded, pixels, Size(*pixels.shape[-2:]))

    def in_parts(self, function: Callable[[Tensor], Tensor], clip: Tensor, size: Size) -> Tensor:
        """`function(clip)`, a few frames at a time if the VAE works on single pictures only.

        Args:
            function: Maps pictures or a clip; each frame by itself if the clip is cut.
            clip: (B, C, h, w) or (B, C, F, h, w).
            size: The larger of the input's and output's sizes, in pixels.
        """
        return over_frames(function, clip, frames_at_once(len(clip), size)) if self.framewise else function(clip)

    def _to_coder(self, x: Tensor) -> Tensor:
        """Pictures or clips in the VAE's layout: frames folded into the batch, or a frame axis added."""
        return fold(x) if self.framewise else x.unsqueeze(2) if self.clip_vae else x

    def _from_coder(self, x: Tensor, batch: int) -> Tensor:
        return unfold(x, batch) if self.framewise else x[:, :, 0] if self.clip_vae else x


def denoiser(pipe: Pipeline) -> ModelMixin:
    """The network inside: `unet` or `transformer`."""
    for name in ("unet", "transformer"):
        network: ModelMixin | None = getattr(pipe, name, None)
        if network is not None:
            return network
    raise ValueError(f"{type(pipe).__name__} has neither a unet nor a transformer, so it is not a supported base model")


def _per_channel(values: Sequence[float], z: Tensor) -> Tensor:
    return torch.as_tensor(values, device=z.device, dtype=z.dtype).view(1, -1, *([1] * (z.ndim - 2)))


def _first_integer(pipe: Pipeline, names: Sequence[str]) -> int | None:
    values = (getattr(pipe, name, None) for name in names)
    return next((value for value in values if isinstance(value, int)), None)
