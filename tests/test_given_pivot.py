"""Latents of an earlier call as the pivot: any precision, as many as the call makes, else refused before it runs."""

from typing import Any

import pytest
import torch

from cascade_runs import SD, SMALL, run, seeded
from selfcascade import SelfCascade
from tiny import TINY

Z_0 = torch.randn(2, 4, 8, 8, generator=seeded())
CLIP = torch.randn(1, 4, 3, 4, 4, generator=seeded())


def enlarged(pivot: Any, prompt: Any = "a house", **options: Any) -> Any:
    cascade = SelfCascade(SD.shared(), native_size=(64, 64))
    settings: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "output_type": "latent"}
    return cascade(prompt, **settings, generator=seeded(), pivot=pivot, **options).stages[-1].latents


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_its_precision_is_brought_to_the_models(dtype: torch.dtype) -> None:
    pivot = Z_0[:1].to(dtype)
    made = enlarged(pivot)
    assert made.dtype == torch.float32 and torch.equal(made, enlarged(pivot.float()))


def test_a_full_precision_pivot_of_a_model_in_half_precision() -> None:
    pipe: Any = SD.build().to(torch.bfloat16)
    made = run(pipe, SMALL, num_inference_steps=2, pivot=Z_0[:1]).stages[-1].latents
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, run(pipe, SMALL, num_inference_steps=2, pivot=Z_0[:1].bfloat16()).stages[-1].latents)


def test_one_prompt_is_for_all_samples_and_copies_are_counted() -> None:
    both = enlarged(Z_0)
    assert torch.equal(both, enlarged(Z_0, ["a house"] * 2))
    assert torch.equal(both, enlarged(Z_0, num_images_per_prompt=2))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not a number": (Z_0[:1].masked_fill(Z_0[:1] > 2, torch.nan), {}, "pivot has values that are not finite"),
    "infinite": (Z_0[:1] / 0, {}, "pivot has values that are not finite"),
    "whole numbers": (Z_0[:1].long(), {}, "a tensor of floating-point numbers"),
    "no samples": (Z_0[:0], {}, "its shape is"),
    "a clip": (torch.zeros(1, 4, 3, 8, 8), {}, r"\(B, C, h, w\) with height x width 8x8; its shape is"),
    "channels": (torch.zeros(1, 16, 8, 8), {}, "pivot must have 4 channels, as the model's latents have, not 16"),
    "prompts": (Z_0, {"prompt": ["a", "b", "c"]}, "pivot has 2 samples, and the call makes 3"),
    "copies": (Z_0, {"num_images_per_prompt": 3}, "pivot has 2 samples, and the call makes 3"),
    "one for copies": (Z_0[:1], {"num_images_per_prompt": 2}, "pivot has 1 samples, and the call makes 2"),
    "one for several prompts": (Z_0[:1], {"prompt": ["a", "b"]}, "pivot has 1 samples, and the call makes 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    pivot, options, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        enlarged(pivot, **options)


def test_a_clip_has_its_own_length() -> None:
    family = TINY["animatediff"]
    cascade = SelfCascade(family.shared(), native_size=(32, 32))
    settings: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "latent"}
    out: Any = cascade("a fish", **settings, generator=seeded(), pivot=CLIP)
    assert out.frames.shape[2] == 3
    with pytest.raises(ValueError, match="num_frames is the pivot's, 3, not 8; leave it out"):
        cascade("a fish", **settings, generator=seeded(), pivot=CLIP, num_frames=8)
    with pytest.raises(ValueError, match=r"pivot must be a stage's latents, \(B, C, F, h, w\)"):
        cascade("a fish", **settings, generator=seeded(), pivot=CLIP[:, :, 0])
