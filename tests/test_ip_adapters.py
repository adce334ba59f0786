"""An IP-Adapter works at every stage, in every class whose call takes a picture for one."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cascade_runs import run, seeded
from selfcascade import SelfCascade
from test_variants import plain, result
from tiny import TinyPipeline
from tiny.everything import EACH
from tiny.ip_adapters import IP_ADAPTERS, given_embeds, shown_image

PLAIN = {f"{entry.name}-ip-adapter": entry for entry in EACH}
KOLORS_PAG = next(entry for entry in IP_ADAPTERS if entry.name == "kolors-pag-ip-adapter")
ADAPTERS = pytest.mark.parametrize(
    "family", [entry for entry in IP_ADAPTERS if entry is not KOLORS_PAG], ids=lambda family: family.name
)


def latents(out: Any) -> list[torch.Tensor]:
    return [stage.latents for stage in out.stages]


def equal(one: Any, other: Any) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(latents(one), latents(other), strict=True)]


@ADAPTERS
def test_an_ip_adapter_acts_at_every_stage(family: TinyPipeline) -> None:
    pipe: Any = family.shared()
    height, width = family.native
    before = plain(pipe, family)
    settings = {**family.inputs, "num_inference_steps": family.steps, "output_type": "latent", "generator": seeded(5)}
    alone = SelfCascade(pipe, native_size=family.native)(**settings, height=height, width=width)
    assert np.array_equal(np.asarray(result(alone)), before)

    cascade = functools.partial(run, pipe, family, scale=4, num_inference_steps=family.steps)
    shown = cascade()
    assert [stage.size.height // height for stage in shown.stages] == [1, 2, 4]
    embeds = given_embeds(pipe, guided=family.name != "LatentConsistencyModelPipeline-ip-adapter")
    assert equal(cascade(ip_adapter_image=None, **embeds), shown) == [True] * 3
    pipe.set_ip_adapter_scale(0.0)
    unmoved = cascade(scale=2)
    pipe.set_ip_adapter_scale(1.0)
    assert np.array_equal(plain(pipe, family), before)

    frames = {"num_frames": 2} if family.video else {}
    entry = PLAIN[family.name]
    never = run(entry.shared(), entry, num_inference_steps=family.steps, **frames)
    assert equal(unmoved, never) == [True] * 2
    assert [torch.equal(a, b) for a, b in zip(latents(shown), latents(never), strict=False)] == [False] * 2


def test_kolors_with_pag_takes_embeddings_and_refuses_a_picture() -> None:
    """Its call writes to the list of embeddings, so that each stage needs the caller's own."""
    pipe: Any = KOLORS_PAG.shared()
    with pytest.raises(ValueError, match="ip_adapter_image cannot be given to a KolorsPAGPipeline"):
        run(pipe, KOLORS_PAG)
    embeds = given_embeds(pipe, guided=True)
    kept = [*embeds["ip_adapter_image_embeds"]]
    followed = run(pipe, KOLORS_PAG, ip_adapter_image=None, scale=4, num_inference_steps=2, **embeds)
    assert [stage.size.height // KOLORS_PAG.native[0] for stage in followed.stages] == [1, 2, 4]
    assert all(one is other for one, other in zip(embeds["ip_adapter_image_embeds"], kept, strict=True))
    family = replace(KOLORS_PAG, inputs={**KOLORS_PAG.inputs, "ip_adapter_image": None} | embeds)
    alone = run(pipe, family, scale=1, num_inference_steps=2, generator=seeded(5))
    own = replace(family, inputs={**family.inputs, "ip_adapter_image_embeds": kept})
    assert np.array_equal(np.asarray(alone.images), plain(pipe, own))


def test_local_attention_refuses_stable_diffusion_3s_adapter() -> None:
    """It attends to the whole picture a second time, with the adapter's tokens behind."""
    family = next(entry for entry in IP_ADAPTERS if entry.name == "stable-diffusion-3-ip-adapter")
    with pytest.raises(ValueError, match="attention 'local' does not reach the IP-Adapter in transformer_blocks"):
        run(family.shared(), family, attention="local")


def test_a_controlnet_union_follows_two_pictures_at_every_stage() -> None:
    family = next(entry for entry in EACH if entry.name == "stable-diffusion-xl-controlnet-union")
    two = {"control_image": [Image.linear_gradient("L").convert("RGB"), shown_image()], "control_mode": [0, 3]}
    family = replace(family, inputs={**family.inputs, **two})
    pipe: Any = family.shared()
    before = plain(pipe, family)
    both = run(pipe, family, scale=1, num_inference_steps=family.steps, generator=seeded(5))
    assert np.array_equal(np.asarray(both.images), before)
    steps = {"num_inference_steps": family.steps}
    made = run(pipe, family, **steps)
    other = run(pipe, family, **steps, control_mode=[0, 1])
    assert equal(made, other) == [False] * 2
    assert equal(made, run(pipe, family, **steps)) == [True] * 2
