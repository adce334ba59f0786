"""Pipelines and schedulers that draw from PyTorch's global generator follow the caller's, and leave it as it was."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from cascade_runs import QUICK, run, seeded
from schedulers import with_scheduler
from selfcascade import SelfCascade
from selfcascade.making import completed, make, make_together
from selfcascade.options import Options
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


class Restless(diffusers.DDIMScheduler):
    """A scheduler that draws for the whole batch from the global generator."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """DDIM's step, and noise."""
        first, *others = super().step(*args, **{**kwargs, "return_dict": False})
        return first + 0.1 * torch.randn_like(first), *others


@pytest.mark.parametrize("kind", [Restless, diffusers.DDIMScheduler])
def test_a_row_does_not_depend_on_those_that_it_is_made_with(kind: type[diffusers.DDIMScheduler]) -> None:
    pipe: Any = QUICK.build()
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    cascade, side = SelfCascade(pipe, native_size=QUICK.native), 2 * QUICK.native[0]
    given: dict[str, Any] = {"native_size": QUICK.native, "height": side, "width": side}
    given |= {"num_inference_steps": 2, "preset": "paper"}
    first, second = (completed(cascade, Options(prompt="a", seed=seed, **given)) for seed in (1, 2))
    batches = list[int]()
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    alone = make(cascade, first).latents
    calls, passes = len(batches), batches[0]
    for number, group in enumerate(([second, first], [first, second], [first, first])):
        batches.clear()
        made = make_together(cascade, group)[group.index(first)].latents
        if kind is Restless:  # the first group has shown that it draws
            assert all(map(torch.equal, made, alone))
            assert batches[-2 * calls :] == [passes] * 2 * calls and (number == 0 or len(batches) == 2 * calls)
        else:
            assert all(torch.allclose(one, other, atol=1e-3) for one, other in zip(made, alone, strict=True))
            assert batches == [2 * passes] * calls
    hook.remove()
