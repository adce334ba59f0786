"""Whether a stage can do without guidance."""

from __future__ import annotations

from selfcascade.base_models.family import Family


def leaves_guidance_out(family: Family) -> bool:
    """Whether a `guidance_scale` of 1 means one pass of the network a step instead of two.

    Distilled models read the scale as an input, so that 1 is another weight for them, not none. Some pipelines with
    perturbed attention fail with one kind of guidance alone.
    """
    config, pipeline = family.denoiser.config, type(family.pipe)
    embedded = config.get("guidance_embeds") or config.get("time_cond_proj_dim")
    perturbed = hasattr(pipeline, "do_perturbed_attention_guidance")
    own = hasattr(pipeline, "do_classifier_free_guidance") and not perturbed
    return family.guided_by is None and own and not embedded
