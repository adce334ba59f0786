"""Direct inference: the pipeline asked for the target size, as if it had been trained there."""

from __future__ import annotations

from typing import Any

from selfcascade.cascade import Size
from selfcascade.pipeline import SelfCascade

A_STAGE = ("num_inference_steps", "guidance_scale")
OF_THE_CASCADE = frozenset(
    {"pivot_step", "preset", "upsampling", "anchor", "energy", "native_size", "upsamplers", "upsampler_scale"}
    | {"shared_noise"}
)


def base_sample(cascade: SelfCascade, prompt: str | list[str], target: Size, arguments: dict[str, Any]) -> Any:
    """The `SelfCascadeOutput` of the base stage alone of a cascade to that target, in latents.

    Args:
        cascade: Of the pipeline.
        prompt: One or several.
        target: Size of the picture wanted.
        arguments: Of the whole cascade; of those with a value a stage, the first one's is taken.
    """
    base = cascade.plan(target.height, target.width)[0].size
    first = {**of_first_stage(arguments), "output_type": "latent"}
    return Direct()(cascade.pipe, prompt, **base._asdict(), **first)


def of_first_stage(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with the first stage's value of those that may have one a stage."""
    return {
        name: value[0] if name in A_STAGE and isinstance(value, (list, tuple)) and value else value
        for name, value in arguments.items()
    }


class Direct:
    """The first row of the paper's tables: the base model at the target size, from pure noise."""

    name = "direct"
    from_base = False
    summary = "the base model asked for the target size at once (objects repeat)"

    def __call__(self, pipe: Any, prompt: str | list[str], *, height: int, width: int, **arguments: Any) -> Any:
        """The pipeline's own output at (height, width); arguments of the cascade alone are left out."""
        arguments = {name: value for name, value in arguments.items() if name not in OF_THE_CASCADE}
        cascade = SelfCascade(pipe, native_size=(height, width))
        return cascade(prompt, height=height, width=width, **arguments)
