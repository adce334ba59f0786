"""The widgets that the nodes share."""

from __future__ import annotations

from typing import Any

import comfy.samplers

from selfcascade.options.presets import PRESETS

from .planning import DEFAULT, FROM_PRESET


def tip(text: str, **more: Any) -> dict[str, Any]:
    """A widget's or socket's options."""
    return {"tooltip": text, **more}


def first_widgets(scaled: str) -> dict[str, Any]:
    """The widgets of all nodes with a cascade; `scaled` says what sizes are multiples of."""
    kinds = comfy.samplers.KSampler
    return {
        "steps": ("INT", tip("Steps of the whole schedule; a stage runs its tail.", default=20, min=1, max=10000)),
        "cfg": ("FLOAT", tip("Weight of the prompt.", default=7.0, min=0.0, max=100.0, step=0.1)),
        "sampler_name": (kinds.SAMPLERS, tip("As in KSampler.")),
        "scheduler": (kinds.SCHEDULERS, tip("As in KSampler.")),
        "scale": ("FLOAT", tip(f"Sides, as a multiple of {scaled}.", default=2.0, min=1.0, max=16.0, step=0.05)),
        "preset": ([DEFAULT, *PRESETS], tip("default: quality, or what the applied upsamplers bring.")),
    }


def more_widgets() -> dict[str, Any]:
    """The settings of a preset, which widgets may replace, and sizes."""
    share: dict[str, Any] = {"default": -1.0, "min": -1.0, "max": 1.0, "step": 0.05}
    side: dict[str, Any] = {"default": 0, "min": 0, "max": 16384, "step": 8}
    return {
        "width": ("INT", tip("Pixels, instead of scale; 0: in proportion to height, or by scale.", **side)),
        "height": ("INT", tip("Pixels, instead of scale; 0: in proportion to width, or by scale.", **side)),
        "pivot_step": ("STRING", tip("K: 500, or for each stage above the base 500, 300. Empty: the preset's.")),
        "upsampling": ([FROM_PRESET, "latent-bilinear", "latent-bicubic", "rgb"], tip("How pivots are enlarged.")),
        "anchor": ("FLOAT", tip("Share of the steps held to the pivot's low band; -1: the preset's.", **share)),
        "energy": ("FLOAT", tip("How much of the fine detail's energy a pivot gets back; -1: the preset's.", **share)),
        "attention": ([FROM_PRESET, "full", "local"], tip("local: its cost is linear in pixels.")),
        "stage_steps": ("STRING", tip("Steps of each stage: 30, 20, 20. Empty: steps for all.")),
        "stage_cfg": ("STRING", tip("cfg of each stage: 7, 5, 5. Empty: cfg for all.")),
    }


SEED = ("INT", tip("As in KSampler.", default=0, min=0, max=2**64 - 1, control_after_generate=True))
UPSCALE_MODEL = {
    "upscale_model": ("UPSCALE_MODEL", tip("Enlarges pivots as pictures (upsampling rgb), before Lanczos."))
}
