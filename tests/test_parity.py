"""A stage is the official image-to-image twin, bit for bit; one stage is the plain pipeline, bit for bit."""

import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.functional import interpolate

from selfcascade import SelfCascade
from tiny import TINY, TinyPipeline

K = 700
# The twins of the newer pipelines do not round `strength` to whole steps, the older ones round it down.
FLOORING = {"stable-diffusion", "stable-diffusion-xl", "animatediff", "wan"}
SCHEDULERS = [
    "DDIMScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
]


def cascade_and_twin(family: TinyPipeline, pipe: Any, steps: int, **twin_arguments: Any) -> tuple[Any, Any, int]:
    """(latents of the cascade's second stage, of the twin from the same pivot and generator, steps that ran)."""
    height, width = family.native
    size = {"height": 2 * height, "width": 2 * width}
    settings = {**family.inputs, "num_inference_steps": steps, "output_type": "latent"}
    cascade = SelfCascade(pipe, native_size=family.native)
    out = cascade(**settings, **size, pivot_step=K, generator=torch.Generator().manual_seed(3))
    assert [stage.size for stage in out.stages] == [family.native, (2 * height, 2 * width)]

    generator = torch.Generator().manual_seed(3)
    plain = pipe(**settings, height=height, width=width, generator=generator, return_dict=False)[0]
    pivot = cascade.family.to_spatial(pipe, plain, out.stages[0].size)
    assert torch.equal(pivot, out.stages[0].latents)
    folded = pivot.transpose(1, 2).flatten(0, 1) if pivot.ndim == 5 else pivot
    larger = interpolate(folded, scale_factor=2, mode="bilinear", align_corners=False)
    if pivot.ndim == 5:
        larger = larger.unflatten(0, (1, -1)).transpose(1, 2)

    assert family.twin is not None
    twin: Any = family.twin(pipe)
    # Timesteps are as the plain call left them: the stage began at the last `steps` of them.
    first = (len(pipe.scheduler.timesteps) - out.stages[1].steps) // getattr(pipe.scheduler, "order", 1)
    strength = (steps - first + (1e-3 if family.name in FLOORING else -1e-3)) / steps
    accepted = inspect.signature(twin.__call__).parameters
    settings |= {name: value for name, value in size.items() if name in accepted}
    settings = {name: value for name, value in settings.items() if name in accepted}
    made = twin(**settings, **twin_arguments_of(twin, larger, twin_arguments), strength=strength, generator=generator)
    result = made[0] if isinstance(made, tuple) else getattr(made, "frames" if family.video else "images")
    return out.stages[1].latents, cascade.family.to_spatial(pipe, result, out.stages[1].size), out.stages[1].steps


def twin_arguments_of(twin: Any, larger: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """The pivot under the name the twin has for it."""
    if "video" in inspect.signature(twin.__call__).parameters:
        return given
    return {"image": larger, **given}


@pytest.mark.parametrize("steps", [8, 25])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_gives_the_twins_bits(name: str, steps: int) -> None:
    family = TINY["stable-diffusion"]
    pipe: Any = family.build()
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    ours, theirs, ran = cascade_and_twin(family, pipe, steps)
    assert 0 < ran < 2 * steps - 1
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_every_timestep_spacing_gives_the_twins_bits(name: str, spacing: str) -> None:
    family = TINY["stable-diffusion"]
    pipe: Any = family.build()
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, timestep_spacing=spacing)
    ours, theirs, _ = cascade_and_twin(family, pipe, 10)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("karras", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_karras_sigmas_give_the_twins_bits(karras: str) -> None:
    family = TINY["stable-diffusion"]
    pipe: Any = family.build()
    pipe.scheduler = getattr(diffusers, karras).from_config(pipe.scheduler.config, use_karras_sigmas=True)
    ours, theirs, _ = cascade_and_twin(family, pipe, 12)
    assert torch.equal(ours, theirs)


IMAGE_TWINS = ["stable-diffusion-xl", "stable-diffusion-3", "flux", "chroma", "qwen-image", "z-image"]


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_image_families_give_the_twins_bits(name: str) -> None:
    family = TINY[name]
    pipe: Any = family.build()
    extra = {"guidance_scale": 3.5} if name in ("flux", "qwen-image") else {}
    family = TinyPipeline(**{**vars(family), "inputs": {**family.inputs, **extra}})
    ours, theirs, _ = cascade_and_twin(family, pipe, 10)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"])
def test_sdxl_gives_the_twins_bits_with_other_schedulers(scheduler: str) -> None:
    family = TINY["stable-diffusion-xl"]
    pipe: Any = family.build()
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    ours, theirs, _ = cascade_and_twin(family, pipe, 10)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["animatediff", "wan"])
def test_video_families_give_the_twins_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """These twins take noise-free latents nowhere, so their `prepare_latents` adds its noise to our pivot instead."""
    family = TINY[name]
    pipe: Any = family.build()
    height, width = family.native
    settings = {**family.inputs, "num_inference_steps": 10, "output_type": "latent"}
    out = SelfCascade(pipe, native_size=family.native)(
        **settings, height=2 * height, width=2 * width, pivot_step=K, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(3)
    pivot = pipe(**settings, height=height, width=width, generator=generator, return_dict=False)[0]
    frames = interpolate(pivot.transpose(1, 2).flatten(0, 1), scale_factor=2, mode="bilinear")
    larger = frames.unflatten(0, (1, -1)).transpose(1, 2)

    assert family.twin is not None
    twin: Any = family.twin(pipe)

    def prepare_latents(*args: Any, **kwargs: Any) -> torch.Tensor:
        given = inspect.signature(type(twin).prepare_latents).bind(twin, *args, **kwargs).arguments
        noise = randn_tensor(larger.shape, generator, larger.device, larger.dtype)
        timestep = given["timestep"]
        if hasattr(twin.scheduler, "add_noise"):
            return twin.scheduler.add_noise(larger, noise, timestep)
        return twin.scheduler.scale_noise(larger, timestep, noise)

    monkeypatch.setattr(twin, "prepare_latents", prepare_latents)
    accepted = inspect.signature(twin.__call__).parameters
    settings = {key: value for key, value in settings.items() if key in accepted and key != "num_frames"}
    video = [torch.zeros(3, 2 * height, 2 * width)] * 5
    strength = (out.stages[1].steps + 1e-3) / 10
    size = {"height": 2 * height, "width": 2 * width}
    theirs = twin(video=video, strength=strength, **size, **settings, generator=generator, return_dict=False)[0]
    assert torch.equal(out.stages[1].latents, theirs)


@pytest.mark.parametrize("family", TINY.values(), ids=TINY.keys())
def test_one_stage_is_the_plain_pipeline(family: TinyPipeline) -> None:
    height, width = family.native
    settings = {**family.inputs, "height": height, "width": width, "num_inference_steps": 3}
    for output_type in ("pt", "latent"):
        pipe: Any = family.build()
        seeded = torch.Generator().manual_seed(5)
        plain = pipe(**settings, output_type=output_type, generator=seeded, return_dict=False)[0]
        out = SelfCascade(family.build(), native_size=family.native)(
            **settings, output_type=output_type, generator=torch.Generator().manual_seed(5)
        )
        ours = out.frames if family.video else out.images
        assert len(out.stages) == 1
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(plain))
