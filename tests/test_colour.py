"""Embedded colour profiles become sRGB; a damaged one is named and passed over."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from colour_profiles import adobe_rgb, linear_grey, press
from selfcascade.data.decode import decode_picture
from selfcascade.media.images import read_image, to_rgb

CYAN = (55.0, -37.0, -50.0)


def saved(folder: Path, image: Image.Image, profile: bytes, ending: str = "png") -> Path:
    path = folder / f"picture.{ending}"
    image.save(path, icc_profile=profile)
    return path


def pixel(image: Image.Image) -> list[int]:
    return list(np.asarray(image)[8, 8])


def srgb_of_lab(lightness: float, a: float, b: float) -> list[int]:
    """CIE Lab (D50) to sRGB by the textbook: cube law, Bradford adaptation to D65, matrix, transfer curve."""
    y = (lightness + 16) / 116
    cubed = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(cubed > 6 / 29, cubed**3, 3 * (6 / 29) ** 2 * (cubed - 4 / 29)) * (0.9642, 1.0, 0.8249)
    to_linear = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = (to_linear @ xyz).clip(0, 1)
    return list((255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)).round())


@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_adobe_rgb_is_read_as_the_colour_it_means(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    Image.new("RGB", (32, 32), (173, 62, 45)).save(path, icc_profile=adobe_rgb(), **options)
    assert pixel(read_image(path)) == pytest.approx([200, 60, 40], abs=1)


def test_training_data_is_read_alike(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (32, 32), (173, 62, 45)), adobe_rgb())
    with path.open("rb") as file:
        assert pixel(decode_picture(file, None, "key")) == pytest.approx([200, 60, 40], abs=1)


def test_a_picture_in_memory_is_read_alike() -> None:
    image = Image.new("RGB", (32, 32), (173, 62, 45))
    image.info["icc_profile"] = adobe_rgb()
    assert pixel(to_rgb(image)) == pytest.approx([200, 60, 40], abs=1)
    assert image.info["icc_profile"] and pixel(image) == [173, 62, 45]


def test_palettes_and_transparency_keep_their_profile(tmp_path: Path) -> None:
    palette = Image.new("RGB", (32, 32), (173, 62, 45)).quantize(4)
    assert pixel(read_image(saved(tmp_path, palette, adobe_rgb()))) == pytest.approx([200, 60, 40], abs=1)
    clear = Image.new("RGBA", (32, 32), (173, 62, 45, 0))
    clear.paste((173, 62, 45, 255), (0, 0, 16, 32))
    read = read_image(saved(tmp_path, clear, adobe_rgb()))
    assert pixel(read) == pytest.approx([200, 60, 40], abs=1)
    assert list(np.asarray(read)[8, 24]) == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles(tmp_path: Path, mode: str) -> None:
    half = {"L": 55, "LA": (55, 255), "I;16": 55 * 257}[mode]
    image = Image.new(mode, (32, 32), half)
    # 55 / 255 of the light is 0.5 of the sRGB curve: 128 (127.8).
    assert pixel(read_image(saved(tmp_path, image, linear_grey()))) == pytest.approx([128] * 3, abs=1)


def test_a_press_profile_decides_what_ink_looks_like(tmp_path: Path) -> None:
    profile = press({(0, 0, 0, 0): (100.0, 0.0, 0.0), (1, 0, 0, 0): CYAN})
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (16, 0, 32, 32))
    read = read_image(saved(tmp_path, image, profile, "tiff"))
    assert pixel(read) == pytest.approx(srgb_of_lab(*CYAN), abs=2)
    assert list(np.asarray(read)[8, 24]) == pytest.approx([255] * 3, abs=1)


def test_srgb_stays_as_it_is(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(read_image(saved(tmp_path, Image.fromarray(noise), profile))), noise)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda: b"no profile at all", "cannot open profile"),
        (lambda: adobe_rgb()[:200], "cannot"),
        (lambda: linear_grey(), "it is for GRAY, and the picture is RGB"),
    ],
    ids=["nonsense", "cut short", "for grey"],
)
def test_a_damaged_profile_is_named_and_passed_over(tmp_path: Path, damage: Callable[[], bytes], reason: str) -> None:
    path = saved(tmp_path, Image.new("RGB", (32, 32), (173, 62, 45)), damage())
    with pytest.warns(UserWarning, match=rf"picture\.png' has a colour profile that is passed over: .*{reason}"):
        assert pixel(read_image(path)) == [173, 62, 45]


def test_a_picture_without_a_profile_says_nothing() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(buffer, "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel(decode_picture(buffer, None, "key")) == [1, 2, 3]
