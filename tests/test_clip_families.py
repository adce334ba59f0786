"""Families of clips: what their pipelines call things, which lengths they make, and what is refused beforehand."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from cascade_runs import run, seeded
from selfcascade import SelfCascade
from selfcascade.base_models.pivot_controls import x_0_weights
from selfcascade.base_models.renoising import add_noise_at_start
from selfcascade.base_models.stage_scheduler import noise_timesteps, stage_scheduler
from tiny.everything import CONTRACT

ENTRIES = {entry.name: entry for entry in CONTRACT}


def cascade_of(name: str) -> SelfCascade:
    return SelfCascade(ENTRIES[name].build(), native_size=ENTRIES[name].native)


def test_a_schedule_that_counts_from_noise_is_noised_and_read_as_others_are() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    tail = stage_scheduler(scheduler, 700)
    tail.set_timesteps(10)
    assert noise_timesteps(tail)[0] <= 700 and float(noise_timesteps(tail)[0]) == pytest.approx(667, abs=1)
    sigma = float(noise_timesteps(tail)[0]) / 1000
    z_0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    z_K = add_noise_at_start(tail, z_0, noise)
    torch.testing.assert_close(z_K, (1 - sigma) * z_0 + sigma * noise)
    # Its networks say z_0 - eps, along which it steps to the picture.
    a, b = x_0_weights(scheduler, scheduler_timestep(scheduler, sigma))
    torch.testing.assert_close(a * z_K + b * (z_0 - noise), z_0, atol=1e-5, rtol=1e-5)
    tail.set_begin_index(0)
    for timestep in tail.timesteps:
        z_K = tail.step(z_0 - noise, timestep, z_K, return_dict=False)[0]
    torch.testing.assert_close(z_K, z_0, atol=1e-5, rtol=1e-5)


def scheduler_timestep(scheduler: Any, sigma: float) -> torch.Tensor:
    """The timestep of the ten-step schedule at this share of noise."""
    scheduler.set_timesteps(10)
    return scheduler.timesteps[(1000 - scheduler.timesteps - 1000 * sigma).abs().argmin()]


@pytest.mark.parametrize(("name", "own"), [("sana-video", "frames"), ("latte", "video_length")])
def test_num_frames_is_the_pipelines_own_word_for_it(name: str, own: str) -> None:
    family, cascade = ENTRIES[name], cascade_of(name)
    count = family.inputs[own]
    settings = {**family.inputs, "num_inference_steps": 2, "output_type": "latent", "height": family.native[0]}
    said = cascade(**settings, generator=seeded()).frames
    others = {key: value for key, value in settings.items() if key != own}
    assert torch.equal(cascade(**others, num_frames=count, generator=seeded()).frames, said)
    with pytest.raises(ValueError, match=f"num_frames and {own} are the same"):
        cascade(**settings, num_frames=count)


def test_a_clip_of_another_length_than_the_model_is_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="num_frames must be 4, the length that LattePipeline is made for, not 8"):
        run(ENTRIES["latte"].build(), ENTRIES["latte"], video_length=8)


def test_a_frame_of_padding_is_made_and_dropped() -> None:
    family, cascade = ENTRIES["cogvideox-1.5"], cascade_of("cogvideox-1.5")
    z = torch.randn(1, 4, cascade.family.latent_frames(9), 4, 4, generator=seeded())
    assert z.shape[2] == 4 and cascade.family.frames_of(4) == 9
    pixels = cascade.family.decode(z)
    assert pixels.shape[2] == 9
    other = torch.cat([torch.zeros_like(z[:, :, :1]), z[:, :, 1:]], 2)
    assert torch.equal(cascade.family.decode(other), pixels)
    again = cascade.family.encode(pixels)
    assert again.shape == z.shape and torch.equal(again[:, :, 0], again[:, :, 1])
    inputs = {**family.inputs, "num_inference_steps": 2, "output_type": "np", "generator": seeded()}
    clip = np.zeros((9, 32, 32, 3), np.uint8)
    inputs.pop("num_frames")
    assert cascade.upscale(clip, **inputs).frames.shape == (1, 9, 64, 64, 3)


@pytest.mark.parametrize("name", ["cogvideox-1.5"])
def test_latents_of_an_earlier_call_are_taken_up_at_their_length(name: str) -> None:
    family = ENTRIES[name]
    steps = {"num_inference_steps": family.steps, "height": 64, "width": 64, "output_type": "latent"}
    cascade = cascade_of(name)
    whole = cascade(**family.inputs, **steps, generator=seeded())
    rest = cascade(**family.inputs, **steps, generator=seeded(), pivot=whole.stages[0].latents)
    assert rest.frames.shape == whole.frames.shape


@pytest.mark.parametrize("name", ["hunyuan-video-1.5", "motif-video"])
def test_guidance_that_is_set_elsewhere_is_refused_while_planning(name: str) -> None:
    cascade = cascade_of(name)
    with pytest.raises(ValueError, match=r"guidance_scale is not a keyword of \w+; use pipe.guider = pipe.guider.new"):
        cascade.plan(guidance_scale=3.0)
    with pytest.raises(ValueError, match=r"guidance_scale is not a keyword of"):
        cascade(**ENTRIES[name].inputs, guidance_scale=3.0)


def test_embeddings_are_counted_whatever_they_are_called() -> None:
    family, cascade = ENTRIES["kandinsky-5-video"], cascade_of("kandinsky-5-video")
    clip = np.zeros((5, 32, 32, 3), np.uint8)
    inputs = {key: value for key, value in family.inputs.items() if key != "num_frames"}
    out = cascade.upscale([clip], **inputs, num_inference_steps=2, output_type="latent", generator=seeded())
    assert len(out.frames) == 1
    with pytest.raises(ValueError, match="clip has 2 clips, and there are 1 prompts"):
        cascade.upscale([clip, clip], **inputs)


def test_mochi_needs_two_steps() -> None:
    with pytest.raises(ValueError, match="num_inference_steps must be at least 2 for MochiPipeline, not 1"):
        cascade_of("mochi").plan(num_inference_steps=1)


def test_a_scheduler_that_counts_the_other_way_is_refused() -> None:
    for name, own in (("mochi", True), ("hunyuan-video", False)):
        pipe: Any = ENTRIES[name].build()
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=not own)
        with pytest.raises(ValueError, match=rf"; use pipe.scheduler = .*invert_sigmas={own}"):
            SelfCascade(pipe)
