"""Self-attention within windows of the native size, on ComfyUI's own networks (docs/attention.md of the library)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.ldm.modules.attention
from torch import Tensor

from selfcascade.base_models.local_attention import QUARTERS, Place, attend_at_step, places_of_levels
from selfcascade.base_models.stage_attention import window_sides
from selfcascade.base_models.windows import Grid
from selfcascade.cascade import Size
from selfcascade.upsamplers.ldm import is_ldm, ldm_levels

from .schedules import step_of
from .skips import PIVOT

OVERRIDE = "optimized_attention_override"
# Their tokens are the text's, then the picture's; those of blocks without text are the picture's alone.
TEXT_FIRST = frozenset({"Flux", "Chroma", "MMDiT", "OpenAISignatureMMDITWrapper"})


def why_not_local(model: Any, conditioning: Sequence[Any] = ()) -> str | None:
    """Why this model, or what it is given, does not support local attention; None if it does."""
    network = model.model.diffusion_model
    if not (is_ldm(network) or type(network).__name__ in TEXT_FIRST):
        return (
            f"attention 'local' does not know where {type(network).__name__} has the tokens of its picture; use 'full'"
        )
    if any(own.get("reference_latents") for _, own in conditioning):  # their tokens follow the picture's
        return "attention 'local' does not know where the picture is beside reference latents; use 'full'"
    if not hasattr(comfy.ldm.modules.attention, "wrap_attn"):
        return "attention 'local' needs a ComfyUI whose attention can be replaced, from 0.3.60 on; use 'full'"
    return None


def attending_locally(model: Any, native: Size, size: Size, latents: Tensor, sigmas: Tensor) -> Any:
    """A copy of the model with local attention; existing replacements of attention are used for everything else.

    Args:
        model: A `ModelPatcher`.
        native: Size that the model was trained at.
        size: Size of the stage.
        latents: Latents of the stage, (B, C, h, w).
        sigmas: Schedule of the stage.
    """
    network = model.model.diffusion_model
    made, unet = model.clone(), is_ldm(network)
    patch = 1 if unet else network.patch_size
    height, width = (math.ceil(side / patch) for side in latents.shape[-2:])
    grid, window = Grid(1, height, width), Grid(1, *window_sides(native, size, height, width))
    windows = _Windows(grid, window, len(ldm_levels(network)) if unet else None, sigmas)
    options = made.model_options["transformer_options"]
    options[OVERRIDE] = windows.answer_before(options.get(OVERRIDE))
    if unet:  # there the override alone does not say whether attention is to the picture or to the text
        made.set_model_attn1_patch(windows.is_own)
        made.set_model_attn2_patch(windows.is_not_own)
    return made


class _Windows:
    def __init__(self, grid: Grid, window: Grid, levels: int | None, sigmas: Tensor) -> None:
        self.grid, self.window, self.sigmas, self.own = grid, window, sigmas, levels is None
        self.levels = levels

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self  # clones of a model copy its patches, which must keep sharing one stage

    def is_own(self, n: Tensor, context: Tensor, value: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.own = True
        return n, context, value

    def is_not_own(self, n: Tensor, context: Tensor, value: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.own = False
        return n, context, value

    def place(self, tokens: int, pivot: tuple[int, int] | None) -> Place | None:
        """Where so many tokens are: in the stage's grid, or in the pivot's where its (h, w) is given."""
        if self.levels is not None:
            grid = self.grid if pivot is None else Grid(1, *pivot)
            return places_of_levels(self.levels, grid, self.window).get(tokens)
        others = tokens - self.grid.tokens
        window = Grid(*(min(sides) for sides in zip(self.grid, self.window, strict=True)))
        return None if others < 0 else (self.grid, window, others)

    def moved(self, sigma: Tensor) -> tuple[int, bool]:
        step = step_of(self.sigmas, sigma)
        return step % QUARTERS, step == len(self.sigmas) - 2

    def answer_before(self, other: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
        def attention(
            function: Callable[..., Tensor],
            q: Tensor,
            k: Tensor,
            v: Tensor,
            heads: int,
            mask: Tensor | None = None,
            attn_precision: Any = None,
            skip_reshape: bool = False,
            skip_output_reshape: bool = False,
            **more: Any,
        ) -> Tensor:
            tokens, others = (x.shape[2 if skip_reshape else 1] for x in (q, k))
            options = more["transformer_options"]
            pivot = options.get(PIVOT)
            place = self.place(tokens, pivot) if self.own and tokens == others else None
            if place is None or place[0] == place[1]:
                shape = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape}
                given = {"mask": mask, "attn_precision": attn_precision, **shape, **more}
                return function(q, k, v, heads, **given) if other is None else other(function, q, k, v, heads, **given)
            # As in the library's `pass_on_pivot`: it is no step, so its windows do not move.
            quarters, last = (0, False) if pivot is not None else self.moved(options["sigmas"])
            parts = (x if skip_reshape else x.reshape(len(x), tokens, heads, -1).transpose(1, 2) for x in (q, k, v))
            out = attend_at_step(*parts, place, quarters, last, mask)  # (B, H, S, D)
            return out if skip_output_reshape else out.transpose(1, 2).flatten(2)

        return attention
