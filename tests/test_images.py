"""Every kind of picture a user can have becomes the RGB picture they see; what is none is refused in one line."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfcascade.media.images import file_sha256, pixels_sha256, read_image, to_rgb

SIZE = (32, 20)


def ramp(mode: str = "RGB") -> Image.Image:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, SIZE[0])
    pixels[..., 1] = np.linspace(0, 255, SIZE[1])[:, None]
    return Image.fromarray(pixels).convert(mode)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def same(image: Image.Image, expected: Image.Image, tolerance: int = 0) -> bool:
    difference = np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16))
    return image.mode == "RGB" and image.size == expected.size and difference.max() <= tolerance


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "ppm", "tga", "qoi"])
def test_lossless_files_give_their_pixels(tmp_path: Path, extension: str) -> None:
    assert same(read_image(saved(ramp(), tmp_path / f"a.{extension}")), ramp())


@pytest.mark.parametrize("extension", ["jpg", "webp", "avif", "jp2"])
def test_lossy_files_are_read(tmp_path: Path, extension: str) -> None:
    image = read_image(saved(ramp(), tmp_path / f"a.{extension}"))
    assert image.mode == "RGB"
    assert image.size == SIZE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    transposes = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    expected = ramp()
    if orientation > 1:
        expected = expected.transpose(Image.Transpose(transposes[orientation]))
    path = saved(ramp(), tmp_path / "a.png", exif=exif)
    assert same(read_image(path), expected)
    assert same(to_rgb(Image.open(path)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_opaque_modes_look_as_pillow_shows_them(mode: str) -> None:
    assert same(to_rgb(ramp(mode)), ramp(mode).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_transparency_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 16, 20))
    if mode == "PA":
        alpha = image.getchannel("A")
        image = Image.new("P", SIZE).convert("PA")
        image.putalpha(alpha)
    else:
        image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode)
    assert image.mode == mode
    colours = to_rgb(image)
    assert colours.getpixel((0, 0)) == (0, 0, 0)
    assert colours.getpixel((31, 0)) == (255, 255, 255)


def test_half_transparent_black_is_grey() -> None:
    assert to_rgb(Image.new("RGBA", SIZE, (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, SIZE, 0 if mode != "RGB" else (0, 0, 0))
    transparent = (0, 0, 0) if mode == "RGB" else 0
    path = saved(image, tmp_path / "a.png", transparency=transparent)
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("extension", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, extension: str) -> None:
    deep = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0]).astype(np.uint16)
    image = read_image(saved(Image.fromarray(deep), tmp_path / f"a.{extension}"))
    grey = (deep / 257).round().astype(np.uint8)
    assert same(image, Image.fromarray(grey).convert("RGB"))


@pytest.mark.parametrize(
    ("peak", "dtype"), [(65535, np.int32), (2**31 - 1, np.int32), (1, np.float32), (255, np.float32)]
)
def test_wide_pixels_are_scaled_by_what_they_can_hold(peak: float, dtype: type) -> None:
    wide = (np.linspace(0, 1, 32 * 20).reshape(20, 32) * peak).astype(dtype)
    grey = np.asarray(to_rgb(Image.fromarray(wide)))[..., 0]
    assert np.abs(grey / 255 - wide / peak).max() < 0.51 / 255


@pytest.mark.parametrize("peak", [1.0, 255.0, 65535.0])
def test_floats_that_overshoot_a_little_are_not_taken_for_dark_ones(peak: float) -> None:
    wide = np.linspace(0, 1.04 * peak, 32 * 20, dtype=np.float32).reshape(20, 32)
    grey = np.asarray(to_rgb(Image.fromarray(wide)))[..., 0]
    assert np.abs(grey / 255 - (wide / peak).clip(0, 1)).max() < 0.51 / 255


def test_pixels_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_rgb(Image.fromarray(np.full((20, 32), np.nan, np.float32)))


def test_lab_is_refused() -> None:
    with pytest.raises(ValueError, match="LAB"):
        to_rgb(Image.new("LAB", SIZE))


@pytest.mark.parametrize("extension", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path: Path, extension: str) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    options = {"lossless": True} if extension == "webp" else {}
    path = saved(frames[0], tmp_path / f"a.{extension}", save_all=True, append_images=frames[1:], **options)
    assert same(read_image(path), frames[0], tolerance=2)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


BAD_FILES = {
    "empty": (b"", "0 bytes"),
    "text": (b"hello, I am no picture", "not a picture"),
    "truncated PNG": (encoded("PNG")[:3000], "damaged or truncated"),
    "truncated JPEG": (encoded("JPEG")[:1500], "damaged or truncated"),
    "truncated WebP": (encoded("WEBP")[:1000], "damaged|not a picture"),
    "damaged PNG": (encoded("PNG")[:200] + b"\xff" * 400 + encoded("PNG")[600:], "damaged"),
    "bomb": (png_header(60_000, 60_000), "megapixels"),
    "small bomb": (png_header(10_001, 10_000), "100 megapixels"),
    "one pixel": (png_header(1, 1), "16 or more"),
    "thin": (png_header(4000, 15), "16 or more"),
    "no pixels": (png_header(0, 0), "image"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", "EPS|not a picture|cannot be read"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path: Path, kind: str) -> None:
    content, reason = BAD_FILES[kind]
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_image(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("missing.png", "does not exist"), ("", "is a folder"), ("pipe", "not a regular file")):
        with pytest.raises(ValueError, match=reason):
            read_image(tmp_path / name)


def test_checksums_see_pixels_or_bytes(tmp_path: Path) -> None:
    png, bmp = saved(ramp(), tmp_path / "a.png"), saved(ramp(), tmp_path / "a.bmp")
    assert pixels_sha256(read_image(png)) == pixels_sha256(read_image(bmp))
    assert file_sha256(png) != file_sha256(bmp)
    assert pixels_sha256(Image.new("RGB", (32, 16))) != pixels_sha256(Image.new("RGB", (16, 32)))


@pytest.mark.parametrize("data", [b"Exif\0\0garbage that is long enough", bytes(24), b"Exif\0\0II*\0"])
def test_damaged_exif_does_not_make_a_picture_damaged(tmp_path: Path, data: bytes) -> None:
    picture = Image.new("RGB", (16, 24), (10, 200, 30))
    picture.save(tmp_path / "a.png", exif=data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = read_image(tmp_path / "a.png")
    assert found.size == (16, 24) and found.getpixel((3, 3)) == (10, 200, 30)
    assert all("EXIF data that are passed over" in str(one.message) for one in told)
