"""Feature upsamplers on a ComfyUI U-Net: the pivot's skips are read (eq. 7), residuals added to the stage's (eq. 8)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from selfcascade.upsamplers.ldm import ldm_levels
from selfcascade.upsamplers.model import FeatureUpsamplers

ATTACHED = "selfcascade_upsamplers"
PIVOT = "selfcascade_pivot"  # in the transformer_options of a pass on the pivot: (h, w) of the pivot's latents
Conditions = dict[str, Any]


class Attached(NamedTuple):
    """What *Apply Feature Upsamplers* attaches to a model, for the stages of a cascade."""

    upsamplers: FeatureUpsamplers
    strength: float


class _EncoderDone(Exception):
    """Ends a pass as soon as the skip features are complete."""


def check_model(upsamplers: FeatureUpsamplers, model: Any) -> None:
    """Raises ValueError, in a sentence, if they were made for another U-Net than this model's, or for clips."""
    upsamplers.check_unet(model.model.diffusion_model)
    if upsamplers.over_frames:
        raise ValueError("these upsamplers are for clips, along whose frames they have kernels; use ones for pictures")
    if upsamplers.low_rank:
        raise ValueError("these upsamplers have low-rank weights for diffusers' layers; use ones without decoder_rank")


def with_skips(model: Any, attached: Attached, pivot: Tensor, size: tuple[int, int] | None = None) -> Any:
    """A copy of the model that adds the upsamplers' residuals to its skip features; other patches keep working.

    Args:
        model: A `ModelPatcher`.
        attached: Upsamplers made for it, and their strength; 0 changes no bit.
        pivot: z_0 in the model's own scale, (B, C, h, w).
        size: (h', w') of the stage's latents, none other of which can be given features; None: not known.
    """
    made = model.clone()
    if attached.strength != 0:
        skips = _Skips(made.model, attached, pivot, size)
        made.set_model_unet_function_wrapper(skips.wrapper(made.model_options.get("model_function_wrapper")))
        made.set_model_output_block_patch(skips.add)
    return made


class _Skips:
    """The pivot's features for the conditions of each pass, and what the pass that runs needs of them."""

    def __init__(self, base: Any, attached: Attached, pivot: Tensor, size: tuple[int, int] | None) -> None:
        self.size = size
        self.base, self.pivot, self.strength = base, pivot, attached.strength
        self.upsamplers = copy.deepcopy(attached.upsamplers)  # takes the U-Net's device and precision
        self.levels = ldm_levels(base.diffusion_model)
        taken = [(level, place) for level, own in enumerate(self.levels) for place in reversed(range(len(own)))]
        self.taken_by = dict(enumerate(taken))  # of each output block: its level, and the place of its skip there
        self.known: dict[object, list[list[Tensor]]] = {}
        self.features: list[list[Tensor]] | None = None
        self.made: dict[int, Tensor] = {}
        self.timestep = self.temb = torch.zeros(1)
        self.sigma = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self  # clones of a model copy its patches, which must keep sharing one stage

    def wrapper(self, other: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
        """A wrapper that ComfyUI calls instead of the model; an existing wrapper is kept around it."""

        def run(apply_model: Callable[..., Tensor], args: Conditions) -> Tensor:
            def with_features(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
                self._begin(apply_model, x, t, conditions)
                try:
                    return apply_model(x, t, **conditions)
                finally:
                    self.features = None

            if other is None:
                return with_features(args["input"], args["timestep"], **args["c"])
            return other(with_features, args)

        return run

    def add(self, h: Tensor, skip: Tensor, options: Conditions) -> tuple[Tensor, Tensor]:
        """H' = h + strength phi_n(h_0, t), as an output block is about to take it."""
        if self.features is None:
            return h, skip
        level, place = self.taken_by[options["block"][1]]
        pivot = self.features[level]
        if level not in self.made:
            self.made[level] = self.upsamplers.prepared(level, pivot, self.timestep, self.temb)
        own = skip.to(self.upsamplers.dtype)
        r = self.upsamplers.one(level, self.made[level], place, pivot[place], own)
        return h, skip + self.strength * r.to(skip.dtype)

    def _begin(self, apply_model: Callable[..., Tensor], x: Tensor, t: Tensor, conditions: Conditions) -> None:
        if conditions.get("c_concat") is not None:
            raise ValueError(
                "feature upsamplers do not work on models that are given a picture, as inpainting ones are"
            )
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            raise ValueError(
                "feature upsamplers are for whole pictures, and the model is called with a part of one; leave out "
                "prompts for areas and tiled sampling, or the upsamplers"
            )
        options = conditions.get("transformer_options", {})
        dtype = self.base.manual_cast_dtype or self.base.get_dtype()
        nn.Module.to(self.upsamplers, x.device, dtype)
        key = (tuple(options.get("uuids", ())), tuple(options.get("cond_or_uncond", ())), x.shape)
        sigma = float(t.max())
        if sigma > self.sigma:  # another sampling, whose conditions have other ids
            self.known.clear()
        self.sigma = sigma
        if not options.get("uuids") or key not in self.known:
            self.known[key] = self._read(apply_model, x, conditions)
        self.timestep = self.base.model_sampling.timestep(t).float()
        self.temb = self._embedded(conditions.get("y"), dtype, x.device)
        self.features, self.made = self.known[key], {}

    def _embedded(self, y: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The U-Net's own time embedding, with SDXL's of sizes and pooled text."""
        unet = self.base.diffusion_model
        temb = unet.time_embed(timestep_embedding(self.timestep, unet.model_channels).to(dtype))
        return temb if y is None else temb + unet.label_emb(y.to(device, dtype))

    def _read(self, apply_model: Callable[..., Tensor], x: Tensor, conditions: Conditions) -> list[list[Tensor]]:
        """The skips of the clean pivot at t = 0; only the encoder runs."""
        if len(x) % len(self.pivot):
            raise ValueError(
                f"the model is called with {len(x)} latents, which is not a multiple of the pivot's {len(self.pivot)}"
            )
        found: list[Tensor] = []
        last = self.levels[0][-1]

        def take(h: Tensor, options: Conditions) -> Tensor:
            found.append(h.to(self.upsamplers.dtype))
            if options["block"][1] == last:
                raise _EncoderDone
            return h

        options = conditions.get("transformer_options", {})
        patches = options.get("patches", {})
        taking = {**patches, "input_block_patch": [*patches.get("input_block_patch", ()), take]}
        sampling = self.base.model_sampling
        sigma = sampling.sigma(torch.zeros(1)).to(x.device)
        scale = sampling.calculate_input(sigma, torch.ones(1, 1, 1, 1, device=x.device))  # the U-Net is given z_0
        # Guidance stacks the whole batch once per prompt, so the pivot is repeated as a whole too.
        z_0 = self.pivot.to(x).repeat(len(x) // len(self.pivot), 1, 1, 1) / scale
        marked = {**options, "patches": taking, PIVOT: tuple(z_0.shape[-2:])}
        own = {**conditions, "control": None, "transformer_options": marked}
        with contextlib.suppress(_EncoderDone):
            apply_model(z_0, sigma.expand(len(x)), **own)
        return [[found[number] for number in level] for level in self.levels]
