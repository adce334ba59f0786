"""The nodes: *Self-Cascade Sampler*, *Self-Cascade Upscale*, *Apply Feature Upsamplers*, *Self-Cascade Plan*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.sample
from torch import Tensor

from selfcascade.base_models.resizing import fitted, lanczos
from selfcascade.cascade import Size, Stage
from selfcascade.options import Options
from selfcascade.options.presets import Preset

from . import coder, upsampler_files
from .base_model import ComfySample, Setting, run, upscaler_of
from .bundled import BundledModel
from .cost import costs_told
from .local_attention import why_not_local
from .noise import Noises
from .planning import (
    asked,
    chosen,
    described,
    native_side,
    stages_above_picture,
    stages_from_latents,
    told,
)
from .schedules import ComfySchedules
from .skips import ATTACHED, Attached, check_model, with_skips
from .widgets import SEED, UPSCALE_MODEL, first_widgets, more_widgets, tip

CATEGORY = "sampling/self-cascade"
Latents = dict[str, Any]


class Asked:
    """The inputs of a node, checked before anything runs.

    Args:
        model, vae: Inputs of the node.
        values: Values of its widgets.
        conditioning: Its conditionings, one list.

    Raises:
        ValueError: The model, the VAE or a value cannot be used; the sentence names it.
    """

    def __init__(self, model: Any, vae: Any, values: dict[str, Any], conditioning: Sequence[Any] = ()) -> None:
        self.model, self.vae, self.attached = model, vae, model.get_attachment(ATTACHED)
        self.factor, self.options = coder.factor(vae), asked(values)
        self.schedules = ComfySchedules(model, values["sampler_name"], values["scheduler"])
        self.upscaler = told(lambda: upscaler_of(values.get("upscale_model")))
        self.preset: Preset = told(lambda: chosen(self.options, self.attached, self.schedules))
        patch = getattr(model.model.diffusion_model, "patch_size", 1)
        self.multiple = max(8, self.factor * (patch if isinstance(patch, int) else 1))
        reason = why_not_local(model, conditioning) if self.preset.attention == "local" else None
        if reason is not None and self.options.attention is not None:
            raise ValueError(reason)
        if reason is not None:  # a preset's local attention is for models that support it
            self.preset = replace(self.preset, attention="full")

    def stages(self, latents: Tensor, finished: bool) -> tuple[Stage, ...]:
        """The stages from these latents on."""
        size = self.size(latents)
        stages = told(
            lambda: stages_from_latents(size, self.multiple, finished, self.schedules, self.preset, self.options)
        )
        if self.upscaler is not None and stages[-1].pivot_step is None:
            raise ValueError(f"upscale_model is for stages above the base, and {stages[-1].size} has none")
        return stages

    def size(self, latents: Tensor) -> Size:
        """Size of the latents' pictures."""
        return Size(latents.shape[-2] * self.factor, latents.shape[-1] * self.factor)

    def told(self, stages: tuple[Stage, ...]) -> str:
        """The stages in words."""
        counts = [len(self.schedules.sigmas(stage.num_inference_steps, stage.pivot_step)) - 1 for stage in stages]
        return described(stages, self.preset, counts)


def latents_of(model: Any, latent_image: Latents) -> Tensor:
    """The latents of a LATENT, as many channels as the model has where they are empty.

    Raises:
        ValueError: They are of clips or sounds, or have a mask.
    """
    if "noise_mask" in latent_image:
        raise ValueError("latent_image has a noise mask, which a cascade does not take; remove it, and inpaint after")
    latents = comfy.sample.fix_empty_latent_channels(model, latent_image["samples"])
    if latents.ndim != 4:
        raise ValueError(f"latent_image must hold pictures, (batch, channels, height, width), not {[*latents.shape]}")
    return latents


class SelfCascadeSampler:
    """KSampler and what comes after it: a base sample at the latents' size, then larger stages from it."""

    CATEGORY, FUNCTION = CATEGORY, "sample"
    DESCRIPTION = (
        "Samples at the size of the latents, enlarges the result and continues from noise level K, stage by stage, to "
        "scale. Latents that hold a picture already (of KSampler) are enlarged further."
    )
    RETURN_TYPES, RETURN_NAMES = ("LATENT", "LATENT", "STRING"), ("LATENT", "base", "stages")
    OUTPUT_TOOLTIPS = ("The last stage's latents.", "The base stage's.", "What ran, one line per stage.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets."""
        return {
            "required": {
                "model": ("MODEL", tip("With your LoRAs and other patches.")),
                "positive": ("CONDITIONING", tip("With your ControlNets.")),
                "negative": ("CONDITIONING", tip("As in KSampler.")),
                "vae": ("VAE", tip("The model's; enlarges pivots as pictures.")),
                "latent_image": ("LATENT", tip("Empty latents of the model's own size, or finished ones to enlarge.")),
                "seed": SEED,
                **first_widgets("the latents'"),
            },
            "optional": {**more_widgets(), **UPSCALE_MODEL},
        }

    def sample(
        self, model: Any, positive: Any, negative: Any, vae: Any, latent_image: Latents, seed: int, **values: Any
    ) -> tuple[Latents, Latents, str]:
        """Latents of the last stage, of the base stage, and the stages in words."""
        asked_for = Asked(model, vae, values, [*positive, *negative])
        latents = latents_of(model, latent_image)
        finished, size = bool(latents.any()), asked_for.size(latents)
        stages = asked_for.stages(latents, finished)
        given = (asked_for.schedules, asked_for.preset, seed, asked_for.upscaler)
        setting = Setting(model, vae, positive, negative, size, size, *given)
        # The noise of finished latents was drawn by KSampler, from the same seed where it is the same.
        first = latents if finished else latents.new_zeros(*latents.shape[:2], *_latent(stages[0].size, asked_for))
        noises = Noises(seed, first, latent_image.get("batch_index"))
        if finished:
            noises.draw(first)
        results = run(setting, stages, noises, (lambda: ComfySample(latents)) if finished else None)
        base = latents if finished else results[0].latents
        made, kept = ({**latent_image, "samples": samples} for samples in (results[-1].latents, base))
        return made, kept, asked_for.told(stages)


def _latent(size: Size, asked_for: Asked) -> tuple[int, int]:
    return size.height // asked_for.factor, size.width // asked_for.factor


class SelfCascadeUpscale:
    """A picture of the user's own as the first pivot: larger, with new detail, in the same composition."""

    CATEGORY, FUNCTION = CATEGORY, "upscale"
    DESCRIPTION = "Enlarges pictures and adds detail from noise level K on, stage by stage, in the same composition."
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "LATENT", "STRING"), ("IMAGE", "LATENT", "stages")
    OUTPUT_TOOLTIPS = ("The larger pictures.", "Their latents.", "What ran, one line per stage.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets."""
        side = tip("Side in pixels that the model was trained at; 0: as its kind has it.", default=0, min=0, max=4096)
        return {
            "required": {
                "image": ("IMAGE", tip("Cropped at the centre to the target's ratio, where that differs.")),
                "model": ("MODEL", tip("With your LoRAs and other patches.")),
                "positive": ("CONDITIONING", tip("What the picture shows.")),
                "negative": ("CONDITIONING", tip("As in KSampler.")),
                "vae": ("VAE", tip("The model's.")),
                "seed": SEED,
                **first_widgets("the picture's"),
            },
            "optional": {**more_widgets(), "native_size": ("INT", side), **UPSCALE_MODEL},
        }

    def upscale(
        self, image: Tensor, model: Any, positive: Any, negative: Any, vae: Any, seed: int, **values: Any
    ) -> tuple[Tensor, Latents, str]:
        """The larger pictures, their latents, and the stages in words."""
        asked_for = Asked(model, vae, values, [*positive, *negative])
        pixels = image[..., :3].movedim(-1, 1)  # (B, 3, H, W)
        own, side = Size(*pixels.shape[-2:]), native_side(model, values.get("native_size", 0))
        options: Options = asked_for.options
        stages, before = told(
            lambda: stages_above_picture(own, side, asked_for.multiple, asked_for.schedules, asked_for.preset, options)
        )
        given = (asked_for.schedules, asked_for.preset, seed, asked_for.upscaler)
        setting = Setting(model, vae, positive, negative, own, Size(side, side), *given)
        channels = model.get_model_object("latent_format").latent_channels
        first = image.new_zeros(len(image), channels, *_latent(stages[0].size, asked_for))

        def pivot() -> ComfySample:
            def encoded(size: Size, enlarge: Any = lanczos) -> Tensor:
                return coder.encode(vae, fitted(pixels, size, enlarge))

            features = None if asked_for.attached is None else encoded(before)
            own = encoded(stages[0].size, asked_for.upscaler or lanczos)
            return ComfySample(own, features=features, band=_latent(before, asked_for))

        latents = run(setting, stages, Noises(seed, first, None), pivot)[-1].latents
        return vae.decode(latents), {"samples": latents}, asked_for.told(stages)


class ApplyFeatureUpsamplers:
    """A model patch: the tuned version, for the stages of a cascade, or for any sampler from a pivot given."""

    CATEGORY, FUNCTION = CATEGORY, "apply"
    DESCRIPTION = (
        "The tuned version: trained modules hand the skip features of each stage's pivot on to the larger stage. They "
        "act in Self-Cascade nodes; with a pivot connected, in any sampler."
    )
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets."""
        strength: dict[str, Any] = {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}
        return {
            "required": {
                "model": ("MODEL", tip("The one that the upsamplers were trained for.")),
                "upsamplers": (upsampler_files.names(), tip("Folders of models/selfcascade, and the bundled ones.")),
                "strength": ("FLOAT", tip("0 is the tuning-free version.", **strength)),
            },
            "optional": {"pivot": ("LATENT", tip("Finished latents, for samplers other than Self-Cascade nodes."))},
        }

    def apply(self, model: Any, upsamplers: str, strength: float, pivot: Latents | None = None) -> tuple[Any]:
        """The model with the upsamplers."""
        attached = Attached(upsampler_files.load(upsamplers), strength)
        check_model(attached.upsamplers, model)
        if pivot is not None:
            return (with_skips(model, attached, model.model.process_latent_in(pivot["samples"])),)
        made = model.clone()
        made.set_attachments(ATTACHED, attached)
        return (made,)


class SelfCascadePlan:
    """The stages of *Self-Cascade Sampler*, and what they cost, before anything runs."""

    CATEGORY, FUNCTION = CATEGORY, "plan"
    DESCRIPTION = "The stages of Self-Cascade Sampler, with sizes, K, steps, TFLOPs and memory; nothing is sampled."
    RETURN_TYPES, RETURN_NAMES, OUTPUT_NODE = ("STRING",), ("plan",), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Sockets and widgets."""
        return {
            "required": {
                "model": ("MODEL", tip("As in Self-Cascade Sampler.")),
                "vae": ("VAE", tip("As in Self-Cascade Sampler.")),
                "latent_image": ("LATENT", tip("As in Self-Cascade Sampler.")),
                **first_widgets("the latents'"),
            },
            "optional": more_widgets(),
        }

    def plan(self, model: Any, vae: Any, latent_image: Latents, **values: Any) -> dict[str, Any]:
        """The plan in words."""
        asked_for, latents = Asked(model, vae, values), latents_of(model, latent_image)
        stages = asked_for.stages(latents, bool(latents.any()))
        costs = costs_told(model, asked_for.schedules, stages, len(latents), asked_for.factor)
        text = f"{asked_for.told(stages)}\n{costs}"
        return {"ui": {"text": [text]}, "result": (text,)}


NODE_CLASS_MAPPINGS = {
    "SelfCascadeSampler": SelfCascadeSampler,
    "SelfCascadeUpscale": SelfCascadeUpscale,
    "SelfCascadeApplyUpsamplers": ApplyFeatureUpsamplers,
    "SelfCascadePlan": SelfCascadePlan,
    "SelfCascadeBundledModel": BundledModel,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SelfCascadeSampler": "Self-Cascade Sampler",
    "SelfCascadeUpscale": "Self-Cascade Upscale",
    "SelfCascadeApplyUpsamplers": "Apply Feature Upsamplers",
    "SelfCascadePlan": "Self-Cascade Plan",
    "SelfCascadeBundledModel": "Self-Cascade Bundled Model",
}
