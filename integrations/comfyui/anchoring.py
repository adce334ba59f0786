"""The anchor on a ComfyUI model: the low band of a step's predicted x_0 becomes the pivot's, after guidance."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selfcascade.base_models.pivot_controls import Anchor

from .schedules import step_of


def anchored(model: Any, anchor: Anchor, sigmas: Tensor) -> Any:
    """A copy of the model whose predicted x_0 the anchor changes; functions that are there already come first.

    Args:
        model: A `ModelPatcher`.
        anchor: The anchor, with the enlarged pivot in the model's own scale.
        sigmas: Schedule of the stage.
    """
    count = len(sigmas) - 1

    def hold(args: dict[str, Any]) -> Tensor:
        x_0 = args["denoised"]
        if not anchor.holds(step_of(sigmas, args["sigma"]), count):
            return x_0
        anchor.enlarged = anchor.enlarged.to(x_0.device)
        return x_0 + anchor.correction(x_0.float()).to(x_0.dtype)

    made = model.clone()
    made.set_model_sampler_post_cfg_function(hold)
    return made
