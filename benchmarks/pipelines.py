"""Pipelines of public proportions whose networks have shapes but no weights, for the planner to count on.

Networks and VAEs lie on the meta device. Their pipelines say that they run on the CPU, as the planner's copies do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from attention import FRAMES, sd_3, wan
from flops import SD_21_BASE, SDXL_BASE

from selfcascade import Size

library: Any = diffusers  # its annotations say `tuple[int]` and classes where longer tuples and None are meant
NOISE: dict[str, Any] = {  # Stable Diffusion's own schedule
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def on_cpu(pipe: Any) -> Any:
    """The pipeline, which then makes latents and schedules on the CPU whatever device its networks are on."""
    kind = type(pipe)
    device = property(lambda _: torch.device("cpu"))
    pipe.__class__ = type(kind.__name__, (kind,), {"_execution_device": device, "__module__": kind.__module__})
    return pipe


def weightless(kind: Any, **config: Any) -> Any:
    """A network of this class and configuration on the meta device."""
    with torch.device("meta"):
        return kind(**config)


def autoencoder(channels: int) -> Any:
    """Stable Diffusion's VAE, or one of its successors with 16 channels."""
    return weightless(
        library.AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=channels,
        shift_factor=0.0,
    )


def embeddings(tokens: int, width: int, pooled: int = 0, guided: bool = True) -> dict[str, Any]:
    """Of a prompt, and of no prompt where guidance is by two passes."""
    kinds = ("", "negative_") if guided else ("",)
    found = {f"{kind}prompt_embeds": torch.zeros(1, tokens, width) for kind in kinds}
    return found | ({f"{kind}pooled_prompt_embeds": torch.zeros(1, pooled) for kind in kinds} if pooled else {})


def sd_21() -> Any:
    """Stable Diffusion 2.1-base."""
    unet = weightless(library.UNet2DConditionModel, **SD_21_BASE)
    parts = autoencoder(4), None, None, unet, library.DDIMScheduler(**NOISE), None, None
    return library.StableDiffusionPipeline(*parts, requires_safety_checker=False)


def sdxl() -> Any:
    """Stable Diffusion XL."""
    unet = weightless(library.UNet2DConditionModel, **SDXL_BASE)
    parts = autoencoder(4), None, None, None, None, unet, library.DDIMScheduler(**NOISE)
    return library.StableDiffusionXLPipeline(*parts, add_watermarker=False)


def sd_3_medium() -> Any:
    """Stable Diffusion 3 medium, with positions for 4096 pixels a side."""
    scheduler = library.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return library.StableDiffusion3Pipeline(weightless(sd_3), scheduler, autoencoder(16), *(None,) * 6)


def flux() -> Any:
    """Flux.1-dev, whose guidance is an input."""
    transformer = weightless(library.FluxTransformer2DModel, guidance_embeds=True)
    scheduler = library.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, max_image_seq_len=4096)
    return library.FluxPipeline(scheduler, autoencoder(16), None, None, None, None, transformer)


def wan_21() -> Any:
    """Wan 2.1 with 1.3 billion weights."""
    scheduler = library.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return library.WanPipeline(None, None, weightless(library.AutoencoderKLWan), scheduler, weightless(wan))


@dataclass(frozen=True)
class Model:
    """A pipeline, the embeddings that stand for its prompt, and sizes.

    Attributes:
        make: Makes the pipeline.
        words: Embeddings.
        native: Size that it was trained at.
        sizes: Larger ones, by their names.
        options: More options of a call.
        is_unet: Whether methods that change a U-Net serve it.
    """

    make: Callable[[], Any]
    words: dict[str, Any]
    native: Size
    sizes: dict[str, Size]
    options: dict[str, Any]
    is_unet: bool = False

    def pipe(self) -> Any:
        """The pipeline without weights."""
        return on_cpu(self.make())


SQUARES = {"1K": Size(1024, 1024), "2K": Size(2048, 2048), "4K": Size(4096, 4096)}
LARGE = {name: size for name, size in SQUARES.items() if name != "1K"}
WIDE = {"720p": Size(720, 1280), "1080p": Size(1088, 1920), "4K": Size(2160, 3840)}
MODELS = {
    "SD 2.1-base": Model(sd_21, embeddings(77, 1024), Size(512, 512), SQUARES, {}, is_unet=True),
    "SDXL-base-1.0": Model(sdxl, embeddings(77, 2048, 1280), SQUARES["1K"], LARGE, {}, is_unet=True),
    "SD 3-medium": Model(sd_3_medium, embeddings(333, 4096, 2048), SQUARES["1K"], LARGE, {}),
    "Flux.1-dev": Model(flux, embeddings(512, 4096, 768, guided=False), SQUARES["1K"], LARGE, {}),
    f"Wan 2.1 1.3B, {4 * FRAMES - 3} frames": Model(
        wan_21, embeddings(512, 4096), Size(480, 832), WIDE, {"num_frames": 4 * FRAMES - 3}
    ),
}
