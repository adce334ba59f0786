"""Distilled models of two to eight steps: K leaves every stage a step, and what runs is what was planned."""

# pyright: reportPrivateImportUsage=false

import functools
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, LCMScheduler, StableDiffusionImg2ImgPipeline

from cascade_runs import QUICK, SD, run, seeded
from selfcascade import SelfCascade
from selfcascade.cost.plan import estimate, scheduled_steps
from tiny import TINY, TinyPipeline
from tiny.everything import CONTRACT
from tiny.variants import VARIANTS

KLEIN = VARIANTS["Flux2KleinPipeline"]
TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
# As the published distilled models are used, by the family whose networks they have: class, settings, guidance.
PUBLISHED: dict[str, tuple[TinyPipeline, str, dict[str, Any], float]] = {
    "LCM": (QUICK, "LCMScheduler", {}, 1.0),
    "Turbo": (QUICK, "EulerAncestralDiscreteScheduler", TRAILING, 0.0),
    "Lightning": (QUICK, "EulerDiscreteScheduler", TRAILING, 0.0),
    "Hyper": (QUICK, "DDIMScheduler", TRAILING, 0.0),
    "Hyper with TCD": (QUICK, "TCDScheduler", {}, 0.0),
    "SDE": (QUICK, "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "euler_at_final": True}, 1.0),
    "Schnell": (TINY["flux"], "FlowMatchEulerDiscreteScheduler", {"shift": 1.0}, 0.0),
    "stochastic flow": (
        TINY["flux"],
        "FlowMatchEulerDiscreteScheduler",
        {"shift": 1.0, "stochastic_sampling": True},
        0.0,
    ),
    "flow LCM": (TINY["flux"], "FlowMatchLCMScheduler", {"shift": 1.0}, 0.0),
}


def published(name: str) -> tuple[Any, TinyPipeline, float]:
    """The pipeline with that scheduler, what builds it, and the guidance it is used with."""
    family, scheduler, settings, guidance = PUBLISHED[name]
    pipe: Any = family.build()
    own = {} if family is TINY["flux"] else pipe.scheduler.config
    pipe.scheduler = getattr(diffusers, scheduler).from_config(own, **settings)
    return pipe, family, guidance


def options(family: TinyPipeline, scale: int, steps: int, **more: Any) -> dict[str, Any]:
    height, width = family.native
    size = {"height": scale * height, "width": scale * width, "num_inference_steps": steps}
    return {**family.inputs, **size, "output_type": "latent", "generator": seeded(), **more}


@pytest.mark.parametrize("name", PUBLISHED)
def test_four_steps_are_a_cascade_of_four_two_and_two_by_default(name: str) -> None:
    pipe, family, guidance = published(name)
    cascade = SelfCascade(pipe, native_size=family.native)
    height, width = family.native
    planned = cascade.plan(4 * height, 4 * width, num_inference_steps=4, guidance_scale=guidance)
    out = cascade(**options(family, 4, 4, guidance_scale=guidance))
    assert [stage.pivot_step for stage in planned] == [None, 500, 500]
    assert [stage.steps for stage in out.stages] == [4, 2, 2]
    assert [scheduled_steps(pipe.scheduler, stage) for stage in planned] == [4, 2, 2]
    assert tuple((made.stage.size, made.pivot_step) for made in out.stages) == tuple(
        (stage.size, stage.pivot_step) for stage in planned
    )
    assert all(stage.latents.isfinite().all() for stage in out.stages)


SHIFTED = [TINY["flux2"], KLEIN, TINY["stable-diffusion-3"], TINY["z-image"], TINY["qwen-image"], TINY["lumina2"]]


@pytest.mark.parametrize("family", SHIFTED, ids=lambda family: family.name)
def test_a_shifted_flow_runs_the_k_that_was_planned(family: TinyPipeline) -> None:
    cascade = SelfCascade(family.shared(), native_size=family.native)
    height, width = family.native
    for steps in (2, 4):
        size = (3 * height // 2, 2 * width)
        planned = cascade.plan(*size, num_inference_steps=steps)
        made = cascade(**options(family, 2, steps) | {"height": size[0]})
        assert [stage.pivot_step for stage in made.stages] == [stage.pivot_step for stage in planned]
        assert made.stages[0].steps == steps and made.stages[1].steps >= 1


def test_klein_at_its_published_size_is_planned_by_its_own_shift() -> None:
    """Of 1024 pixels, 4096 tokens; the scheduler's largest shift, 1.15, would have said 513."""
    cascade = SelfCascade(KLEIN.shared(), native_size=(1024, 1024))
    planned = cascade.plan(2048, 2048, num_inference_steps=4)
    at_200, at_10 = 0.00016927 * 4096 + 0.45666666, 8.73809524e-05 * 4096 + 1.89833333
    mu = at_200 + (at_10 - at_200) * (200 - 4) / 190
    last = 0.25 * np.exp(mu) / (0.25 * np.exp(mu) + 0.75)  # sigma of the last of four steps
    assert [stage.pivot_step for stage in planned] == [None, int(np.ceil(1000 * last))]
    assert [cost.steps for cost in estimate(KLEIN.shared(), planned)] == [4, 1]


def test_a_step_of_klein_is_what_one_writes_by_hand() -> None:
    pipe: Any = KLEIN.shared()
    cascade = SelfCascade(pipe, native_size=KLEIN.native)
    family = cascade.family
    base = cascade(**options(KLEIN, 1, 4)).stages[0].latents
    made = cascade(**options(KLEIN, 2, 4, preset="paper", pivot=base, generator=seeded(3))).stages[-1]
    assert made.steps == 1

    z_up = torch.nn.functional.interpolate(base, scale_factor=2, mode="bilinear", align_corners=False)
    scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
    mu = family.shift(cascade.native_size, 4)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0.25, 4), mu=mu)
    sigma = scheduler.sigmas[3]
    z_K = family.from_spatial(sigma * torch.randn(z_up.shape, generator=seeded(3)) + (1 - sigma) * z_up)
    z_K = pipe._pack_latents(z_K)
    embeds, text_ids = pipe.encode_prompt(None, prompt_embeds=KLEIN.inputs["prompt_embeds"])
    with torch.no_grad():
        flow = pipe.transformer(
            hidden_states=z_K,
            timestep=scheduler.timesteps[3:] / 1000,
            guidance=None,
            encoder_hidden_states=embeds,
            txt_ids=text_ids,
            img_ids=pipe._prepare_latent_ids(family.from_spatial(z_up)),
            return_dict=False,
        )[0]
    torch.testing.assert_close(made.latents, family.to_spatial(z_K - sigma * flow, made.size), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["LCM", "Schnell", "flow LCM"])
def test_each_stage_of_four_two_two_is_the_twin(name: str) -> None:
    pipe, family, guidance = published(name)
    cascade = SelfCascade(pipe, native_size=family.native)
    settings = {"preset": "paper", "pivot_step": 500, "guidance_scale": guidance}
    out = cascade(**options(family, 4, 4, **settings))
    kind: Any = FluxImg2ImgPipeline if family is TINY["flux"] else StableDiffusionImg2ImgPipeline
    accepted = {**pipe.components, "requires_safety_checker": False}
    twin = kind(**{key: part for key, part in accepted.items() if key in kind.__init__.__annotations__})
    twin.set_progress_bar_config(disable=True)
    generator = seeded()
    size = {"height": family.native[0], "width": family.native[1]}
    plain = {**options(family, 1, 4, guidance_scale=guidance), **size, "generator": generator}
    if name == "flow LCM":  # Flux's own pipelines leave it to PyTorch's global generator
        pipe.scheduler.step = functools.partial(pipe.scheduler.step, generator=generator)
    z = cascade.family.to_spatial(pipe(**plain).images, out.stages[0].size)
    for stage in out.stages[1:]:
        z_up = torch.nn.functional.interpolate(z, scale_factor=2, mode="bilinear", align_corners=False)
        given = {**family.inputs, "num_inference_steps": 4, "strength": 0.5, "guidance_scale": guidance}
        sides = stage.size._asdict() if kind is FluxImg2ImgPipeline else {}
        made = twin(**given, **sides, image=z_up, generator=generator, output_type="latent").images
        z = cascade.family.to_spatial(made, stage.size)
        assert torch.equal(stage.latents, z)


def test_a_distilled_class_needs_no_settings() -> None:
    """LatentConsistencyModelPipeline brings its scheduler, and a network that is told the guidance weight."""
    family = {entry.name: entry for entry in CONTRACT}["LatentConsistencyModelPipeline"]
    pipe: Any = family.shared()
    assert isinstance(pipe.scheduler, LCMScheduler)
    pipe._interrupt = True  # by an earlier call's callback; this class does not put it back
    out = SelfCascade(pipe, native_size=family.native)(**options(family, 4, 4))
    assert [stage.steps for stage in out.stages] == [4, 2, 2]


@pytest.mark.parametrize("family", [QUICK, TINY["flux"], KLEIN], ids=lambda family: family.name)
def test_one_step_cannot_be_handed_on(family: TinyPipeline) -> None:
    pipe: Any = family.build()
    trailing = TRAILING if family is QUICK else {}
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **trailing)
    cascade = SelfCascade(pipe, native_size=family.native)
    with pytest.raises(ValueError, match=r"num_inference_steps 1 leaves a stage above the base only the step from"):
        cascade(**options(family, 2, 1))


@pytest.mark.parametrize("output_type", ["pil", "latent"])
def test_interrupted_before_its_first_step_the_last_stage_is_what_it_began_with(
    output_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = SD.shared()
    prepare, calls = pipe.prepare_extra_step_kwargs, list[int]()

    def stopped(*given: Any) -> Any:
        calls.append(1)
        pipe._interrupt = len(calls) == stages
        return prepare(*given)

    stages = 10
    with monkeypatch.context() as patch:
        patch.setattr(pipe, "prepare_extra_step_kwargs", stopped)
        run(pipe, SD, num_inference_steps=4, preset="paper", output_type="latent")
        stages, _ = len(calls), calls.clear()
        made = run(pipe, SD, num_inference_steps=4, preset="paper", output_type=output_type)
    assert made.interrupted and [result.steps for result in made.stages][-1] == 0
    base, last = made.stages[0].sample.latents, made.stages[-1].sample.latents
    assert last.isfinite().all() and last.shape[-1] == 2 * base.shape[-1]
