"""Controls, pictures or tensors, have each stage's size; several ControlNets and T2I-adapters go on working."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from cascade_runs import run
from selfcascade.base_models.stage_controls import at_size
from selfcascade.cascade import Size
from tiny.everything import CONTRACT

NAMES = (
    "FluxControlNetPipeline",
    "FluxControlPipeline",
    "StableDiffusion3ControlNetPipeline",
    "QwenImageControlNetPipeline",
    "HunyuanDiTControlNetPipeline",
    "CogView4ControlPipeline",
    "z-image-controlnet",
)
ENTRIES = {entry.name: entry for entry in CONTRACT}


def picture(height: int, width: int) -> Image.Image:
    """Waves: nothing that eight bits or a filter's ringing would cut."""
    rows, columns = np.mgrid[:height, :width] / 64
    waves = [0.5 + 0.3 * np.sin(2 * np.pi * (rows * k + columns)) for k in range(3)]
    return Image.fromarray((255 * np.stack(waves, -1)).round().astype(np.uint8))


def tensor_of(image: Image.Image) -> torch.Tensor:
    """As the pipelines' own processors make it, (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255 * 2 - 1


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_controls_every_stage_as_the_picture_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = ENTRIES[name]
    pipe: Any = family.shared()
    prepare, seen = pipe.prepare_image, []

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(prepare(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(pipe, "prepare_image", watched)
    height, width = (2 * side for side in family.native)
    image = picture(height, width)
    sizes: list[Any] = []
    made: list[Any] = []
    for control in (image, tensor_of(image)):
        seen.clear()
        made.append(run(pipe, family, num_inference_steps=family.steps, control_image=control))
        sizes.append([(item.shape, item.clone()) for item in seen])
    assert {tuple(shape[-2:]) for shape, _ in sizes[0]} == {family.native, (height, width)}
    assert [shape for shape, _ in sizes[0]] == [shape for shape, _ in sizes[1]]
    for (_, ours), (_, theirs) in zip(*sizes, strict=True):
        # A picture is rounded to eight bits as it is resized along each side: one level, 2 / 255.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2.01 / 255)
    blank = run(pipe, family, num_inference_steps=family.steps, control_image=torch.zeros(1, 3, height, width))
    for ours, theirs, other in zip(*(result.stages for result in (*made, blank)), strict=True):
        rounding, effect = ((stage.latents - theirs.latents).abs().max() for stage in (ours, other))
        assert rounding < effect / 5


def test_only_tensors_of_pixels_are_resized() -> None:
    image, latents = picture(64, 64), torch.zeros(1, 4, 8, 8)
    assert at_size(image, Size(32, 32)) is image and at_size(latents, Size(32, 32)) is latents
    pixels = tensor_of(image)
    assert at_size(pixels, Size(64, 64)) is pixels
    first, second = at_size([pixels, image], Size(32, 48))
    assert first.shape == (1, 3, 32, 48) and second is image
    assert first.min() >= pixels.min() and first.max() <= pixels.max()


ADAPTERS = ("StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline")


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_t2i_adapter_sees_a_tensor_at_every_stage_as_it_sees_the_picture(name: str) -> None:
    family = ENTRIES[name]
    pipe: Any = family.shared()
    seen: list[torch.Tensor] = []
    height, width = (2 * side for side in family.native)
    image = picture(height, width)
    with pipe.adapter.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        made = [
            run(pipe, family, num_inference_steps=2, image=control).stages[-1].latents
            for control in (image, tensor_of(image) / 2 + 0.5, Image.new("RGB", (width, height)))
        ]
    assert [tuple(control.shape[-2:]) for control in seen] == 3 * [family.native, (height, width)]
    for ours, theirs in zip(seen[:2], seen[2:4], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2.01 / 510)
    assert (made[0] - made[1]).abs().max() < (made[0] - made[2]).abs().max() / 5


# Qwen-Image's pipeline takes no list, and its own class for several ControlNets one union alone.
SEVERAL = {
    "StableDiffusionControlNetPipeline": "image",
    "StableDiffusionControlNetPAGPipeline": "image",
    "StableDiffusionXLControlNetPipeline": "image",
    "StableDiffusionXLControlNetPAGPipeline": "image",
    "AnimateDiffControlNetPipeline": "conditioning_frames",
    "FluxControlNetPipeline": "control_image",
    "StableDiffusion3ControlNetPipeline": "control_image",
    "HunyuanDiTControlNetPipeline": "control_image",
}


@pytest.mark.parametrize("name", SEVERAL)
def test_two_controlnets_of_half_the_weight_are_one_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    family = ENTRIES[name]
    one: Any = family.shared()
    two: Any = type(one)(**{**one.components, "controlnet": [one.controlnet] * 2})
    two.set_progress_bar_config(disable=True)
    control: Any = tensor_of(picture(*(2 * side for side in family.native)))
    if family.video:
        control = [picture(*family.native)] * family.inputs["num_frames"]
    settings = {"num_inference_steps": 2, "preset": "paper"}
    alone = run(one, family, **settings, **{SEVERAL[name]: control, "controlnet_conditioning_scale": 1.0})
    both = run(two, family, **settings, **{SEVERAL[name]: [control] * 2, "controlnet_conditioning_scale": [0.5, 0.5]})
    free = run(one, family, **settings, **{SEVERAL[name]: control, "controlnet_conditioning_scale": 0.0})
    for ours, theirs, other in zip(both.stages, alone.stages, free.stages, strict=True):
        torch.testing.assert_close(ours.latents, theirs.latents, atol=1e-4, rtol=1e-4)
        assert (ours.latents - other.latents).abs().max() > 1e-2
