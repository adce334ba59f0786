"""Every bad argument is refused by name, in a sentence, before anything runs."""

from typing import Any

import pytest
import torch

from cascade_runs import SD, run

NUMBERS = {"negative": -1, "zero": 0, "nan": float("nan"), "infinite": float("inf"), "text": "12", "bool": True}
NUMBERS |= {"huge": 10**9, "huger": 10**400, "minus infinite": float("-inf"), "complex": 1j}
BAD = [
    pytest.param(name, value, id=f"{name}-{label}")
    for name in ("height", "width", "num_inference_steps", "pivot_step", "guidance_scale", "num_images_per_prompt")
    for label, value in NUMBERS.items()
    if (name, label) != ("guidance_scale", "zero")
    if not (name == "num_images_per_prompt" and label.startswith("huge"))
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_numbers_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        run(SD.shared(), **{name: value})


@pytest.mark.parametrize("name", ["num_inference_steps", "pivot_step", "guidance_scale"])
@pytest.mark.parametrize("value", [-1, float("nan"), "12", True])
def test_bad_numbers_are_refused_in_lists_too(name: str, value: Any) -> None:
    values = [value] if name == "pivot_step" else [5, value]
    with pytest.raises(ValueError, match=f"^{name} must be"):
        run(SD.shared(), **{name: values})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 250}, "height must be a multiple of 8, not 250; 248 is the nearest"),
        ({"height": 64, "width": 64}, "smaller than the native size"),
        ({"pivot_step": [700, 700]}, "pivot_step has 2 values, and there are 1 stages"),
        ({"pivot_step": [None]}, "pivot_step must be a whole number from 1 to 10000, not None"),
        ({"preset": "best"}, "preset must be one of paper, rgb, quality, fast"),
        ({"preset": ["paper"]}, "preset must be one of paper, rgb, quality, fast"),
        ({"upsampling": ""}, "upsampling must be one of"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"upsampling": "nearest"}, "upsampling must be one of"),
        ({"output_type": "jpg"}, "output_type must be"),
        ({"latents": torch.zeros(1)}, "latents cannot be given"),
        ({"denoise_strength": 0.5}, "denoise_strength cannot be given"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        run(SD.shared(), **options)
