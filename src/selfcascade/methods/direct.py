"""Direct inference: calls the pipeline with the target size, as if it had been trained there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from selfcascade.base_models.protocols import Pipeline
from selfcascade.cascade import Size
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.calls import SelfCascadeOutput

A_STAGE = ("num_inference_steps", "guidance_scale")


class Direct(Method, options="direct"):
    """The first row of the paper's tables: the base model at the target size, from pure noise."""

    summary = "the base model asked for the target size at once (objects repeat)"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """The pipeline's own output at the target size."""
        return sampled_at(request.pipe, request.prompt, request.target, request.arguments)


def sampled_at(pipe: Pipeline, prompt: str | list[str], size: Size, arguments: Mapping[str, Any]) -> SelfCascadeOutput:
    """The pipeline's own output at this size, in one stage."""
    run = cast("Callable[..., SelfCascadeOutput]", SelfCascade(pipe, native_size=size))
    return run(prompt, height=size.height, width=size.width, **arguments)


def base_sample(request: MethodRequest, arguments: Mapping[str, Any]) -> SelfCascadeOutput:
    """Runs only the base stage of a cascade to the request's target; the output is latents.

    Args:
        request: The request for the whole cascade.
        arguments: Arguments of the whole cascade; if one has a value for each stage, the first is used.
    """
    base = request.cascade.plan(*request.target)[0].size
    first = {**of_first_stage(arguments), "output_type": "latent"}
    return sampled_at(request.pipe, request.prompt, base, first)


def of_first_stage(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with the first stage's value for those that have one per stage."""
    return {
        name: value[0] if name in A_STAGE and isinstance(value, (list, tuple)) and value else value
        for name, value in arguments.items()
    }
