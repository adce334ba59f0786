"""The user's own picture or clip as the first pivot."""

from __future__ import annotations

import torch
from torch import Tensor

from selfcascade.base_models.driver import PipelineSample
from selfcascade.base_models.family import Family
from selfcascade.base_models.finite import check_finite
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import fitted
from selfcascade.cascade import Size


def image_pivot(
    family: Family, request: Request, pixels: Tensor, size: Size, pivot_size: Size, tuned: bool = False
) -> PipelineSample:
    """Makes the first pivot from a user's picture or clip: cropped at the centre to the size's ratio, resized, encoded.

    Args:
        family: The pipeline's family.
        request: A request with one prompt per picture, or several for one picture (`Request.for_pictures`).
        pixels: (B, 3, H, W) or (B, 3, F, H, W), bytes or in [0, 1]; bytes are converted part by part.
        size: Size of the first stage.
        pivot_size: The size that a stage before it would have; it limits the picture's low band.
        tuned: Whether skip features are read, at `pivot_size`.
    """

    def latents(size: Size) -> Tensor:
        def encoded(part: Tensor) -> Tensor:
            return family.encode(fitted(part, size).to(family.pipe._execution_device))

        z_0 = family.in_parts(encoded, pixels, size)
        check_finite(z_0, family.pipe, f"the image encoded at {size}")
        return torch.cat([z_0] * (request.prompts // len(pixels))).repeat_interleave(request.copies, 0)

    features = latents(pivot_size) if tuned else None
    return PipelineSample(latents(size), features=features, band=family.latent_size(pivot_size))
