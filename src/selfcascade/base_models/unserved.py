"""Pipelines of diffusers that no family serves: why, and what to use."""

from __future__ import annotations

OWN_SCHEDULERS = "it runs pipelines inside it that hold schedulers of their own, so no stage can start at a noise level"
NO_FAMILY = "no family says how its latents lie"

# Class names to the end of the sentence "... is not supported as a base model: ".
UNSERVED: dict[str, str] = {
    "IFPipeline": "it works on pixels and enlarges by pipelines of its own; use StableDiffusionPipeline",
    "KandinskyCombinedPipeline": f"{OWN_SCHEDULERS}; use Kandinsky5T2IPipeline",
    "KandinskyV22CombinedPipeline": f"{OWN_SCHEDULERS}; use Kandinsky5T2IPipeline",
    "Kandinsky3Pipeline": "its autoencoder, movq, is no vae and states no size of its latents; "
    "use Kandinsky5T2IPipeline",
    "WuerstchenCombinedPipeline": f"{OWN_SCHEDULERS}; use StableDiffusionXLPipeline",
    "StableCascadeCombinedPipeline": f"{OWN_SCHEDULERS}; use StableDiffusionXLPipeline",
    "FluxKontextPipeline": "it brings every size that it is asked for to a megapixel; use FluxPipeline",
    "Ideogram4Pipeline": f"{NO_FAMILY}; use Krea2Pipeline, or register_family one",
    "GlmImagePipeline": "it draws tokens for each size anew before it denoises, so stages would show other pictures; "
    "use CogView4Pipeline",
    "HeliosPipeline": "it makes clips part by part, each from the one before; use WanPipeline",
    "HeliosPyramidPipeline": "it makes clips part by part, through sizes of its own; use WanPipeline",
    "QwenImage21Pipeline": "its VAE codes pictures of four channels, and pivots have three; use QwenImagePipeline",
    "ZImageControlNetInpaintPipeline": "it fills a part of a picture; use ZImageControlNetPipeline",
    "ZImageOmniPipeline": f"{NO_FAMILY}; use ZImagePipeline",
    "AllegroPipeline": f"{NO_FAMILY}; use WanPipeline",
    "LTX2Pipeline": "it makes sound along with the clip, from noise, and a stage above the base has too few steps for "
    "that; use LTXPipeline",
}
