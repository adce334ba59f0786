"""Variants' stages from a pivot are diffusers' own pipelines with a `strength`, bit for bit."""

import functools
import inspect
from typing import Any

import pytest
import torch
from diffusers import EasyAnimateInpaintPipeline, Flux2KleinInpaintPipeline, FluxKontextInpaintPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import interpolate

from cascade_runs import seeded
from selfcascade import SelfCascade
from tiny import TinyPipeline
from tiny.everything import CONTRACT
from tiny.ip_adapters import IP_ADAPTERS, takes_picture
from tiny.parts import twin_of

STEPS, K = 4, 700
ENTRIES = {entry.name: entry for entry in CONTRACT}
FOLLOWING = [entry for entry in IP_ADAPTERS if entry.twin is not None and takes_picture(entry.twin.__name__)]
TWINS = [entry for entry in (*CONTRACT, *FOLLOWING) if entry.twin is not None]


def second_stage(family: TinyPipeline, pipe: Any) -> tuple[SelfCascade, Tensor, Any]:
    """(cascade, enlarged pivot, what a stage made of it); the pivot is random, as the base stage is not at stake."""
    cascade = SelfCascade(pipe, native_size=family.native)
    size = cascade.family.latent_size(cascade.native_size)
    channels = 16 if family.video and family.kind == "dit" else 4
    frames = (family.inputs["num_frames"],) if family.video else ()
    pivot = torch.randn(1, channels, *frames, *size, generator=seeded(1))
    height, width = (2 * side for side in family.native)
    settings = {**family.inputs, "num_inference_steps": STEPS, "output_type": "latent", "preset": "paper"}
    made = cascade(**settings, height=height, width=width, pivot_step=K, pivot=pivot, generator=seeded(3))
    flat = pivot.transpose(1, 2).flatten(0, 1) if frames else pivot
    larger = interpolate(flat, scale_factor=2, mode="bilinear", align_corners=False)
    return cascade, larger.unflatten(0, (1, -1)).transpose(1, 2) if frames else larger, made.stages[-1]


def strength(twin: Any, steps: int) -> float:
    """What makes the twin take these steps: older ones round it down to whole steps, newer ones do not."""
    floors = "int(num_inference_steps * strength)" in inspect.getsource(type(twin).get_timesteps)
    return (steps + (1e-3 if floors else -1e-3)) / STEPS


def taking(twin: Any, z_up: Tensor, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin starts from these latents, whose noise is drawn before anything else, as a stage's is."""
    prepare, start = twin.prepare_latents, generator.get_state()
    torch.randn(z_up.shape, generator=generator)

    def noised(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(type(twin).prepare_latents).bind(twin, *args, **kwargs).arguments
        if "video" in bound:
            noise = randn_tensor(z_up.shape, seeded(3))
            return twin.scheduler.add_noise(z_up, noise, bound["timestep"])
        after = generator.get_state()
        generator.set_state(start)
        out = prepare(**{name: value for name, value in bound.items() if name != "self"} | {"image": z_up})
        generator.set_state(after)
        return out

    monkeypatch.setattr(twin, "prepare_latents", noised)
    if "image_latents = self._encode_vae_image" in inspect.getsource(type(twin).prepare_latents):
        monkeypatch.setattr(twin, "_encode_vae_image", lambda image, generator: image)


def arguments(family: TinyPipeline, twin: Any, height: int, width: int) -> dict[str, Any]:
    """The family's inputs by the twin's names, and pictures in whose place `taking` puts latents."""
    given = {**family.inputs, "height": height, "width": width, "num_inference_steps": STEPS}
    accepted = inspect.signature(twin.__call__).parameters
    if "control_image" in accepted and "image" in given:
        given["control_image"] = given.pop("image")
    if family.video:
        given["video"] = [torch.zeros(3, height, width)] * given.pop("num_frames")
    else:
        given["image"] = torch.zeros(1, 3, height, width)
        given["mask_image"] = torch.ones(1, 1, height, width)
    own = inspect.signature(type(family.shared()).__call__).parameters
    others = {name: own[name].default for name in own.keys() & accepted if own[name].default != accepted[name].default}
    given = others | given  # some have other defaults, as of the weight of a control
    return {name: value for name, value in given.items() if name in accepted}


@pytest.mark.parametrize("family", TWINS, ids=lambda family: family.name)
def test_a_stage_is_the_official_pipeline_with_a_strength(
    family: TinyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = family.shared()
    cascade, z_up, stage = second_stage(family, pipe)
    assert 0 < stage.steps < STEPS
    assert family.twin is not None
    twin: Any = family.twin(pipe)
    generator = seeded(3)
    taking(twin, z_up, generator, monkeypatch)
    given = arguments(family, twin, *stage.size)
    if family.name.startswith("LatentConsistencyModelPipeline"):
        pipe.scheduler.set_timesteps(STEPS)
        given |= {"timesteps": pipe.scheduler.timesteps.tolist()}
    if family.name.startswith("kolors"):
        pooled = {name: value for name, value in family.inputs.items() if "pooled" in name}
        monkeypatch.setattr(twin, "encode_prompt", functools.partial(twin.encode_prompt, **pooled))
    made = twin(
        **given, strength=strength(twin, stage.steps), generator=generator, output_type="latent", return_dict=False
    )[0]
    assert torch.equal(stage.latents, cascade.family.to_spatial(made, stage.size))


@pytest.mark.parametrize(
    ("name", "kind"), [("Flux2KleinPipeline", Flux2KleinInpaintPipeline), ("flux-kontext", FluxKontextInpaintPipeline)]
)
def test_what_is_shown_the_picture_cannot_equal(name: str, kind: Any) -> None:
    """Its network sees the picture's tokens behind those of the latents, though the mask leaves nothing of it."""
    family = ENTRIES[name]
    pipe: Any = family.shared()
    twin: Any = twin_of(kind)(pipe)
    seen: list[int] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[1]), with_kwargs=True
    )
    given = {**arguments(family, twin, *family.native), **family.alone, "guidance_scale": 1.0, "strength": 0.6}
    given |= {"num_inference_steps": 2, "output_type": "latent", "generator": seeded()}
    own = inspect.signature(pipe.__call__).parameters
    with handle:
        pipe(**{name: value for name, value in given.items() if name in own and name != "image"})
        twin(**given, **({"_auto_resize": False} if name == "flux-kontext" else {}))
    alone, _, *others = seen
    assert others and all(tokens > alone for tokens in others)


def test_easyanimates_inpainting_fails_beyond_one_step_without_channels_for_a_mask() -> None:
    family = ENTRIES["easyanimate"]
    twin: Any = twin_of(EasyAnimateInpaintPipeline)(family.shared())
    given = {**family.inputs, "height": 32, "width": 32, "num_inference_steps": 3, "generator": seeded()}
    video = torch.zeros(1, 3, 5, 32, 32)
    with pytest.raises(TypeError, match="tensor"):
        twin(**given, video=video, mask_video=torch.ones_like(video[:, :1]), strength=0.7, output_type="latent")
