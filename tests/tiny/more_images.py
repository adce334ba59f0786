"""Tiny image transformers beside those of `dits` and `packed`, each with the configuration of its published model."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    ControlNetUnionModel,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2IPipeline,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    PRXPipeline,
    PRXTransformer2DModel,
    StableDiffusionXLControlNetUnionImg2ImgPipeline,
    StableDiffusionXLControlNetUnionPipeline,
    ZImageControlNetModel,
    ZImageControlNetPipeline,
)

from .dits import LISTED, MASKED, z_image
from .more_videos import KANDINSKY, NO_SECOND_TEXT, kandinsky_transformer
from .packed import JOINT, qwen_image, shifting_scheduler
from .parts import (
    NATIVE,
    NO_TEXT,
    TEXT_DIM,
    TEXT_TOKENS,
    TinyPipeline,
    autoencoder,
    embeds,
    flow_autoencoder,
    text_inputs,
    twin_of,
)
from .unets import UNETS
from .variants import bases, control_image, opened, own_config


def prx() -> PRXPipeline:
    """PRXPipeline with a flow autoencoder; it states its size in pixels."""
    transformer = PRXTransformer2DModel(
        in_channels=4,
        context_in_dim=TEXT_DIM,
        hidden_size=16,
        num_heads=2,
        depth=1,
        axes_dim=[4, 4],
    )
    return PRXPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_autoencoder(),
        default_sample_size=64,
        **NO_TEXT,
    )


def ovis_image() -> OvisImagePipeline:
    """OvisImagePipeline, packed like Flux, with classifier-free guidance."""
    transformer = OvisImageTransformer2DModel(
        **JOINT,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        axes_dims_rope=(4, 4, 8),
    )
    return OvisImagePipeline(transformer=transformer, scheduler=shifting_scheduler(), vae=flow_autoencoder(), **NO_TEXT)


def cogview3_plus() -> CogView3PlusPipeline:
    """CogView3PlusPipeline; positions for twice the native side, as the published model has them."""
    transformer = CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=16,
        condition_dim=8,
        pos_embed_max_size=8,
        sample_size=8,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    return CogView3PlusPipeline(transformer=transformer, scheduler=scheduler, vae=autoencoder(), **NO_TEXT)


def lumina() -> LuminaPipeline:
    """LuminaPipeline, with the learned variance channels of the real one."""
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=TEXT_DIM,
    )
    return LuminaPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=autoencoder(), **NO_TEXT
    )


def krea2() -> Krea2Pipeline:
    """Krea2Pipeline: the text of several layers, Qwen-Image's autoencoder."""
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=TEXT_DIM,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return Krea2Pipeline(
        transformer=transformer,
        scheduler=shifting_scheduler(),
        vae=qwen_image().vae,
        text_encoder_select_layers=(0, 1),
        **NO_TEXT,
    )


def nucleus_moe() -> NucleusMoEImagePipeline:
    """NucleusMoEImagePipeline: a mixture of experts, Qwen-Image's autoencoder."""
    transformer = NucleusMoEImageTransformer2DModel(
        **JOINT,
        out_channels=4,
        num_layers=2,
        num_key_value_heads=2,
        axes_dims_rope=(4, 6, 6),
        dense_moe_strategy="leave_first_block_dense",
        num_experts=2,
        moe_intermediate_dim=16,
        capacity_factors=[1.0, 1.0],
    )
    for name, weights in transformer.named_parameters():  # the model leaves its experts' uninitialised
        if "experts" in name:
            torch.nn.init.normal_(weights, std=0.1)
    return NucleusMoEImagePipeline(
        transformer=transformer, scheduler=shifting_scheduler(), vae=qwen_image().vae, text_encoder=None, processor=None
    )


def kandinsky_5_image() -> Kandinsky5T2IPipeline:
    """Kandinsky5T2IPipeline; the one size of its list is its native one.

    Positions for twice the native side, as the published model has them.
    """
    pipe = Kandinsky5T2IPipeline(
        transformer=kandinsky_transformer(8),
        vae=autoencoder(scaling_factor=0.3611),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **NO_SECOND_TEXT,
    )
    pipe.resolutions = [NATIVE]
    return pipe


def z_image_controlnet() -> ZImageControlNetPipeline:
    """ZImageControlNetPipeline with the control of one block."""
    made = z_image()
    controlnet = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=4,
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    return ZImageControlNetPipeline(**made.components, controlnet=opened(controlnet))


def sdxl_controlnet_union() -> StableDiffusionXLControlNetUnionPipeline:
    """StableDiffusionXLControlNetUnionPipeline with a union of its own U-Net."""
    made: Any = bases()["stable-diffusion-xl"].make()
    config = own_config(ControlNetUnionModel, made.unet)
    width = made.unet.config.block_out_channels[0]
    controlnet = ControlNetUnionModel(
        **config,
        conditioning_embedding_out_channels=(4,) * 4,
        num_trans_channel=width,
        num_trans_head=2,
        num_proj_channel=width,
    )
    return StableDiffusionXLControlNetUnionPipeline(
        **made.components, controlnet=opened(controlnet), add_watermarker=False
    )


KREA_MASK = torch.ones(1, TEXT_TOKENS, dtype=torch.bool)
KREA = {
    "prompt_embeds": embeds(1, TEXT_TOKENS, 2, TEXT_DIM),
    "prompt_embeds_mask": KREA_MASK,
    "negative_prompt_embeds": embeds(1, TEXT_TOKENS, 2, TEXT_DIM, seed=1),
    "negative_prompt_embeds_mask": KREA_MASK,
}
SDXL = next(entry for entry in UNETS if entry.name == "stable-diffusion-xl").inputs
UNION = SDXL | {"control_image": [control_image()], "control_mode": [0]}

MORE_IMAGES = (
    TinyPipeline("prx", prx, NATIVE, MASKED | {"use_resolution_binning": False}, "dit"),
    TinyPipeline("ovis-image", ovis_image, NATIVE, text_inputs() | {"negative_prompt": None}, "dit"),
    TinyPipeline("cogview3-plus", cogview3_plus, NATIVE, text_inputs(), "dit"),
    TinyPipeline("lumina", lumina, NATIVE, MASKED, "dit"),
    TinyPipeline("krea2", krea2, NATIVE, KREA, "dit"),
    TinyPipeline("nucleus-moe", nucleus_moe, NATIVE, text_inputs("prompt_embeds_mask"), "dit"),
    TinyPipeline("kandinsky-5-image", kandinsky_5_image, NATIVE, KANDINSKY, "dit"),
    TinyPipeline("z-image-controlnet", z_image_controlnet, NATIVE, LISTED | {"control_image": control_image()}, "dit"),
    TinyPipeline(
        "stable-diffusion-xl-controlnet-union",
        sdxl_controlnet_union,
        NATIVE,
        UNION,
        "unet",
        twin_of(StableDiffusionXLControlNetUnionImg2ImgPipeline, add_watermarker=False),
    ),
)
