"""The user's own picture or clip as the first pivot."""

from __future__ import annotations

import torch
from torch import Tensor

from selfcascade.base_models.driver import PipelineSample
from selfcascade.base_models.family import Family
from selfcascade.base_models.finite import check_finite
from selfcascade.base_models.pivot_controls import Upscaling
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import fitted, lanczos
from selfcascade.cascade import Size


def image_pivot(
    family: Family,
    request: Request,
    pixels: Tensor,
    size: Size,
    pivot_size: Size,
    tuned: bool = False,
    upscaler: Upscaling | None = None,
) -> PipelineSample:
    """Makes the first pivot from a user's picture or clip: cropped at the centre to the size's ratio, resized, encoded.

    Args:
        family: The pipeline's family.
        request: A request with one prompt per picture, or several for one picture (`Request.for_pictures`).
        pixels: (B, 3, H, W) or (B, 3, F, H, W), bytes or in [0, 1]; bytes are converted part by part.
        size: Size of the first stage.
        pivot_size: The size that a stage before it would have; it limits the picture's low band.
        tuned: Whether skip features are read, at `pivot_size`.
        upscaler: Enlarges the picture for the first stage (`PivotSettings`); None means Lanczos windows.
    """

    def latents(pixels: Tensor, size: Size, enlarge: Upscaling = lanczos) -> Tensor:
        def encoded(part: Tensor) -> Tensor:
            return family.encode(fitted(part, size, enlarge).to(family.pipe._execution_device))

        z_0 = family.in_parts(encoded, pixels, size)
        check_finite(z_0, family.pipe, f"the image encoded at {size}")
        return z_0

    def of_each_result(values: Tensor) -> Tensor:
        return torch.cat([values] * (request.prompts // len(pixels))).repeat_interleave(request.copies, 0)

    features = of_each_result(latents(pixels, pivot_size)) if tuned else None
    # Where a model enlarges the picture, each result's prompt and generator may make another one of it.
    own = of_each_result(latents(pixels, size)) if upscaler is None else latents(of_each_result(pixels), size, upscaler)
    return PipelineSample(own, features=features, band=family.latent_size(pivot_size))
