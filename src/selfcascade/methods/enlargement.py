"""The zero line: the base sample, enlarged with Lanczos windows and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.pipeline import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.direct import Direct
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
        base = cascade.plan(height, width)[0].size
        output: Any = SelfCascadeOutput(None, None, [])
        if pivot is None:
            settings = {**arguments, "output_type": "latent"}
            output = Direct()(pipe, prompt, height=base.height, width=base.width, **settings)
        z_0 = output.stages[-1].latents if pivot is None else pivot
        with torch.no_grad():
            pixels = lanczos(cascade.family.decode(pipe, z_0), Size(height, width)).clamp(-1, 1)
        if output_type == "latent":
            with torch.no_grad():
                made = cascade.family.encode(pipe, pixels).to(denoiser(pipe).dtype)
        elif cascade.family.video:
            made = pipe.video_processor.postprocess_video(pixels.float(), output_type=output_type)
        else:
            made = pipe.image_processor.postprocess(pixels.float(), output_type=output_type)
        name = "frames" if cascade.family.video else "images"
        setattr(output, name, made)
        return output
