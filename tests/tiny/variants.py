"""Variants of the registry's pipelines: other classes on the same networks, which the same families serve."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import torch
from diffusers import (
    CogView4Transformer2DModel,
    ControlNetModel,
    DiffusionPipeline,
    FluxControlNetModel,
    FluxTransformer2DModel,
    HunyuanDiT2DControlNetModel,
    LCMScheduler,
    QwenImageControlNetModel,
    SD3ControlNetModel,
    T2IAdapter,
)
from PIL import Image
from torch import nn

from .dits import DITS
from .packed import PACKED
from .parts import NATIVE, SMALL, TinyPipeline, quiet, twin_of
from .sized import SIZED
from .unets import UNETS, animatediff_unet, unet_2d
from .videos import VIDEOS

Networks = Callable[[DiffusionPipeline], dict[str, Any]]


def control_image() -> Image.Image:
    """A picture that pipelines resize to each stage's size: a ramp."""
    return Image.linear_gradient("L").convert("RGB")


def opened(network: nn.Module) -> nn.Module:
    """A ControlNet in eval mode whose zero-initialised layers are random, so that it has an effect."""
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def on_two_levels(base: TinyPipeline) -> TinyPipeline:
    """Stable Diffusion or SDXL of the registry with fewer levels: what is at stake is the pipeline."""

    def make() -> DiffusionPipeline:
        made: Any = base.make()
        own = own_config(type(made.unet), made.unet)
        down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
        fewer = {"block_out_channels": (8, 8), "down_block_types": down, "up_block_types": up, "layers_per_block": 1}
        made.unet = unet_2d(**own | fewer | {"transformer_layers_per_block": 1, "sample_size": 8})
        return made

    make.__annotations__ = dict(base.make.__annotations__)  # it makes the same class
    return replace(base, make=make, native=NATIVE)


def bases() -> dict[str, TinyPipeline]:
    """The registry's pipelines by name."""
    small = ("stable-diffusion", "stable-diffusion-xl")
    entries = (*UNETS, *DITS, *SIZED, *PACKED, *VIDEOS)
    return {entry.name: on_two_levels(entry) if entry.name in small else entry for entry in entries}


def variant(
    base: str,
    pipeline_class: str,
    inputs: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    networks: Networks | None = None,
    twin: str | None = None,
    note: str = "",
    **config: Any,
) -> TinyPipeline:
    """`pipeline_class` on the networks of a pipeline of the registry.

    Args:
        base: Name of that pipeline.
        pipeline_class: Name in diffusers.
        inputs: Of a call, beside those of the base.
        drop: Inputs of the base that this class does not take.
        networks: Makes components of its own from the base's pipeline.
        twin, note: Name in diffusers of its twin, and the entry's `twin_note`.
        config: Further arguments of the class.
    """
    family = bases()[base]
    native = NATIVE if base == "sana" else SMALL  # Sana's sizes are multiples of 32

    def make() -> DiffusionPipeline:
        kind: Any = getattr(diffusers, pipeline_class)
        made = family.make()
        parts = {**made.components, **config, **(networks(made) if networks is not None else {})}
        accepted = inspect.signature(kind.__init__).parameters
        return quiet(kind(**{name: part for name, part in parts.items() if name in accepted}))

    own = {name: value for name, value in family.inputs.items() if name not in drop} | (inputs or {})
    official = None
    if twin is not None:
        kind = getattr(diffusers, twin)
        accepted = inspect.signature(kind.__init__).parameters.keys() - {"scheduler"}
        official = twin_of(kind, **{name: value for name, value in (NO_CHECKER | config).items() if name in accepted})
    return TinyPipeline(pipeline_class, make, native, own, family.kind, official, family.video, note)


def controlnet_of_unet(pipe: Any) -> dict[str, Any]:
    """A ControlNet of the pipeline's own U-Net; its condition is eight times as large as the latents."""
    return {"controlnet": opened(ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4,) * 4))}


def t2i_adapter(pipe: Any) -> dict[str, Any]:
    """A T2I-adapter beside a U-Net whose blocks lie as in the published ones of its pipeline."""
    xl = hasattr(pipe, "text_encoder_2")
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D") if xl else ("CrossAttnDownBlock2D", "DownBlock2D")
    own = own_config(type(pipe.unet), pipe.unet)
    ups = tuple(kind.replace("Down", "Up") for kind in reversed(kinds))
    unet = unet_2d(**own | {"down_block_types": kinds, "up_block_types": ups})
    settings = {"channels": [8, 8], "num_res_blocks": 1, "downscale_factor": 16 if xl else 8}
    return {"unet": unet, "adapter": T2IAdapter(**settings, adapter_type="full_adapter_xl" if xl else "full_adapter")}


def controlnet_of_motion(pipe: Any) -> dict[str, Any]:
    """A ControlNet of the two-dimensional U-Net that AnimateDiff's motion adapter was put into."""
    return {
        "controlnet": opened(
            ControlNetModel.from_unet(animatediff_unet(), conditioning_embedding_out_channels=(4,) * 4)
        )
    }


def controlnet_of_flux(pipe: Any) -> dict[str, Any]:
    return {"controlnet": opened(FluxControlNetModel(**own_config(FluxControlNetModel, pipe.transformer)))}


def controlnet_of_sd3(pipe: Any) -> dict[str, Any]:
    config = own_config(SD3ControlNetModel, pipe.transformer)
    return {"controlnet": opened(SD3ControlNetModel(**config | {"num_layers": 1}))}


def controlnet_of_hunyuan(pipe: Any) -> dict[str, Any]:
    """Its controls reach the layers after the middle one, of which two layers have none."""
    kind = type(pipe.transformer)
    transformer = kind(**own_config(kind, pipe.transformer) | {"num_layers": 4})
    config = own_config(HunyuanDiT2DControlNetModel, transformer) | {"transformer_num_layers": 4}
    return {"transformer": transformer, "controlnet": opened(HunyuanDiT2DControlNetModel(**config))}


def controlnet_of_qwen(pipe: Any) -> dict[str, Any]:
    config = own_config(QwenImageControlNetModel, pipe.transformer)
    return {"controlnet": opened(QwenImageControlNetModel(**config | {"num_layers": 1}))}


def own_config(kind: Any, network: Any) -> dict[str, Any]:
    """What a class's constructor takes of a network's configuration."""
    accepted = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in network.config.items() if name in accepted}


def guided_by_embedding(pipe: Any) -> dict[str, Any]:
    """A U-Net that is told the guidance weight, as distilled consistency models are."""
    return {"unet": unet_2d(**own_config(type(pipe.unet), pipe.unet) | {"time_cond_proj_dim": 8})}


def wider(kind: Any) -> Networks:
    """The base's transformer with room for a condition's latents beside its own, as the Control models have it."""

    def make(pipe: Any) -> dict[str, Any]:
        own = pipe.transformer.config.in_channels
        config = own_config(kind, pipe.transformer) | {"in_channels": 2 * own, "out_channels": own}
        return {"transformer": kind(**config)}

    return make


NO_CHECKER = {"requires_safety_checker": False, "add_watermarker": False}
CONTROL_FIRST = "draws for its control before its noise: equal with those draws in a stage's order"
SHOWN = "shows the network the picture beside the latents, under a full mask too, so it cannot equal"
LCM = "spaces its timesteps below the strength: equal when it is given the whole schedule's"
PAG = {"pag_scale": 2.0}
IMAGE, CONTROL = {"image": control_image()}, {"control_image": control_image()}

VARIANTS = {
    entry.name: entry
    for entry in (
        variant(
            "stable-diffusion",
            "LatentConsistencyModelPipeline",
            drop=("negative_prompt",),
            networks=guided_by_embedding,
            twin="LatentConsistencyModelImg2ImgPipeline",
            note=LCM,
            scheduler=LCMScheduler(),
        ),
        variant(
            "stable-diffusion",
            "StableDiffusionPAGPipeline",
            PAG,
            twin="StableDiffusionPAGImg2ImgPipeline",
            pag_applied_layers="mid",
        ),
        variant(
            "stable-diffusion",
            "StableDiffusionControlNetPAGPipeline",
            PAG | IMAGE,
            networks=controlnet_of_unet,
            twin="StableDiffusionControlNetPAGInpaintPipeline",
            note="inpaints, here under a mask of the whole picture",
            pag_applied_layers="mid",
        ),
        variant(
            "stable-diffusion",
            "StableDiffusionControlNetPipeline",
            IMAGE,
            networks=controlnet_of_unet,
            twin="StableDiffusionControlNetImg2ImgPipeline",
        ),
        variant("stable-diffusion", "StableDiffusionAdapterPipeline", IMAGE, networks=t2i_adapter),
        variant("stable-diffusion-xl", "StableDiffusionXLAdapterPipeline", IMAGE, networks=t2i_adapter),
        variant(
            "stable-diffusion-xl",
            "StableDiffusionXLPAGPipeline",
            PAG,
            twin="StableDiffusionXLPAGImg2ImgPipeline",
            pag_applied_layers="mid",
        ),
        variant(
            "stable-diffusion-xl",
            "StableDiffusionXLControlNetPipeline",
            IMAGE,
            networks=controlnet_of_unet,
            twin="StableDiffusionXLControlNetImg2ImgPipeline",
        ),
        variant(
            "stable-diffusion-xl",
            "StableDiffusionXLControlNetPAGPipeline",
            PAG | IMAGE,
            networks=controlnet_of_unet,
            twin="StableDiffusionXLControlNetPAGImg2ImgPipeline",
            pag_applied_layers="mid",
        ),
        variant(
            "stable-diffusion-3",
            "StableDiffusion3PAGPipeline",
            PAG,
            twin="StableDiffusion3PAGImg2ImgPipeline",
            pag_applied_layers="blocks.0",
        ),
        variant("pixart-sigma", "PixArtSigmaPAGPipeline", PAG, pag_applied_layers="blocks.0"),
        variant("sana", "SanaPAGPipeline", PAG, pag_applied_layers="blocks.0"),
        variant("hunyuan-dit", "HunyuanDiTPAGPipeline", PAG, pag_applied_layers="blocks.0"),
        variant("hunyuan-dit", "HunyuanDiTControlNetPipeline", CONTROL, networks=controlnet_of_hunyuan),
        variant("animatediff", "AnimateDiffPAGPipeline", PAG | {"num_frames": 2}, pag_applied_layers="mid"),
        variant(
            "animatediff",
            "AnimateDiffControlNetPipeline",
            {"num_frames": 2, "conditioning_frames": [control_image()] * 2},
            networks=controlnet_of_motion,
            twin="AnimateDiffVideoToVideoControlNetPipeline",
        ),
        variant("pixart-sigma", "PixArtAlphaPipeline"),
        variant(
            "flux",
            "FluxControlNetPipeline",
            CONTROL,
            networks=controlnet_of_flux,
            twin="FluxControlNetImg2ImgPipeline",
            note=CONTROL_FIRST,
        ),
        variant("stable-diffusion-3", "StableDiffusion3ControlNetPipeline", CONTROL, networks=controlnet_of_sd3),
        variant(
            "flux",
            "FluxControlPipeline",
            CONTROL,
            networks=wider(FluxTransformer2DModel),
            twin="FluxControlImg2ImgPipeline",
            note=CONTROL_FIRST,
        ),
        variant("cogview4", "CogView4ControlPipeline", CONTROL, networks=wider(CogView4Transformer2DModel)),
        variant("qwen-image", "QwenImageControlNetPipeline", CONTROL, networks=controlnet_of_qwen),
        variant("flux2", "Flux2KleinPipeline", note=f"Flux2KleinInpaintPipeline {SHOWN}", is_distilled=True),
        variant("wan", "SkyReelsV2Pipeline"),
    )
}
