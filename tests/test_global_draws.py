"""Pipelines and schedulers that draw from PyTorch's global generator follow the caller's, and leave it as it was."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from cascade_runs import QUICK, run, seeded
from schedulers import with_scheduler
from tiny import TINY, TinyPipeline
from tiny.everything import CONTRACT

ENTRIES = {entry.name: entry for entry in CONTRACT}
CONTROLS = ("StableDiffusion3ControlNetPipeline", "HunyuanDiTControlNetPipeline", "CogView4ControlPipeline")
DRAWING = (*CONTROLS, "flow LCM", "stochastic flow", "DPM++ SDE")
FLOWS = {
    "flow LCM": diffusers.FlowMatchLCMScheduler(),
    "stochastic flow": diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
}


def pipeline(name: str) -> tuple[TinyPipeline, Any]:
    """A tiny pipeline that draws globally when it is called alone."""
    if name in CONTROLS:
        return ENTRIES[name], ENTRIES[name].shared()
    if name == "DPM++ SDE":
        return QUICK, with_scheduler(QUICK, "DPMSolverSDEScheduler")
    pipe: Any = TINY["flux"].build()
    pipe.scheduler = FLOWS[name]
    return TINY["flux"], pipe


def stages(pipe: Any, family: TinyPipeline, state: int, generator: Any) -> list[Tensor]:
    """Latents of both stages; PyTorch's own generator is seeded with `state` before, and left there if one is given."""
    torch.manual_seed(state)
    before = torch.get_rng_state()
    made = run(pipe, family, num_inference_steps=3, generator=generator)
    assert torch.equal(torch.get_rng_state(), before) == (generator is not None)
    return [stage.latents for stage in made.stages]


@pytest.mark.parametrize("name", DRAWING)
def test_a_seed_makes_the_same_whatever_the_global_state_which_is_left_alone(name: str) -> None:
    family, pipe = pipeline(name)
    with torch.random.fork_rng(devices=[]):
        first, again = (stages(pipe, family, state, seeded(3)) for state in (1, 2))
        assert all(map(torch.equal, first, again))
        # Without a generator the global one is what seeds all draws, as in diffusers.
        free, same, other = (stages(pipe, family, state, None) for state in (1, 1, 2))
        assert all(map(torch.equal, free, same))
        assert not any(map(torch.equal, free, other))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_encoded_by_the_seed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, pipe = pipeline(name)
    draws: list[Tensor] = []

    def watched(self: Any, generator: Any = None) -> Tensor:
        draws.append(self.mean + self.std * torch.randn(self.mean.shape, generator=generator))
        return draws[-1]

    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", watched)
    for seed in (3, 3, 4):
        run(pipe, family, num_inference_steps=2, generator=seeded(seed))
    first, again, other = (draws[start :: len(draws) // 3][0] for start in range(0, len(draws), len(draws) // 3))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_each_picture_of_a_batch_gets_the_draws_of_its_own_generator() -> None:
    """FlowMatchLCMScheduler noises at every step."""
    family, pipe = pipeline("flow LCM")
    alone = [run(pipe, family, generator=seeded(seed)).images for seed in (1, 2)]
    both = run(pipe, family, num_images_per_prompt=2, generator=[seeded(1), seeded(2)]).images
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)
