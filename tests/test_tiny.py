"""The tiny pipelines do what other tests rely on: run, repeat exactly, take latents back, decode, take plug-ins."""

# pyright: reportPrivateImportUsage=false

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from tiny import TINY, TinyPipeline, add_tiny_ip_adapter, add_tiny_lora, tiny_controlnet
from tiny.parts import quiet

FAMILIES = pytest.mark.parametrize("family", TINY.values(), ids=TINY.keys())
STABLE_DIFFUSION = TINY["stable-diffusion"]


def sample(family: TinyPipeline, pipe: Any, **options: Any) -> Tensor:
    """Two steps at the native size from seed 0: what the pipeline returns, latents unless `options` say otherwise."""
    height, width = family.native
    settings: dict[str, Any] = dict(height=height, width=width, num_inference_steps=2, output_type="latent")
    generator = torch.Generator().manual_seed(0)
    return pipe(**(family.inputs | settings | options), generator=generator, return_dict=False)[0]


def as_input(family: TinyPipeline, latents: Tensor) -> Tensor:
    """Returned latents in the shape that `latents=` wants: Flux 2 alone returns tokens and takes a picture."""
    if family.name != "flux2":
        return latents
    height, width = (side // 16 for side in family.native)
    return latents.permute(0, 2, 1).unflatten(2, (height, width))


def everything(pipe: Any) -> dict[str, Tensor]:
    """All weights and buffers of a pipeline."""
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return {f"{name}.{key}": value for name, part in networks.items() for key, value in part.state_dict().items()}


@FAMILIES
def test_runs_and_takes_its_latents_back(family: TinyPipeline) -> None:
    pipe = family.shared()
    latents = sample(family, pipe)
    assert latents.isfinite().all()
    again = sample(family, pipe, latents=as_input(family, latents))
    assert again.shape == latents.shape
    assert again.isfinite().all()
    assert not torch.equal(again, latents)


@FAMILIES
def test_builds_the_same_pipeline_each_time_and_leaves_the_global_seed_alone(family: TinyPipeline) -> None:
    state = torch.get_rng_state()
    first, second = everything(family.build()), everything(family.shared())
    assert torch.equal(torch.get_rng_state(), state)
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@FAMILIES
def test_runs_at_twice_the_size_and_decodes(family: TinyPipeline) -> None:
    height, width = family.native
    output = sample(family, family.shared(), height=2 * height, width=width, output_type="pt")
    assert output.shape[-3:] == (3, 2 * height, width)
    assert output.ndim == (5 if family.video else 4)


@FAMILIES
def test_the_twin_shares_the_components(family: TinyPipeline) -> None:
    if family.twin is None:
        pytest.skip("no official twin with a strength")
    pipe = family.shared()
    twin = family.twin(pipe)
    network = "transformer" if family.kind == "dit" else "unet"
    assert getattr(twin, network) is getattr(pipe, network)
    assert twin.scheduler is pipe.scheduler
    assert "strength" in inspect.signature(twin.__call__).parameters


def stable_diffusion() -> StableDiffusionPipeline:
    pipe = STABLE_DIFFUSION.build()
    assert isinstance(pipe, StableDiffusionPipeline)
    return pipe


def test_the_tokenizer_separates_prompts_of_any_script() -> None:
    tokenizer = stable_diffusion().tokenizer
    words = ["a red house", "a blue tree", "дом", "🏠"]
    tokens = tokenizer(words, padding="max_length", truncation=True).input_ids
    assert {len(row) for row in tokens} == {77}
    assert len({tuple(row) for row in tokens}) == len(words)
    assert tokenizer.decode(tokens[0], skip_special_tokens=True) == "a red house"


def test_stable_diffusion_survives_a_folder(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(sample(STABLE_DIFFUSION, quiet(loaded)), sample(STABLE_DIFFUSION, pipe))


def test_lora_changes_the_latents() -> None:
    pipe = stable_diffusion()
    plain = sample(STABLE_DIFFUSION, pipe)
    assert not torch.allclose(sample(STABLE_DIFFUSION, add_tiny_lora(pipe)), plain, atol=1e-2)


def test_controlnet_follows_its_picture() -> None:
    pipe = tiny_controlnet(stable_diffusion())
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., :32] = 1.0
    left, right = (sample(STABLE_DIFFUSION, pipe, image=image) for image in (picture, 1.0 - picture))
    assert not torch.allclose(left, right, atol=1e-2)


def test_ip_adapter_changes_the_latents() -> None:
    pipe = stable_diffusion()
    plain = sample(STABLE_DIFFUSION, pipe)
    inputs = add_tiny_ip_adapter(pipe)
    assert not torch.allclose(sample(STABLE_DIFFUSION, pipe, **inputs), plain, atol=1e-2)
    pipe.set_ip_adapter_scale(0.0)
    # The adapter's own attention processors order the same sums differently.
    assert torch.allclose(sample(STABLE_DIFFUSION, pipe, **inputs), plain, atol=1e-4)
