"""Tiny image models beside those of `more_images`, each with the configuration of its published model."""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false, reportAttributeAccessIssue=false
# diffusers re-exports lazily, and annotates `tuple[int]` or a class where a longer tuple or None is meant.

from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    DDPMScheduler,
    FluxKontextPipeline,
    Kandinsky3Img2ImgPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    KolorsImg2ImgPipeline,
    KolorsPAGPipeline,
    KolorsPipeline,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    VQModel,
    ZImageControlNetInpaintPipeline,
    ZImageControlNetModel,
    ZImageOmniPipeline,
    ZImageTransformer2DModel,
)

from .dits import LISTED, z_image
from .packed import FLUX, flux, shifting_scheduler
from .parts import NATIVE, NO_TEXT, TEXT_DIM, TEXT_TOKENS, TinyPipeline, embeds, text_inputs, twin_of
from .variants import SHOWN, bases, control_image, opened


def flux_kontext() -> FluxKontextPipeline:
    """FluxKontextPipeline on Flux's networks; without a picture it makes one of the prompt alone."""
    return FluxKontextPipeline(**flux().components)


class Template:
    """What Qwen-Image 2.1's constructor asks of its processor, whose real class needs torchvision."""

    def __init__(self) -> None:
        self.tokenizer = self

    def apply_chat_template(self, *_: object, **__: object) -> list[list[int]]:
        return [[0]]

    def encode(self, _: str) -> list[int]:
        return [0]


def qwen_image_21() -> QwenImage21Pipeline:
    """QwenImage21Pipeline: 16 pixels a latent pixel, pictures of four channels."""
    transformer = QwenImage21Transformer2DModel(
        in_channels=8,
        out_channels=8,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=TEXT_DIM,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.5, -0.7, 0.2, 0.5, -0.1, 0.3, 0.0, 1.0],
        latents_std=[2.8, 1.4, 2.3, 3.1, 1.0, 1.5, 2.0, 0.5],
    )
    return QwenImage21Pipeline(
        transformer=transformer, scheduler=shifting_scheduler(), vae=vae, text_encoder=None, processor=Template()
    )


def kandinsky_3() -> Kandinsky3Pipeline:
    """Kandinsky3Pipeline with an autoencoder of vectors; its U-Net attends to its masked text."""
    unet = Kandinsky3UNet(
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16),
        cross_attention_dim=4,
        encoder_hid_dim=TEXT_DIM,
    )
    movq = VQModel(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=8,
        norm_num_groups=2,
        norm_type="spatial",
    )
    return Kandinsky3Pipeline(unet=unet, movq=movq, scheduler=DDPMScheduler(), **NO_TEXT)


def z_image_omni() -> ZImageOmniPipeline:
    """ZImageOmniPipeline, whose transformer also has places for pictures that it is shown; here it is shown none."""
    config = dict(z_image().transformer.config) | {"siglip_feat_dim": TEXT_DIM}
    transformer = ZImageTransformer2DModel(**{key: value for key, value in config.items() if key[0] != "_"})
    for token in (transformer.x_pad_token, transformer.cap_pad_token, transformer.siglip_pad_token):
        torch.nn.init.normal_(token)
    parts = z_image().components | {"transformer": transformer, "siglip": None, "siglip_processor": None}
    return ZImageOmniPipeline(**parts)


def z_image_inpaint() -> ZImageControlNetInpaintPipeline:
    """ZImageControlNetInpaintPipeline, shown a control, a picture and what of it to make anew."""
    controlnet = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=4 + 1 + 4,
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    return ZImageControlNetInpaintPipeline(**z_image().components, controlnet=opened(controlnet))


def kolors() -> KolorsPipeline:
    """KolorsPipeline: SDXL's U-Net, told the words of another text encoder."""
    made: Any = bases()["stable-diffusion-xl"].make()
    return KolorsPipeline(vae=made.vae, unet=made.unet, scheduler=made.scheduler, **NO_TEXT)


def kolors_pag() -> KolorsPAGPipeline:
    """KolorsPAGPipeline, perturbed in the middle."""
    return KolorsPAGPipeline(**kolors().components, pag_applied_layers="mid")


WIDE = {name: embeds(1, TEXT_TOKENS, 2 * TEXT_DIM) for name in ("prompt_embeds", "negative_prompt_embeds")}
ONES = torch.ones(1, TEXT_TOKENS)
ATTENDED = text_inputs() | {"attention_mask": ONES, "negative_attention_mask": ONES}
FILLED = {"image": control_image(), "mask_image": control_image(), "control_image": control_image()}
QWEN_21 = {"prompt_embeds": embeds(1, TEXT_TOKENS, TEXT_DIM), "prompt_embeds_mask": ONES}

SEGMENTED = {name: [value] for name, value in LISTED.items()}  # text between pictures, of which there are none

OTHER_IMAGES = (
    TinyPipeline(
        "flux-kontext",
        flux_kontext,
        NATIVE,
        FLUX,
        "dit",
        twin_note=f"FluxKontextInpaintPipeline {SHOWN}",
        alone={"max_area": 64 * 64},
    ),
    TinyPipeline("qwen-image-2.1", qwen_image_21, NATIVE, QWEN_21, "dit"),
    TinyPipeline("kandinsky-3", kandinsky_3, (128, 128), ATTENDED, "unet", twin_of(Kandinsky3Img2ImgPipeline)),
    TinyPipeline(
        "kolors",
        kolors,
        NATIVE,
        text_inputs(pooled=True) | WIDE,
        "unet",
        twin_of(KolorsImg2ImgPipeline),
        twin_note="leaves out pooled embeddings that it is given: equal with them",
    ),
    TinyPipeline("kolors-pag", kolors_pag, NATIVE, text_inputs(pooled=True) | WIDE | {"pag_scale": 2.0}, "unet"),
    TinyPipeline("z-image-omni", z_image_omni, NATIVE, SEGMENTED, "dit"),
    TinyPipeline("z-image-inpaint", z_image_inpaint, NATIVE, LISTED | FILLED, "dit"),
)
