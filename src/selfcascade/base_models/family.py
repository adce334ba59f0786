"""What differs between families of pipelines: latent layout and normalisation, sizes, the way to pixels and back.

The default is an image model whose latents are (B, C, h, w) inside and outside the pipeline, with `scaling_factor` and
`shift_factor`. A family overrides only what it does otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from selfcascade.cascade import Size

LATENT_KEYS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


class Family:
    """An image model with plain latents: SD 3, PixArt, Sana, AuraFlow, Lumina 2 and their like.

    Attributes:
        classes: Names of the pipeline classes it serves; subclasses of those classes are served too.
        video: Whether latents have a frame axis.
        frames_first: Whether the pipeline keeps video latents (B, F, C, h, w) rather than (B, C, F, h, w).
        framewise: Whether its VAE knows single pictures only: frames are then coded a few at a time, however many there
            are. The pipeline's `decode_latents` takes any part of a clip.
        fixed_arguments: Passed to every call of the pipeline that accepts them.
    """

    classes: tuple[str, ...] = ()
    video: bool = False
    frames_first: bool = False
    framewise: bool = False
    fixed_arguments: dict[str, Any] = {"use_resolution_binning": False}  # noqa: RUF012 - constant of the class

    def check(self, pipe: Any) -> None:
        """Raises ValueError if this pipeline, though of the family's classes, cannot be driven."""

    def factor(self, pipe: Any) -> int:
        """Pixels per latent pixel and side."""
        for name in ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio"):
            if isinstance(getattr(pipe, name, None), int):
                return getattr(pipe, name)
        raise ValueError(f"{type(pipe).__name__} does not say how many pixels a latent pixel covers")

    def multiple(self, pipe: Any) -> int:
        """Pixels that heights and widths must be multiples of."""
        return self.factor(pipe) * self.patch(pipe)

    def patch(self, pipe: Any) -> int:
        """Latent pixels per token and side; 1 for U-Nets."""
        config = denoiser(pipe).config
        size = config.get("patch_size", 1)
        return int(size[-1] if isinstance(size, (tuple, list)) else size)

    def native_size(self, pipe: Any) -> Size:
        """The size the model was trained at, as its configuration says.

        Raises:
            ValueError: The configuration does not say.
        """
        sample = denoiser(pipe).config.get("sample_size")
        if sample is None:
            raise ValueError(f"{type(pipe).__name__} does not state its native size; pass native_size=(height, width)")
        height, width = sample if isinstance(sample, (tuple, list)) else (sample, sample)
        return Size(height * self.factor(pipe), width * self.factor(pipe))

    def to_spatial(self, pipe: Any, latents: Tensor, size: Size) -> Tensor:
        """The pipeline's latents as (B, C, h, w) or (B, C, F, h, w)."""
        return latents

    def from_spatial(self, pipe: Any, z: Tensor) -> Tensor:
        """The inverse: what the pipeline takes as `latents`."""
        return z

    def frame_step(self, pipe: Any) -> int:
        """n, where clips have k n + 1 frames: a latent frame stands for as many, the first one for one."""
        for name in ("vae_scale_factor_temporal", "vae_temporal_compression_ratio"):
            if isinstance(getattr(pipe, name, None), int):
                return getattr(pipe, name)
        return 1

    def most_frames(self, pipe: Any) -> int | None:
        """Frames of the longest clip that the model takes; None where nothing in it says."""
        return None

    def from_step(self, pipe: Any, latents: Tensor, batch: int) -> Tensor:
        """What the scheduler steps on, as the pipeline's latents."""
        return latents

    def to_step(self, pipe: Any, z: Tensor) -> Tensor:
        """Latents (B, C, h, w) or (B, C, F, h, w) as the scheduler steps on them."""
        return self.from_spatial(pipe, z)

    def to_vae(self, pipe: Any, z: Tensor) -> Tensor:
        """Latents with the scale and mean that the VAE decodes."""
        scale, shift, mean, std = (pipe.vae.config.get(key) for key in LATENT_KEYS)
        if mean is not None and std is not None:
            return z * _per_channel(std, z) / (scale or 1.0) + _per_channel(mean, z)
        return z / (scale or 1.0) + (shift or 0.0)

    def from_vae(self, pipe: Any, z: Tensor) -> Tensor:
        """The inverse of `to_vae`."""
        scale, shift, mean, std = (pipe.vae.config.get(key) for key in LATENT_KEYS)
        if mean is not None and std is not None:
            return (z - _per_channel(mean, z)) * (scale or 1.0) / _per_channel(std, z)
        return (z - (shift or 0.0)) * (scale or 1.0)

    @torch.no_grad()
    def decode(self, pipe: Any, z: Tensor) -> Tensor:
        """Pixels of latents: (B, C, h, w) to (B, 3, H, W), or (B, C, F, h, w) to (B, 3, F', H, W), about [-1, 1]."""
        with full_precision_vae(pipe) as vae:
            return vae.decode(self.to_vae(pipe, z).to(vae.dtype), return_dict=False)[0]

    @torch.no_grad()
    def encode(self, pipe: Any, pixels: Tensor) -> Tensor:
        """Latents of pixels, the inverse of `decode`; the mode of the posterior, so no random number is drawn."""
        with full_precision_vae(pipe) as vae:
            encoded = vae.encode(pixels.to(vae.dtype))
        z = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        return self.from_vae(pipe, z).to(denoiser(pipe).dtype)


def denoiser(pipe: Any) -> Any:
    """The network inside: `unet` or `transformer`."""
    for name in ("unet", "transformer"):
        if getattr(pipe, name, None) is not None:
            return getattr(pipe, name)
    raise ValueError(f"{type(pipe).__name__} has neither a unet nor a transformer, so it is no supported base model")


@contextlib.contextmanager
def full_precision_vae(pipe: Any) -> Iterator[Any]:
    """The VAE, in float32 where half precision is known to overflow (`force_upcast`); restored afterwards."""
    vae = pipe.vae
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    try:
        yield vae
    finally:
        if upcast:
            vae.to(torch.float16)


@contextlib.contextmanager
def tiled_vae(pipe: Any, wanted: bool) -> Iterator[None]:
    """Within it the VAE decodes in tiles, if that is wanted and it can; afterwards it is as it was."""
    vae = getattr(pipe, "vae", None)
    switch = wanted and hasattr(vae, "enable_tiling") and not getattr(vae, "use_tiling", False)
    if switch:
        vae.enable_tiling()  # type: ignore[union-attr]
    try:
        yield
    finally:
        if switch:
            vae.disable_tiling()  # type: ignore[union-attr]


def _per_channel(values: Any, z: Tensor) -> Tensor:
    return torch.as_tensor(values, device=z.device, dtype=z.dtype).view(1, -1, *([1] * (z.ndim - 2)))
