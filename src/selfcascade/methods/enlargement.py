"""The zero line: the base sample, enlarged with Lanczos windows and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.finite import check_finite
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.direct import base_sample
from selfcascade.pipeline import SelfCascade, SelfCascadeOutput


class Lanczos:
    """What every other method has to beat: the composition is the base model's, the detail is missing."""

    name = "lanczos"
    from_base = True
    summary = "the base sample enlarged with Lanczos windows: no detail is added"

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        output_type: str = "pil",
        pivot: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput` with one stage, the base sample's; "latent" gives the picture encoded again."""
        cascade = SelfCascade(pipe, native_size=native_size)
        output, pixels = base_pixels(cascade, prompt, Size(height, width), pivot, arguments)
        return finish(cascade, output, lanczos(pixels, Size(height, width)), output_type)


def base_pixels(
    cascade: SelfCascade, prompt: str | list[str], target: Size, pivot: Tensor | None, arguments: dict[str, Any]
) -> tuple[Any, Tensor]:
    """The output of the base stage for that target, and its picture, (N, 3, ..., h, w) in [-1, 1].

    Args:
        cascade: Of the pipeline.
        prompt: One or several.
        target: Size of the picture wanted.
        pivot: The base sample's latents, where they are there already.
        arguments: Of the pipeline.
    """
    output: Any = SelfCascadeOutput(None, None, [])
    if pivot is None:
        output = base_sample(cascade, prompt, target, arguments)
    z_0 = output.stages[-1].latents if pivot is None else pivot
    with torch.no_grad():
        return output, cascade.family.decode(z_0)


def finish(cascade: SelfCascade, output: Any, pixels: Tensor, output_type: str) -> Any:
    """The output with that picture, (N, 3, ..., H, W) in [-1, 1], in the form that is asked for."""
    pixels, pipe = pixels.clamp(-1, 1), cascade.pipe
    check_finite(pixels, pipe, f"the picture of {Size(*pixels.shape[-2:])}")
    if output_type == "latent":
        with torch.no_grad():
            made = cascade.family.encode(pixels).to(denoiser(pipe).dtype)
    else:
        processor = pipe.video_processor if cascade.family.video else pipe.image_processor
        post = processor.postprocess_video if cascade.family.video else processor.postprocess
        made = post(pixels.float(), output_type=output_type)
    setattr(output, "frames" if cascade.family.video else "images", made)
    return output
