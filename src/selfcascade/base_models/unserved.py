"""Pipelines of diffusers that no family supports: why, and what to use instead."""

from __future__ import annotations

OWN_SCHEDULERS = "it contains pipelines with their own schedulers, so no stage can start at a noise level"
SOUND = "it makes sound with the clip, from noise, and a stage above the base has too few steps for that"
NO_FAMILY = "no family describes the layout of its latents"

# Class names to the end of the sentence "... is not supported as a base model: ".
UNSERVED: dict[str, str] = {
    "IFPipeline": "it works on pixels and enlarges by pipelines of its own; use StableDiffusionPipeline",
    "KandinskyCombinedPipeline": f"{OWN_SCHEDULERS}; use Kandinsky5T2IPipeline",
    "KandinskyV22CombinedPipeline": f"{OWN_SCHEDULERS}; use Kandinsky5T2IPipeline",
    "WuerstchenCombinedPipeline": f"{OWN_SCHEDULERS}; use StableDiffusionXLPipeline",
    "StableCascadeCombinedPipeline": f"{OWN_SCHEDULERS}; use StableDiffusionXLPipeline",
    "Ideogram4Pipeline": f"{NO_FAMILY}; use Krea2Pipeline, or register a family for it",
    "GlmImagePipeline": "it draws new tokens for each size before it denoises, so stages would show other pictures; "
    "use CogView4Pipeline",
    "HeliosPipeline": "it makes clips part by part, each from the one before; use WanPipeline",
    "HeliosPyramidPipeline": "it makes clips part by part, through its own sizes; use WanPipeline",
    "AllegroPipeline": "its autoencoder decodes only sizes on its grid of tiles, and leaves the rest of others black; "
    "use WanPipeline",
    "AnyFlowFARPipeline": "it makes clips part by part, each from the one before; use AnyFlowPipeline",
    "Cosmos2_5_PredictBasePipeline": f"{NO_FAMILY}; use WanPipeline",
    "Cosmos3OmniPipeline": f"{NO_FAMILY}; use WanPipeline",
    "CosmosTextToWorldPipeline": "its scheduler does not count training timesteps; use WanPipeline",
    "EasyAnimateControlPipeline": "in diffusers 0.42 its own call fails, as its encode_prompt takes no "
    "text_encoder_index; use EasyAnimatePipeline",
    "Kandinsky6TI2VAPipeline": f"{SOUND}; use Kandinsky5T2VPipeline",
    "LTX2ConditionPipeline": f"{SOUND}; use LTXPipeline",
    "LTX2DFRPipeline": f"{SOUND}; use LTXPipeline",
    "LTX2DFRTemporalRefinePipeline": f"{SOUND}; use LTXPipeline",
    "LTX2HDRPipeline": f"{SOUND}; use LTXPipeline",
    "LTX2InContextPipeline": f"{SOUND}; use LTXPipeline",
    "LTXConditionPipeline": "it adds noise to the latents that it is given; use LTXPipeline",
    "SkyReelsV2DiffusionForcingPipeline": "each frame has its own scheduler and noise level; use SkyReelsV2Pipeline",
    "TextToVideoZeroPipeline": "it makes the later frames by moving the first one's latents; use AnimateDiffPipeline",
    "TextToVideoZeroSDXLPipeline": "it makes the later frames by moving the first one's latents; "
    "use AnimateDiffSDXLPipeline",
    "SanaSprintPipeline": "its scheduler counts angles, not training timesteps; use SanaPipeline",
    "LTX2Pipeline": f"{SOUND}; use LTXPipeline",
}
