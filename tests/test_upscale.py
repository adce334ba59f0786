"""`SelfCascade.upscale`: the user's own picture as the first pivot."""

import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cascade_runs import SD, seeded
from selfcascade import SelfCascade


def photo(width: int = 96, height: int = 96) -> Image.Image:
    rows = np.linspace(0, 255, height)[:, None, None] * np.ones((1, width, 3))
    return Image.fromarray(rows.astype(np.uint8))


def test_upscale_starts_from_the_users_own_picture() -> None:
    pipe: Any = SD.shared()
    cascade = SelfCascade(pipe, native_size=SD.native)
    settings = {"num_inference_steps": 4, "pivot_step": 300}
    out = cascade.upscale(photo(128, 128), "a wall", height=256, width=256, generator=seeded(), **settings)
    assert out.images[0].size == (256, 256)
    assert [stage.size.height for stage in out.stages] == [256]
    assert out.stages[0].pivot_step == 300
    again = cascade.upscale(photo(128, 128), "a wall", height=256, width=256, generator=seeded(), **settings)
    assert np.array_equal(np.asarray(out.images[0]), np.asarray(again.images[0]))
    cascade.native_size = (64, 64)
    settings["output_type"] = "latent"
    for own, sides in ((40, [64, 128, 256]), (64, [128, 256]), (100, [128, 256]), (128, [256]), (256, [256])):
        small = cascade.upscale(photo(own, own), height=256, width=256, **settings)
        assert [stage.size.height for stage in small.stages] == sides
    cascade.native_size, settings["output_type"] = SD.native, "pil"
    square = photo(200, 128).crop((36, 0, 164, 128))
    for picture, said in ((photo(200, 128), pytest.warns(UserWarning, match="cropped")), (square, nullcontext())):
        with said:
            cut = cascade.upscale(picture, "a wall", height=256, width=256, generator=seeded(), **settings)
        assert np.array_equal(np.asarray(cut.images[0]), np.asarray(out.images[0]))
    doubled = cascade.upscale(photo(160, 96), **settings)
    assert doubled.images[0].size == (320, 192)


def test_upscale_takes_lists_and_tensors() -> None:
    cascade = SelfCascade(SD.shared(), native_size=SD.native)
    settings = {"num_inference_steps": 4, "height": 256, "width": 256, "output_type": "latent"}
    assert cascade.upscale([photo(), photo()], ["a", "b"], **settings).images.shape[0] == 2
    assert cascade.upscale([photo(), photo()], "a", **settings).images.shape[0] == 2
    assert cascade.upscale(torch.rand(1, 3, 96, 96), "a", num_images_per_prompt=2, **settings).images.shape[0] == 2
    with pytest.raises(ValueError, match="image has 2 pictures, and there are 3 prompts"):
        cascade.upscale([photo(), photo()], ["a", "b", "c"], **settings)
    with pytest.raises(ValueError, match="generator has 2 entries, and there are 3 results"):
        cascade.upscale([photo()] * 3, "a", generator=[seeded(), seeded()], **settings)
    embeds, negative = cascade.pipe.encode_prompt(["a", "b"], "cpu", 1, True)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    assert cascade.upscale(photo(), None, **given, **settings).images.shape[0] == 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 96, 96), "image must be"),
        (torch.zeros(1, 3, 96, 96, dtype=torch.uint8), "image must be"),
        ("photo.png", "image must be a PIL image"),
        (torch.full((1, 3, 96, 96), 2.0), r"image must be floats in \[0, 1\], not from 2 to 2"),
        (torch.full((1, 3, 96, 96), float("nan")), "image must be floats"),
        (torch.zeros(0, 3, 96, 96), "image must be"),
        ([], "image must be a PIL image"),
        ([photo(96, 96), photo(64, 64)], "pictures of one size"),
        (photo(2048, 2048), "target 256x256 is smaller than the image"),
    ],
)
def test_upscale_refuses_what_is_no_picture(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfCascade(SD.shared(), native_size=SD.native).upscale(image, height=256, width=256)


def test_upscale_takes_no_size_of_zero() -> None:
    with pytest.raises(ValueError, match="height must be a whole number from 1 to 16384, not 0"):
        SelfCascade(SD.shared()).upscale(photo(), height=0)


@pytest.mark.parametrize(
    ("own", "given", "made"),
    [
        ((64, 128), {"height": 128}, (128, 256)),
        ((64, 128), {"width": 256}, (128, 256)),
        ((128, 64), {"height": 256}, (256, 128)),
        ((96, 160), {"height": 160}, (160, 264)),  # 266.7 is no multiple of 8
        ((64, 128), {"scale": 2.0}, (128, 256)),
        ((64, 128), {}, (128, 256)),
    ],
)
def test_one_side_keeps_the_pictures_ratio_and_nothing_is_cut(
    own: tuple[int, int], given: dict[str, Any], made: tuple[int, int]
) -> None:
    cascade = SelfCascade(SD.shared(), native_size=(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = cascade.upscale(photo(own[1], own[0]), num_inference_steps=4, output_type="latent", **given)
    assert tuple(8 * side for side in out.images.shape[-2:]) == made


def test_a_crop_that_was_asked_for_is_said() -> None:
    cascade = SelfCascade(SD.shared(), native_size=(64, 64))
    with pytest.warns(UserWarning, match="the image, 64x128, is cropped at its centre to 64x64, the ratio of 128x128"):
        cascade.upscale(photo(128, 64), height=128, width=128, num_inference_steps=4, output_type="latent")
