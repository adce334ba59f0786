"""The baseline: the base sample, enlarged with Lanczos windows and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.decoding import Decoded, checked_pictures
from selfcascade.base_models.family import denoiser
from selfcascade.base_models.finite import check_finite
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.direct import base_sample
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.calls import SelfCascadeOutput


class Lanczos(Method, options="lanczos"):
    """What other methods have to beat: the base model's composition, without new detail."""

    summary = "the base sample enlarged with Lanczos windows: no detail is added"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """One stage, the base sample; output type "latent" gives the enlarged picture, encoded again."""
        output, pixels = base_pixels(request, request.without("output_type", "pivot"))
        output_type = request.arguments.get("output_type", "pil")
        return finish(request.cascade, output, lanczos(pixels, request.target), output_type)


def base_pixels(request: MethodRequest, arguments: Mapping[str, Any]) -> tuple[SelfCascadeOutput, Tensor]:
    """The base stage of a cascade to the request's target, and its picture, (N, 3, ..., h, w) in [-1, 1].

    Args:
        request: The request; its `pivot`, if given, is used as the base sample's latents.
        arguments: Keywords for the pipeline.
    """
    cascade, pivot = request.cascade, request.arguments.get("pivot")
    output = SelfCascadeOutput(None, None, []) if pivot is not None else base_sample(request, arguments)
    z_0 = output.stages[-1].latents if pivot is None else pivot
    with torch.no_grad():
        return output, cascade.family.decode(z_0)


def finish(cascade: SelfCascade, output: SelfCascadeOutput, pixels: Tensor, output_type: str) -> SelfCascadeOutput:
    """The output with this picture, (N, 3, ..., H, W) in [-1, 1], converted to the output type."""
    pixels, pipe = pixels.clamp(-1, 1), cascade.pipe
    check_finite(pixels, pipe, f"the picture of {Size(*pixels.shape[-2:])}")
    with torch.no_grad():
        if output_type == "latent":
            made = Decoded(cascade.family.encode(pixels).to(denoiser(pipe).dtype))
        else:
            made = checked_pictures(cascade.family, pixels.float(), output_type)
    setattr(output, "frames" if cascade.family.video else "images", made.pictures)
    output.nsfw_content_detected = made.flagged
    return output
