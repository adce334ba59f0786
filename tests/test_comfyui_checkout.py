"""The nodes on a real ComfyUI, `COMFYUI_PATH=DIR make test-comfyui`: the calls they make, pictures as the library's.

The bundled U-Net is loaded as ComfyUI's own MODEL. ComfyUI's "simple" schedule with "euler" is DDIM with trailing
timesteps, the bundled model's scheduler.
"""

import importlib
import inspect
from functools import reduce
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_checkout import (
    CFG,
    PROMPT,
    SEED,
    STEPS,
    bundled,
    grey_levels,
    inference_mode,
    library,
    nodes,
    pipe,
    sampled,
    save,
)
from comfyui_nodes import CALLS, NAMES
from selfcascade import SelfCascade
from selfcascade.models import load_upsamplers

__all__ = ["bundled", "inference_mode", "nodes", "pipe"]  # fixtures


def resolved(path: str) -> Any:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[length:], module)
    raise AssertionError(f"{path} is not there")


@pytest.mark.parametrize("path", [*CALLS, *NAMES])
def test_comfyui_has_every_call_with_its_arguments(nodes: ModuleType, path: str) -> None:
    found = resolved(path)
    if path in CALLS:
        assert set(CALLS[path]) <= set(inspect.signature(found).parameters)


CASES: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper"},
    "anchor": {"preset": "paper", "anchor": 0.3, "energy": 1.0},
    "quality": {"preset": "quality"},
    "fast": {"preset": "fast"},
    "local": {"preset": "quality", "attention": "local"},
    "bicubic, K a stage": {"preset": "fast", "upsampling": "latent-bicubic", "pivot_step": (600, 300)},
}


@pytest.mark.parametrize("scale", [2.0, 4.0], ids=["4x", "16x"])
@pytest.mark.parametrize("case", CASES)
def test_a_preset_is_the_librarys(nodes: ModuleType, bundled: Any, pipe: Any, case: str, scale: float) -> None:
    ours = dict(CASES[case])
    if "pivot_step" in ours:
        ours["pivot_step"] = ours["pivot_step"][: 1 if scale == 2 else 2]
    values = {**ours, **({"pivot_step": ", ".join(map(str, ours["pivot_step"]))} if "pivot_step" in ours else {})}
    made, base, told = sampled(nodes, bundled, scale=scale, **values)
    out = library(pipe, scale, **ours)
    assert told.count("K =") == len(out.stages) - 1
    assert grey_levels(bundled, made, out.images) <= 1
    assert torch.allclose(base["samples"] * pipe.vae.config.scaling_factor, out.stages[0].latents, atol=2e-3)
    save(bundled, made, f"{case}-{scale:g}")


TUNED_CASES: dict[str, dict[str, Any]] = {
    "theirs": {},
    "local": {"attention": "local"},
    "quality, local": {"preset": "quality", "attention": "local"},
}


@pytest.mark.parametrize("scale", [2.0, 4.0], ids=["4x", "16x"])
@pytest.mark.parametrize("case", TUNED_CASES)
@pytest.mark.parametrize("name", ["full", "micro"])
def test_the_tuned_version_is_the_librarys(
    nodes: ModuleType, bundled: Any, pipe: Any, name: str, case: str, scale: float
) -> None:
    options = TUNED_CASES[case]
    (model,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(bundled[0], f"bundled: {name}", 1.0)
    made, _, told = sampled(nodes, bundled, model, scale=scale, **options)
    assert f"{options.get('preset', 'upsamplers')}: pivots by rgb" in told
    assert ("local attention" in told) == ("attention" in options)
    out = library(pipe, scale, upsamplers=load_upsamplers(name), **options)
    assert grey_levels(bundled, made, out.images) <= 1
    save(bundled, made, f"tuned-{name}-{case}-{scale:g}")


def test_a_users_picture_is_enlarged_as_by_the_library(nodes: ModuleType, bundled: Any, pipe: Any) -> None:
    pixels = torch.rand(1, 12, 16, 3, generator=torch.Generator().manual_seed(1)).repeat_interleave(8, 1)
    pixels = pixels.repeat_interleave(8, 2)  # (1, 96, 128, 3)
    model, positive, negative, vae, _ = bundled
    values = {"steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "simple", "scale": 1.5}
    node = nodes.NODE_CLASS_MAPPINGS["SelfCascadeUpscale"]()
    (tuned,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(model, "bundled: full", 1.0)
    for own, upsamplers in ((model, None), (tuned, load_upsamplers("full"))):
        image, _, _ = node.upscale(pixels, own, positive, negative, vae, SEED, **values)
        given = {"num_inference_steps": STEPS, "guidance_scale": CFG, "output_type": "np", "scale": 1.5}
        generator = torch.Generator().manual_seed(SEED)
        cascade = SelfCascade(pipe, upsamplers)
        out = cascade.upscale(pixels.movedim(-1, 1), PROMPT, generator=generator, **given)
        assert float(((image * 255).round() - (torch.as_tensor(out.images) * 255).round()).abs().max()) <= 1


def test_the_base_sample_is_ksamplers_and_can_be_chosen_first(nodes: ModuleType, bundled: Any) -> None:
    model, positive, negative, _, empty = bundled
    common = importlib.import_module("nodes").common_ksampler
    several = {"samples": empty["samples"].repeat(3, 1, 1, 1)}
    (finished,) = common(model, SEED, STEPS, CFG, "euler", "simple", positive, negative, several)
    made, base, _ = sampled(nodes, bundled, latent=several)
    assert torch.equal(base["samples"], finished["samples"])
    (third,) = importlib.import_module("nodes").LatentFromBatch().frombatch(finished, 2, 1)
    alone, _, told = sampled(nodes, bundled, latent=third)
    assert "from noise" not in told
    assert torch.allclose(alone["samples"][0], made["samples"][2], atol=1e-3)


def test_patches_of_the_user_go_on_working(nodes: ModuleType, bundled: Any, pipe: Any) -> None:
    """A LoRA's change of weights, a wrapper round the model, a ControlNet: with the tuned version on top."""
    key = "diffusion_model.input_blocks.4.0.out_layers.3.weight"
    weight = pipe.unet.down_blocks[1].resnets[0].conv2.weight
    change = 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    model, calls = bundled[0].clone(), []
    model.add_patches({key: ("diff", (change,))})

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        calls.append(tuple(args["input"].shape[-2:]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(wrapper)
    (tuned,) = nodes.NODE_CLASS_MAPPINGS["SelfCascadeApplyUpsamplers"]().apply(model, "bundled: full", 1.0)
    made, _, _ = sampled(nodes, bundled, tuned)
    assert calls == [(16, 16)] * 8 + [(32, 32)] * 6  # K = 850 leaves six of eight
    before = weight.data.clone()
    try:
        weight.data = weight.data + change
        out = library(pipe, 2.0, upsamplers=load_upsamplers("full"))
    finally:
        weight.data = before
    assert grey_levels(bundled, made, out.images) <= 1


def test_it_can_be_interrupted(nodes: ModuleType, bundled: Any) -> None:
    management = importlib.import_module("comfy.model_management")
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        sampled(nodes, bundled)
    management.interrupt_current_processing(False)


# Networks with random weights, small enough for a CPU.
