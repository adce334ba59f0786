"""Every stage has a step to run, or the call is refused before anything runs; latents are handed on clean."""

# pyright: reportPrivateImportUsage=false

import itertools
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler

from cascade_runs import SD, SMALL, run, seeded
from selfcascade import PRESETS, SelfCascade
from selfcascade.base_models.last_timesteps import last_timesteps
from selfcascade.options.presets import Preset
from tiny import TINY

SCHEDULERS: dict[str, Any] = {
    "ddim": lambda config: SD.shared().scheduler,
    "lcm": LCMScheduler.from_config,
    "euler trailing": lambda config: EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing"),
    "euler karras": lambda config: EulerDiscreteScheduler.from_config(config, use_karras_sigmas=True),
}


def with_scheduler(name: str) -> Any:
    pipe: Any = SD.build()
    pipe.scheduler = SCHEDULERS[name](pipe.scheduler.config)
    return pipe


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("something ran")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_presets_leave_every_stage_a_step_however_few_there_are(scheduler: str) -> None:
    pipe = with_scheduler(scheduler)
    few = Preset("few", "a tenth of the steps", 0.2, 0.05, "latent-bilinear", step_share=0.1)
    cascade = SelfCascade(pipe, native_size=(64, 64))
    for preset, steps in itertools.product([*PRESETS.values(), few], [2, 3, 4, 8]):
        stages = cascade.plan(256, 256, num_inference_steps=steps, preset=preset)
        for stage in stages[1:]:
            last = max(last_timesteps(pipe.scheduler, stage.num_inference_steps))
            assert stage.pivot_step is not None and last <= stage.pivot_step <= 950, (preset.name, steps)
            assert stage.num_inference_steps <= steps, (preset.name, steps)


@pytest.mark.parametrize("scheduler", ["lcm", "euler trailing"])
def test_a_few_step_cascade_runs_as_planned(scheduler: str) -> None:
    out = run(with_scheduler(scheduler), SMALL, scale=4, num_inference_steps=4, guidance_scale=1.0)
    assert [stage.steps for stage in out.stages] == [4, 2, 2]


@pytest.mark.parametrize("name", ["flux", "qwen-image", "lumina2", "stable-diffusion-3", "wan"])
def test_flows_with_few_steps_run_every_stage(name: str) -> None:
    family = TINY[name]
    out = run(family.shared(), family, num_inference_steps=4, preset="fast")
    assert len(out.stages) == 2 and all(stage.steps >= 1 for stage in out.stages)


@pytest.mark.parametrize("steps", [1, [4, 1]])
def test_a_stage_from_pure_noise_is_refused(steps: Any) -> None:
    words = "num_inference_steps 1 leaves a stage above the base only the step from pure noise"
    with pytest.raises(ValueError, match=words):
        SelfCascade(with_scheduler("euler trailing"), native_size=(64, 64)).plan(num_inference_steps=steps)


@pytest.mark.parametrize("pivots", [10, [700, 10]])
def test_a_chosen_k_without_a_step_is_refused_by_plan_as_by_a_call(pivots: Any) -> None:
    pipe = with_scheduler("euler trailing")
    pipe.unet.forward = never
    cascade, scale = SelfCascade(pipe, native_size=(64, 64)), 4 if isinstance(pivots, list) else 2
    for call in (cascade.plan, lambda **options: cascade("a house", generator=seeded(), **options)):
        with pytest.raises(
            ValueError, match="pivot_step 10 leaves no step to run: the last of 8 scheduled steps is at"
        ):
            call(height=64 * scale, width=64 * scale, num_inference_steps=8, pivot_step=pivots)


def test_a_strength_without_a_step_is_refused_in_its_own_words() -> None:
    cascade = SelfCascade(with_scheduler("euler trailing"), native_size=(64, 64))
    words = r"strength, K = 10, leaves no step to run: .* raise strength or num_inference_steps$"
    with pytest.raises(ValueError, match=words):
        cascade.plan(height=128, width=128, num_inference_steps=8, strength=0.01)


def test_a_schedule_that_only_the_pipeline_knows_is_asked_for_before_anything_runs() -> None:
    family = TINY["flux"]
    pipe: Any = family.build()
    pipe.transformer.forward = never
    generator = seeded()
    state = generator.get_state()
    with pytest.raises(ValueError, match="pivot_step 300 leaves no step to run"):
        run(pipe, family, num_inference_steps=4, pivot_step=300, sigmas=[1.0, 0.9, 0.8, 0.7], generator=generator)
    assert torch.equal(generator.get_state(), state)
    assert isinstance(pipe.scheduler, FlowMatchEulerDiscreteScheduler) and not hasattr(pipe.scheduler, "probing")


def test_asking_for_schedules_draws_no_random_number() -> None:
    family = TINY["flux"]
    two = run(family.shared(), family, num_inference_steps=4, pivot_step=700)
    one = run(family.shared(), family, scale=1, num_inference_steps=4)
    assert torch.equal(two.stages[0].latents, one.stages[0].latents)


NOISY: dict[str, tuple[str, dict[str, Any], str]] = {
    "denoising_end": ("stable-diffusion-xl", {"denoising_end": 0.8}, "a stage hands on clean latents"),
    "denoising_start": ("stable-diffusion", {"denoising_start": 0.8}, "use pivot_step"),
    "denoise_strength": ("stable-diffusion", {"denoise_strength": 0.5}, "use pivot_step"),
    "noise_scale": ("ltx", {"noise_scale": 0.5}, "use pivot_step"),
    "latents": ("stable-diffusion", {"latents": torch.zeros(1, 4, 8, 8)}, "use pivot, or upscale"),
}


@pytest.mark.parametrize("name", NOISY)
def test_arguments_that_change_what_latents_mean_are_refused(name: str) -> None:
    family, options, words = NOISY[name]
    with pytest.raises(ValueError, match=rf"^{name} cannot be given: .*{words}"):
        run(TINY[family].shared(), TINY[family], **options)


def test_sigmas_that_end_in_noise_are_refused() -> None:
    family = TINY["stable-diffusion-xl"]
    pipe: Any = family.build()
    pipe.unet.forward = never
    with pytest.raises(ValueError, match=r"sigmas end at 3, so a stage would hand on noisy latents; end them at 0"):
        run(pipe, family, sigmas=[14.6, 8.0, 5.0, 3.0])


def test_tensors_that_hold_no_numbers_are_refused() -> None:
    embeds = torch.full((1, 7, 16), torch.nan)
    with pytest.raises(ValueError, match="prompt_embeds has values that are not finite"):
        run(SD.shared(), SMALL, prompt=None, prompt_embeds=embeds)
