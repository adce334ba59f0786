"""A stage is the official image-to-image twin, bit for bit; one stage is the plain pipeline, bit for bit."""

import inspect
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.functional import interpolate

from cascade_runs import QUICK
from schedulers import SCHEDULERS, with_scheduler
from selfcascade import SelfCascade
from tiny import TINY, TinyPipeline

K = 700
# The twins of the newer pipelines do not round `strength` to whole steps, the older ones round it down.
FLOORING = {"stable-diffusion", "stable-diffusion-xl", "animatediff", "wan"}


def defaults_of_scheduler(name: str) -> set[str]:
    """Names of a scheduler's settings."""
    return {*inspect.signature(getattr(diffusers, name).__init__).parameters}


def cascade_and_twin(family: TinyPipeline, pipe: Any, steps: int, **twin_arguments: Any) -> tuple[Any, Any, int]:
    """(latents of the cascade's second stage, of the twin from the same pivot and generator, steps that ran)."""
    height, width = family.native
    size = {"height": 2 * height, "width": 2 * width}
    settings = {**family.inputs, "num_inference_steps": steps, "output_type": "latent"}
    cascade = SelfCascade(pipe, native_size=family.native)
    out = cascade(**settings, **size, preset="paper", pivot_step=K, generator=torch.Generator().manual_seed(3))
    assert [stage.size for stage in out.stages] == [family.native, (2 * height, 2 * width)]

    generator = torch.Generator().manual_seed(3)
    plain = pipe(**settings, height=height, width=width, generator=generator, return_dict=False)[0]
    pivot = cascade.family.to_spatial(plain, out.stages[0].size)
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
    return out.stages[1].latents, cascade.family.to_spatial(result, out.stages[1].size), out.stages[1].steps


def twin_arguments_of(twin: Any, larger: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """The pivot under the name the twin has for it."""
    if "video" in inspect.signature(twin.__call__).parameters:
        return given
    return {"image": larger, **given}


# Multistep schedulers lower their order at the end of schedules of under 15 steps: of the whole, not of the tail.
LOWERING = [(name, config) for name, config in SCHEDULERS if "lower_order_final" in defaults_of_scheduler(name)]


@pytest.mark.parametrize(
    ("name", "config", "steps"), [(*one, 8) for one in SCHEDULERS] + [(*one, 16) for one in LOWERING]
)
def test_every_scheduler_gives_the_twins_bits(name: str, config: dict[str, Any], steps: int) -> None:
    pipe = with_scheduler(QUICK, name, **config)
    ours, theirs, ran = cascade_and_twin(QUICK, pipe, steps)
    assert 0 < ran < len(pipe.scheduler.timesteps)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_every_timestep_spacing_gives_the_twins_bits(name: str, spacing: str) -> None:
    pipe = with_scheduler(QUICK, name, timestep_spacing=spacing)
    ours, theirs, _ = cascade_and_twin(QUICK, pipe, 10)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["karras", "exponential"])
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_other_spacings_of_sigma_give_the_twins_bits(name: str, kind: str) -> None:
    pipe = with_scheduler(QUICK, name, **{f"use_{kind}_sigmas": True})
    ours, theirs, _ = cascade_and_twin(QUICK, pipe, 12)
    assert torch.equal(ours, theirs)


IMAGE_TWINS = ["stable-diffusion-xl", "stable-diffusion-3", "flux", "chroma", "qwen-image", "z-image"]


@pytest.mark.parametrize("name", IMAGE_TWINS)
def test_image_families_give_the_twins_bits(name: str) -> None:
    family = TINY[name]
    pipe: Any = family.build()
    extra = {"guidance_scale": 3.5} if name in ("flux", "qwen-image") else {}
    family = TinyPipeline(**{**vars(family), "inputs": {**family.inputs, **extra}})
    ours, theirs, _ = cascade_and_twin(family, pipe, 6)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler"])
def test_sdxl_gives_the_twins_bits_with_other_schedulers(scheduler: str) -> None:
    family = TINY["stable-diffusion-xl"]
    ours, theirs, _ = cascade_and_twin(family, with_scheduler(family, scheduler), 8)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("FlowMatchHeunDiscreteScheduler", {}),
        ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ],
)
def test_flow_schedulers_give_the_twins_bits(name: str, config: dict[str, Any]) -> None:
    family = TINY["stable-diffusion-3"]
    ours, theirs, _ = cascade_and_twin(family, with_scheduler(family, name, **config), 8)
    assert torch.equal(ours, theirs)


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


@pytest.mark.parametrize(
    ("name", "scheduler", "config"),
    [
        ("animatediff", "DDIMScheduler", {}),
        ("text-to-video-synthesis", "DDIMScheduler", {}),
        ("text-to-video-synthesis", "DPMSolverMultistepScheduler", {}),
        ("cogvideox", "CogVideoXDDIMScheduler", {}),
        ("cogvideox", "CogVideoXDPMScheduler", {}),
        ("wan", "FlowMatchEulerDiscreteScheduler", {}),
        ("wan", "UniPCMultistepScheduler", FLOW),
    ],
)
def test_video_families_give_the_twins_bits(
    name: str, scheduler: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These twins take noise-free latents nowhere, so their `prepare_latents` adds its noise to our pivot instead."""
    family = TINY[name]
    pipe = with_scheduler(family, scheduler, **config)
    height, width = family.native
    size = {"height": 2 * height, "width": 2 * width}
    settings = {**family.inputs, "num_inference_steps": 6, "output_type": "latent"}
    cascade = SelfCascade(pipe, native_size=family.native)
    out = cascade(**settings, **size, preset="paper", pivot_step=K, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    plain = pipe(**settings, height=height, width=width, generator=generator, return_dict=False)[0]
    pivot = cascade.family.to_spatial(plain, out.stages[0].size)
    frames = interpolate(pivot.transpose(1, 2).flatten(0, 1), scale_factor=2, mode="bilinear")
    larger = cascade.family.from_spatial(frames.unflatten(0, (1, -1)).transpose(1, 2))

    assert family.twin is not None
    twin: Any = family.twin(pipe)

    def prepare_latents(*args: Any, **kwargs: Any) -> torch.Tensor:
        timestep = inspect.signature(type(twin).prepare_latents).bind(twin, *args, **kwargs).arguments["timestep"]
        noise = randn_tensor(larger.shape, generator, larger.device, larger.dtype)
        if hasattr(twin.scheduler, "add_noise"):
            return twin.scheduler.add_noise(larger, noise, timestep)
        return twin.scheduler.scale_noise(larger, timestep, noise)

    monkeypatch.setattr(twin, "prepare_latents", prepare_latents)
    accepted = inspect.signature(twin.__call__).parameters
    settings = {key: value for key, value in (settings | size).items() if key in accepted and key != "num_frames"}
    settings.setdefault("guidance_scale", inspect.signature(pipe.__call__).parameters["guidance_scale"].default)
    video = [torch.zeros(3, 2 * height, 2 * width)] * family.inputs["num_frames"]
    strength = (out.stages[1].steps + 1e-3) / 6
    theirs = twin(video=video, strength=strength, **settings, generator=generator, return_dict=False)[0]
    assert torch.equal(out.stages[1].latents, cascade.family.to_spatial(theirs, out.stages[1].size))


OUTPUT_TYPES = [(name, "pt") for name in TINY]  # latents: test_variants.py
OUTPUT_TYPES += [(name, kind) for name in ("stable-diffusion", "flux", "animatediff", "wan") for kind in ("np", "pil")]


@pytest.mark.parametrize(("name", "output_type"), OUTPUT_TYPES)
def test_one_stage_is_the_plain_pipeline(name: str, output_type: str) -> None:
    family = TINY[name]
    height, width = family.native
    pipe: Any = family.shared()
    settings = {**family.inputs, "num_inference_steps": family.steps, "output_type": output_type}
    size = {"height": height, "width": width}
    out = SelfCascade(pipe, native_size=family.native)(**settings, **size, generator=torch.Generator().manual_seed(5))
    plain = pipe(**settings, **size, generator=torch.Generator().manual_seed(5), return_dict=False)[0]
    ours = out.frames if family.video else out.images
    assert len(out.stages) == 1
    assert np.array_equal(as_array(ours), as_array(plain))


def as_array(made: Any) -> np.ndarray:
    """Tensors, arrays, or lists of pictures (of lists of pictures, for video), as one array."""
    return np.stack([as_array(item) for item in made]) if isinstance(made, list) else np.asarray(made)
