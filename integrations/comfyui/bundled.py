"""The small model that ships with the library, as ComfyUI's own MODEL and VAE: workflows run without a download.

Its architecture is Stable Diffusion's with other widths, 16 groups in its normalisations and an autoencoder without
attention, for which ComfyUI has no detection; so its parts are put together here.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from selfcascade.models import load_bundled

GROUPS = 16


class BundledModel:
    """The bundled model with prompts, to try the nodes; your own checkpoints come by *Load Checkpoint*."""

    CATEGORY, FUNCTION = "loaders", "load"
    DESCRIPTION = "The library's small model of drawn scenes, 64 x 64 pixels, to try the nodes without a download."
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING", "VAE", "LATENT")
    RETURN_NAMES = ("MODEL", "positive", "negative", "VAE", "empty 64 x 64")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets."""
        prompt = {"default": "a large red house on the left at night", "multiline": True}
        batch = {"default": 1, "min": 1, "max": 64}
        return {"required": {"prompt": ("STRING", prompt), "batch_size": ("INT", batch)}}

    def load(self, prompt: str, batch_size: int) -> tuple[Any, Any, Any, Any, dict[str, Tensor]]:
        """Its parts, and latents of its own size."""
        pipe = load_bundled("cpu")
        with torch.no_grad():
            positive, negative = pipe.encode_prompt(prompt, "cpu", 1, True, "")
        empty = torch.zeros(batch_size, pipe.unet.config.in_channels, 16, 16)
        return model_of(pipe), [[positive, {}]], [[negative, {}]], vae_of(pipe), {"samples": empty}


def model_of(pipe: Any) -> Any:
    """A `ModelPatcher` with the pipeline's U-Net, whose names are mapped by ComfyUI's own table."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models_base
    import comfy.utils

    class Operations(comfy.ops.disable_weight_init):
        class GroupNorm(comfy.ops.disable_weight_init.GroupNorm):
            def __init__(self, *given: Any, **named: Any) -> None:
                names = ("num_groups", "num_channels")
                super().__init__(**{**dict(zip(names, given, strict=False)), **named, "num_groups": GROUPS})

    class Latents(comfy.latent_formats.LatentFormat):
        scale_factor, latent_channels = pipe.vae.config.scaling_factor, pipe.unet.config.in_channels

    class Bundled(comfy.supported_models_base.BASE):
        unet_extra_config = {"num_heads": -1, "num_head_channels": 32}  # noqa: RUF012 - as BASE has it
        latent_format, custom_operations = Latents, Operations

    config = Bundled(unet_config(pipe.unet))
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.V_PREDICTION, device="cpu")
    names, weights = comfy.utils.unet_to_diffusers(config.unet_config), pipe.unet.state_dict()
    mapped = {new: weights.pop(old) for old, new in names.items() if old in weights}
    missing, left = model.diffusion_model.load_state_dict(mapped, strict=False)
    if missing or left or weights:
        raise ValueError(f"the bundled U-Net does not fit this ComfyUI: {[*missing, *left, *weights][:3]}")
    kept = pipe.scheduler.alphas_cumprod.double()
    model.model_sampling.set_sigmas(((1 - kept) / kept).sqrt())
    return comfy.model_patcher.ModelPatcher(
        model.eval(), management.get_torch_device(), management.unet_offload_device()
    )


def unet_config(unet: Any) -> dict[str, Any]:
    """The configuration of a diffusers U-Net with the names of latent-diffusion."""
    own, layers = unet.config, unet.config.layers_per_block
    widths = own.block_out_channels
    depths = [int(kind.startswith("CrossAttn")) for kind in own.down_block_types]
    return {
        **{"image_size": 32, "in_channels": own.in_channels, "out_channels": own.out_channels},
        **{"model_channels": widths[0], "channel_mult": [_Times(width / widths[0]) for width in widths]},
        **{"num_res_blocks": [layers] * len(widths), "context_dim": own.cross_attention_dim, "legacy": False},
        "transformer_depth": [depth for depth in depths for _ in range(layers)],
        "transformer_depth_output": [depth for depth in depths for _ in range(layers + 1)],
        **{"transformer_depth_middle": 1, "use_spatial_transformer": True, "use_linear_in_transformer": True},
        **{"dtype": torch.float32, "adm_in_channels": None, "use_temporal_attention": False},
    }


class _Times(float):
    """A multiple of the first width, whose product with it is a whole number."""

    def __mul__(self, width: float) -> int:
        return round(float(self) * width)

    __rmul__ = __mul__


class Coder(nn.Module):
    """A diffusers autoencoder with the two methods that ComfyUI's VAE calls."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def decode(self, z: Tensor, **options: Any) -> Tensor:
        """Latents to pixels, about [-1, 1]."""
        return self.autoencoder.decode(z, return_dict=False)[0]

    def encode(self, pixels: Tensor) -> Tensor:
        """The inverse, the mode of the posterior."""
        return self.autoencoder.encode(pixels).latent_dist.mode()


def vae_of(pipe: Any) -> Any:
    """A ComfyUI VAE with the pipeline's autoencoder in it."""
    import comfy.ldm.models.autoencoder
    import comfy.model_patcher
    import comfy.sd

    sides = {"double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32}
    small = {**sides, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    shell = {"ddconfig": small, "embed_dim": 4}  # put away again: VAE must be given some weights to be made
    weights = comfy.ldm.models.autoencoder.AutoencoderKL(**shell).state_dict()
    vae = comfy.sd.VAE(sd=weights, config={"params": shell}, dtype=torch.float32)
    vae.first_stage_model = Coder(pipe.vae).eval()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=vae.patcher.offload_device
    )
    vae.latent_channels = pipe.vae.config.latent_channels
    vae.downscale_ratio = vae.upscale_ratio = pipe.vae_scale_factor
    logging.getLogger(__name__).debug("the bundled autoencoder is in %s", type(vae).__name__)
    return vae
