"""Converts colours from embedded profiles to sRGB, which models are trained on."""

from __future__ import annotations

import functools
import io
import warnings
from typing import TYPE_CHECKING, cast

from PIL import Image, ImageCms

if TYPE_CHECKING:
    from PIL._imagingcms import CmsProfile

# The colour space of a profile that fits each mode of a picture, after palettes and depths are resolved.
SPACES = {"RGB": "RGB", "RGBA": "RGB", "L": "GRAY", "LA": "GRAY", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, name: str = "") -> Image.Image:
    """Converts a picture from its embedded ICC profile to sRGB; alpha is kept.

    A damaged profile, or one for another colour mode, is ignored with a warning.

    Args:
        image: Picture with 8 bits per channel, mode RGB, RGBA, L, LA or CMYK; others are returned unchanged.
        name: Name of the file, for the warning.

    Returns:
        RGB or RGBA if a profile was applied, otherwise the picture itself.
    """
    data = image.info.get("icc_profile")
    if not data or image.mode not in SPACES:
        return image
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(data))
        space = _facts(profile).xcolor_space.strip()
        if space != SPACES[image.mode]:
            return passed_over(image, name, f"it is for {space}, and the picture is {image.mode}")
        if _is_srgb(profile):
            return image
        alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
        opaque = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
        converted = ImageCms.profileToProfile(opaque, profile, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        return passed_over(image, name, " ".join(str(error).split()) or "it cannot be read")
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    converted.info.pop("icc_profile", None)
    return converted


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    # Converting sRGB to sRGB would round some values by one; pictures with an sRGB profile stay unchanged.
    return (_facts(profile).profile_description or "").startswith("sRGB")


def _facts(profile: ImageCms.ImageCmsProfile) -> CmsProfile:
    return cast("CmsProfile", profile.profile)  # Pillow declares it with the type of its own argument


def passed_over(image: Image.Image, name: str, reason: str, what: str = "a colour profile that is") -> Image.Image:
    """The picture as it is, with a warning that something in it is passed over."""
    subject = f"image {name!r} has" if name else "the picture has"
    warnings.warn(f"{subject} {what} passed over: {reason}", UserWarning, stacklevel=3)
    return image
