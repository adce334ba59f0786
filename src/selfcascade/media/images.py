"""Converts users' pictures to RGB, whatever their orientation, transparency, colour space or depth."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from selfcascade.media.colour import passed_over, to_srgb

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 16
MAX_PIXELS = 100_000_000
# Raster formats only: reading an EPS file, for example, would start an interpreter.
FORMATS = frozenset(
    {"AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"}
)


Pictures: TypeAlias = "Image.Image | Tensor | list[Image.Image]"
Clips: TypeAlias = "Tensor | np.ndarray | list[np.ndarray] | list[Image.Image] | list[list[Image.Image]]"


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads the first frame of a picture file, converted by `to_rgb`.

    Raises:
        ValueError: The file is missing, not a picture, damaged, under 16 pixels a side or over 100 megapixels.
    """
    name = os.fspath(path)
    if Path(name).is_dir():
        raise ValueError(f"image {name!r} is a folder, not a picture file")
    if not Path(name).is_file():
        raise ValueError(f"image {name!r} does not exist or is not a regular file")
    if Path(name).stat().st_size == 0:
        raise ValueError(f"image {name!r} is empty (0 bytes)")
    return decode_image(name, name)


def decode_image(name: str, file: str | IO[bytes], key: str = "") -> Image.Image:
    """Like `read_image`, for a file that is open or known to exist; `name` is for errors, `key` for warnings.

    Raises:
        ValueError: The file is not a picture, damaged, or too small or large.
    """
    try:
        # The size is checked below, before decoding, so Pillow's own warning is not needed.
        with contextlib.ExitStack() as opened:
            with warnings.catch_warnings(action="ignore"):
                image = opened.enter_context(Image.open(file))
                _check_header(name, image)
                image.seek(0)
                image.load()
            return to_rgb(image, key or name)
    except (ValueError, MemoryError) as error:
        if str(error).startswith("image "):
            raise
        raise ValueError(f"image {name!r} cannot be read: {_one_line(error)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"image {name!r} has more than {MAX_PIXELS // 10**6} megapixels") from error
    except PermissionError as error:
        raise ValueError(f"image {name!r} may not be read: permission denied") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"image {name!r} is not a picture that can be read (PNG, JPEG, WebP, TIFF, ...)") from error
    except Exception as error:  # decoders raise many kinds of errors: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"image {name!r} is damaged or truncated: {_one_line(error)}") from error


def to_rgb(image: Image.Image, name: str = "") -> Image.Image:
    """A picture as 8-bit sRGB: EXIF orientation applied, transparency laid on white, deep greys scaled (not clipped).

    Mode "I;16" and mode "I" up to 65535 count as 16-bit; the range of mode "F", 1, 255 or 65535, follows from its
    brightest pixel, which may lie above it by a half. An embedded colour profile is applied; a damaged one is ignored
    with a warning that gives `name`, as damaged EXIF data are.

    Raises:
        ValueError: The colour mode has no meaning as RGB (LAB), or a float pixel is not finite.
    """
    image = _upright(image, name)
    if image.mode == "LAB":
        raise ValueError("image has colour mode LAB, which is not supported; save it as RGB")
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_grey_8bit(image))
    elif image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # premultiplied grey converts only to this
        image = image if image.mode == "LA" else image.convert("RGBA")
    elif image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    image.info["icc_profile"] = profile
    image = to_srgb(image, name)
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # readers of damaged EXIF raise many kinds of errors
        return passed_over(image, name, _one_line(error), "EXIF data that are")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixels_sha256(image: Image.Image) -> str:
    """The SHA-256 of a picture's mode, size and pixels, in hexadecimal, independent of the file format."""
    header = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()


def _check_header(name: str, image: Image.Image) -> None:
    if image.format not in FORMATS:
        raise ValueError(f"image {name!r} is in format {image.format}, which is not read; save it as PNG or JPEG")
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        raise ValueError(f"image {name!r} has {size} pixels; at most {MAX_PIXELS // 10**6} megapixels are read")
    if min(image.size) < MIN_SIDE:
        raise ValueError(
            f"image {name!r} has {image.width}x{image.height} pixels; each side must have {MIN_SIDE} or more"
        )


def _grey_8bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("image has pixels that are not finite numbers")
    peaks = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    brightest = float(values.max())
    slack = 1.5 if image.mode == "F" else 1.0  # filters overshoot a little
    peak = next((peak for peak in peaks if brightest <= slack * peak), 2.0**31 - 1)
    return (values.clip(0, peak) * (255 / peak)).round().astype(np.uint8)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def pixels_of(image: Pictures) -> Tensor:
    """One picture, or several of one size, as (B, 3, H, W) floats in [0, 1].

    Raises:
        ValueError: `image` is not a picture, the sizes differ, or a tensor has another shape, type or range.
    """
    import torch

    if isinstance(image, torch.Tensor):
        if image.ndim != 4 or image.shape[1] != 3 or not image.numel() or not image.is_floating_point():
            raise ValueError(f"image must be (B, 3, H, W) floats in [0, 1], not {tuple(image.shape)} {image.dtype}")
        if image.is_meta:
            raise ValueError("image is on the device meta, which holds no pixels")
        if not (image.min() >= 0 and image.max() <= 1):  # also true for nan
            raise ValueError(f"image must be floats in [0, 1], not from {image.min():g} to {image.max():g}")
        return image
    return torch.from_numpy(_bytes_of(image).astype(np.float32) / 255).permute(0, 3, 1, 2)


def clips_of(clip: Clips) -> Tensor:
    """One clip, or several of one size and length, as (B, F, 3, H, W): bytes stay bytes, else floats in [0, 1].

    Args:
        clip: A list of PIL images, the frames of one clip; (F, H, W, 3) bytes; a list of either; or a tensor that is
            (B, F, 3, H, W) floats in [0, 1].

    Raises:
        ValueError: `clip` is not a clip, the sizes or lengths differ, or a tensor has another shape, type or range.
    """
    import torch

    if isinstance(clip, torch.Tensor):
        if clip.ndim != 5 or clip.shape[2] != 3 or not clip.numel() or not clip.is_floating_point():
            raise ValueError(f"clip must be (B, F, 3, H, W) floats in [0, 1], not {tuple(clip.shape)} {clip.dtype}")
        return pixels_of(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
    several = isinstance(clip, list) and clip and isinstance(clip[0], (list, np.ndarray))
    clips = [_frames_of(one) for one in (clip if several else [clip])]
    if len({one.shape for one in clips}) > 1:
        raise ValueError("clip must be clips of one size and length; call upscale once for each")
    return torch.stack(clips)


def _frames_of(clip: Any) -> Tensor:
    import torch

    if isinstance(clip, np.ndarray):
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8 or not clip.size:
            raise ValueError(f"clip must be (F, H, W, 3) bytes, not {clip.shape} {clip.dtype}")
        return torch.from_numpy(np.array(clip, order="C")).permute(0, 3, 1, 2)
    if not isinstance(clip, list) or not all(isinstance(frame, Image.Image) for frame in clip):
        raise ValueError(f"clip must be a list of frames, bytes (F, H, W, 3) or a tensor, not {type(clip).__name__}")
    return torch.from_numpy(_bytes_of(clip)).permute(0, 3, 1, 2)


def _bytes_of(image: Any) -> np.ndarray:
    """One picture, or several in a list, as (B, H, W, 3) uint8."""
    pictures = image if isinstance(image, list) else [image]
    if not pictures or not all(isinstance(picture, Image.Image) for picture in pictures):
        raise ValueError(f"image must be a PIL image, a list of them, or a tensor, not {type(image).__name__}")
    if len({picture.size for picture in pictures}) > 1:
        raise ValueError("image must be pictures of one size; call upscale once for each size")
    try:
        return np.stack([np.asarray(to_rgb(picture)) for picture in pictures])
    except ValueError as error:
        if "closed" not in str(error):
            raise
        raise ValueError("image is closed; give one whose pixels can still be read") from error
