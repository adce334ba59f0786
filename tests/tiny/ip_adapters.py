"""An IP-Adapter for every tiny pipeline that takes one: random weights in the published files' layouts."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

import inspect
from dataclasses import replace
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterTimeImageProjection
from PIL import Image
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from .everything import EACH, class_name
from .parts import TinyPipeline, embeds, quiet

IMAGE_DIM = 16
IMAGE_TOKENS = 4
VISION: dict[str, Any] = dict(
    hidden_size=IMAGE_DIM,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
)
SIDES = {"height": 32, "width": 32}


def with_ip_adapter(entry: TinyPipeline) -> TinyPipeline:
    """The entry with an IP-Adapter of scale 1 loaded, and a picture for it among its inputs; clips have two frames."""

    def make() -> DiffusionPipeline:
        pipe = quiet(entry.make())
        add_ip_adapter(pipe)
        return pipe

    make.__annotations__["return"] = getattr(diffusers, class_name(entry))
    frames = {"num_frames": 2} if entry.video else {}
    inputs = {**entry.inputs, **frames, "ip_adapter_image": shown_image()}
    return replace(entry, name=f"{entry.name}-ip-adapter", make=make, inputs=inputs)


def shown_image() -> Image.Image:
    """A picture for the adapter to follow: a disc."""
    return Image.radial_gradient("L").convert("RGB")


def takes_picture(kind: str) -> bool:
    """Whether the call of a class of diffusers takes a picture for an IP-Adapter."""
    return "ip_adapter_image" in inspect.signature(getattr(diffusers, kind).__call__).parameters


def add_ip_adapter(pipe: Any) -> None:
    """Loads an IP-Adapter of scale 1 and its image encoder into `pipe`."""
    of_sd3, of_unet = type(pipe).__name__.startswith("StableDiffusion3"), hasattr(pipe, "unet")
    if of_sd3:
        encoder: Any = SiglipVisionModel(SiglipVisionConfig(**VISION))
        processor: Any = SiglipImageProcessor(size=SIDES)
    else:
        encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=IMAGE_DIM))
        processor = CLIPImageProcessor(size=SIDES, crop_size=SIDES)
    pipe.register_modules(image_encoder=encoder.eval(), feature_extractor=processor)
    if of_unet:
        pipe.load_ip_adapter(unet_state(pipe.unet), subfolder="", weight_name="")
    elif of_sd3:
        pipe.load_ip_adapter(sd3_state(pipe.transformer))
    else:
        none = {"image_encoder_pretrained_model_name_or_path": None}
        pipe.load_ip_adapter(flux_state(pipe.transformer), weight_name="", **none)
    pipe.set_ip_adapter_scale(1.0)


def given_embeds(pipe: Any, guided: bool) -> dict[str, Any]:
    """What the adapter's encoder makes of `shown_image`, in the place of the picture; the negative one comes first."""
    image, kind = shown_image(), type(pipe).__name__
    if kind.startswith("StableDiffusion3"):
        return {"ip_adapter_image_embeds": pipe.prepare_ip_adapter_image_embeds(image, None, pipe.device, 1, guided)}
    if hasattr(pipe, "transformer"):
        return {"ip_adapter_image_embeds": pipe.prepare_ip_adapter_image_embeds(image, None, pipe.device, 1)}
    return {"ip_adapter_image_embeds": pipe.prepare_ip_adapter_image_embeds(image, None, pipe.device, 1, guided)}


def unet_state(unet: Any) -> dict[str, dict[str, Tensor]]:
    """For a U-Net's cross-attentions, numbered 1, 3, 5 and so on; attention in time has none."""
    width = unet.config.cross_attention_dim
    names = [name for name in unet.attn_processors if "attn2" in name and "motion_modules" not in name]
    projections: dict[str, Tensor] = {}
    for index, name in zip(range(1, 2 * len(names), 2), names, strict=True):
        query: nn.Linear = unet.get_submodule(name.removesuffix(".processor")).to_q
        for seed, part in enumerate(("to_k_ip", "to_v_ip")):
            projections[f"{index}.{part}.weight"] = embeds(query.out_features, width, seed=2 * index + seed)
    return {"image_proj": projection(width), "ip_adapter": projections}


def flux_state(transformer: Any) -> dict[str, dict[str, Tensor]]:
    """For the double blocks of Flux and Chroma."""
    width, inner = transformer.config.joint_attention_dim, transformer.inner_dim
    projections: dict[str, Tensor] = {}
    for index in range(transformer.config.num_layers):
        for seed, part in enumerate(("to_k_ip", "to_v_ip")):
            projections[f"{index}.{part}.weight"] = embeds(inner, width, seed=2 * index + seed)
            projections[f"{index}.{part}.bias"] = torch.zeros(inner)
    return {"image_proj": projection(width), "ip_adapter": projections}


def projection(width: int) -> dict[str, Tensor]:
    """From an image embedding to four tokens of this width."""
    return {
        "proj.weight": embeds(IMAGE_TOKENS * width, IMAGE_DIM),
        "proj.bias": torch.zeros(IMAGE_TOKENS * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def sd3_state(transformer: Any) -> dict[str, dict[str, Tensor]]:
    """For every attention of Stable Diffusion 3, with a resampler that is told the timestep."""
    head = transformer.config.attention_head_dim
    inner = head * transformer.config.num_attention_heads
    resampler = IPAdapterTimeImageProjection(
        embed_dim=IMAGE_DIM, output_dim=inner, hidden_dim=16, heads=1, num_queries=IMAGE_TOKENS, timestep_in_dim=8
    )
    projections: dict[str, Tensor] = {}
    for index in range(len(transformer.attn_processors)):
        own = SD3IPAdapterJointAttnProcessor2_0(inner, inner, head, timesteps_emb_dim=16)
        projections |= {f"{index}.{name}": value for name, value in own.state_dict().items()}
    return {"image_proj": resampler.state_dict(), "ip_adapter": projections}


# The smallest entry of each class that takes a picture, with an adapter.
IP_ADAPTERS: tuple[TinyPipeline, ...] = tuple(with_ip_adapter(one) for one in EACH if takes_picture(class_name(one)))
