"""Every family through the same hands, and what can be none: schedulers and pipelines that are refused."""

import inspect
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    KDPM2AncestralDiscreteScheduler,
    LTXEulerAncestralRFScheduler,
)
from PIL import Image

from cascade_runs import FAMILIES, SD, SMALL, run
from selfcascade import SelfCascade, load_bundled
from selfcascade.base_models.stage_scheduler import stage_scheduler
from tiny import TINY, TinyPipeline

# Where no configuration says what a family was trained at, its published models do.
STATED = dict.fromkeys(("z-image", "flux", "chroma", "qwen-image", "flux2"), (1024, 1024))
STATED |= {"wan": (480, 832), "ltx": (512, 704)}


@FAMILIES
def test_every_family_runs_two_stages_and_repeats_them(family: TinyPipeline) -> None:
    pipe = family.shared()
    assert SelfCascade(pipe).native_size == STATED.get(family.name, family.native)
    steps = {"num_inference_steps": family.steps}
    made = [run(pipe, family, upsampling=name, **steps).stages for name in ("latent-bilinear", "rgb", "rgb")]
    for base, last in made:
        assert last.latents.isfinite().all()
        assert last.latents.shape[-1] == 2 * base.latents.shape[-1]
    bilinear, rgb, again = (stages[1].latents for stages in made)
    assert torch.equal(rgb, again) and not torch.equal(rgb, bilinear)


@pytest.mark.parametrize("name", ["stable-diffusion", "flux", "animatediff", "wan"])
def test_bicubic_latents_are_a_way_of_their_own(name: str) -> None:
    family = TINY[name]
    bilinear, bicubic = (
        run(family.shared(), family, upsampling=f"latent-{kind}").stages[1].latents for kind in ("bilinear", "bicubic")
    )
    assert bicubic.isfinite().all() and not torch.equal(bicubic, bilinear)


@FAMILIES
def test_last_latents_are_the_same_whether_decoded_or_not(family: TinyPipeline) -> None:
    pipe = family.shared()
    height, width = 3 * family.native[0] // 2, 5 * family.native[1] // 2
    size = {"height": height, "width": width, "num_inference_steps": family.steps}
    decoded = run(pipe, family, **size, output_type="pt")
    assert (decoded.frames if family.video else decoded.images).shape[-2:] == (height, width)
    latents = run(pipe, family, **size).stages[1].latents
    assert latents.shape[-2:] == (height // 8, width // 8)
    assert torch.equal(decoded.stages[1].latents, latents)


@FAMILIES
def test_the_familys_decode_and_encode_are_inverse_scalings(family: TinyPipeline) -> None:
    pipe: Any = family.shared()
    cascade = SelfCascade(pipe, native_size=family.native)
    z = run(pipe, family, scale=1, num_inference_steps=1).stages[0].latents
    there_and_back = cascade.family.from_vae(cascade.family.to_vae(z))
    torch.testing.assert_close(there_and_back, z, rtol=1e-5, atol=1e-5)
    spatial = cascade.family.from_spatial(z)
    assert spatial.numel() == z.numel()


def test_a_dynamic_shift_is_not_extrapolated_with_the_size() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.15)
    tail = stage_scheduler(scheduler, 700, base_mu=0.5)
    assert inspect.signature(tail.set_timesteps) == inspect.signature(scheduler.set_timesteps)
    tail.set_timesteps(20, mu=4.0)
    scheduler.set_timesteps(20, mu=1.15)
    assert torch.equal(tail.timesteps, scheduler.timesteps[scheduler.timesteps <= 700])
    assert torch.equal(tail.sigmas, scheduler.sigmas[-len(tail.sigmas) :])
    whole = stage_scheduler(scheduler, None)
    whole.set_timesteps(20, mu=4.0)
    scheduler.set_timesteps(20, mu=4.0)
    assert torch.equal(whole.timesteps, scheduler.timesteps)


@pytest.mark.parametrize(
    "scheduler",
    [
        EDMEulerScheduler(),
        IPNDMScheduler(),
        LTXEulerAncestralRFScheduler(),
        FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_unsupported_schedulers_are_refused_with_what_to_use(scheduler: Any) -> None:
    pipe: Any = SD.build()
    pipe.scheduler = scheduler
    name = type(scheduler).__name__
    words = "does not number .* use pipe.scheduler = DDIMScheduler|is for models that predict a flow, .*; use"
    with pytest.raises(ValueError, match=rf"^scheduler {name} ({words})"):
        SelfCascade(pipe)


def test_unsupported_pipelines_are_refused_with_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"object is not supported as a base model; give a diffusers pipeline"):
        SelfCascade(object())
    assert SD.twin is not None
    with pytest.raises(ValueError, match=r"StableDiffusionImg2ImgPipeline is not supported as a base model"):
        SelfCascade(SD.twin(SD.shared()))
    with pytest.raises(ValueError, match="native must be two whole numbers from 1 to 16384, not 128"):
        SelfCascade(SD.shared(), native_size=128)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="upsamplers must be FeatureUpsamplers or None, not str"):
        SelfCascade(SD.shared(), upsamplers="full")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "most"), [("auraflow", 512), ("stable-diffusion-3", 384), ("lumina2", 512), ("z-image", 512)]
)
def test_sizes_beyond_the_models_positions_are_refused_while_planning(name: str, most: int) -> None:
    family = TINY[name]
    pipe: Any = family.shared()
    assert run(pipe, family, height=64, width=most, num_inference_steps=2).images.shape[-1] == most // 8
    cascade = SelfCascade(pipe, native_size=family.native)
    assert cascade.plan(most, most)[-1].size == (most, most)
    said = f"64x{most + 16} is too large for {type(pipe).__name__}, whose positions end at {most} pixels a side"
    with pytest.raises(ValueError, match=said):
        cascade.plan(64, most + 16)
    with pytest.raises(ValueError, match=said):
        cascade.upscale(Image.new("RGB", (most // 2, 32)), height=64, width=most + 16)


def test_too_many_steps_for_the_schedule_are_refused() -> None:
    with pytest.raises(ValueError, match="use fewer"):
        run(SD.shared(), num_inference_steps=1000)


def test_a_schedule_with_values_that_are_not_finite_is_refused_while_planning() -> None:
    """Between sigma 319 and 0.0008 single precision knows 0 alone, whose timestep is not a number."""
    pipe: Any = SMALL.build()
    betas = {"trained_betas": load_bundled().scheduler.config.trained_betas, "timestep_spacing": "linspace"}
    pipe.scheduler = KDPM2AncestralDiscreteScheduler.from_config(pipe.scheduler.config, **betas)
    cascade = SelfCascade(pipe, native_size=SMALL.native)
    assert cascade.plan(num_inference_steps=3)[0].num_inference_steps == 3
    said = "num_inference_steps of 2 gives the KDPM2AncestralDiscreteScheduler timesteps that are not finite; use more"
    with pytest.raises(ValueError, match=said):
        cascade.plan(num_inference_steps=2)


def test_a_pivot_step_below_the_schedule_is_refused() -> None:
    pipe: Any = SD.build()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    with pytest.raises(ValueError, match=r"pivot_step 100 leaves no step to run: the last of 4 .* is at 249"):
        run(pipe, pivot_step=100)
