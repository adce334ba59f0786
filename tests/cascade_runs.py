"""What the tests of the cascade share: short runs of tiny pipelines from a seed."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from selfcascade import METHODS, FeatureUpsamplers, SelfCascade
from tiny import TINY, TinyPipeline
from tiny.unets import stable_diffusion, unet_2d

FAMILIES = pytest.mark.parametrize("family", TINY.values(), ids=TINY.keys())
SD = TINY["stable-diffusion"]
SMALL = dataclasses.replace(SD, native=(64, 64))


def two_levels() -> Any:
    """Stable Diffusion with half the levels: what is at stake is the scheduler's arithmetic."""
    pipe: Any = stable_diffusion()
    pipe.unet = unet_2d(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return pipe


QUICK = dataclasses.replace(SD, make=two_levels, native=(64, 64))
# The paper's preset: nothing but the algorithm, to which tests add what they are about.
SETTINGS: dict[str, Any] = {"num_inference_steps": 4, "output_type": "latent", "preset": "paper"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe: Any, family: TinyPipeline = SD, scale: int = 2, **options: Any) -> Any:
    size = {"height": scale * family.native[0], "width": scale * family.native[1]}
    settings = {**family.inputs, **SETTINGS, **size, "generator": seeded(), **options}
    return SelfCascade(pipe, native_size=family.native)(**settings)


def sampled(name: str, pipe: Any, family: TinyPipeline = SD, **options: Any) -> Tensor:
    size = {"height": 2 * family.native[0], "width": 2 * family.native[1], "native_size": family.native}
    settings: dict[str, Any] = {"num_inference_steps": 3, "output_type": "latent", "generator": seeded(), **size}
    inputs = {key: value for key, value in family.inputs.items() if key != "prompt"}
    output = METHODS[name](pipe, family.inputs["prompt"], **{**inputs, **settings, **options})
    return output.images if output.frames is None else output.frames


def shaken(upsamplers: FeatureUpsamplers, seed: int = 0, size: float = 0.2) -> FeatureUpsamplers:
    """The same with random weights, so that they do change the picture."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in upsamplers.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return upsamplers
