"""Converts decoded video frames to what a player shows: square pixels, upright, in the right colours.

Axis letters: H, W pixels.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Codes of ITU-T H.273, which all containers use.
UNSPECIFIED, BT2020_PRIMARIES = 2, 9
WIDE_MATRICES = (9, 10)  # bt.2020, with and without constant luminance
HDR_CURVES = {16: "PQ", 18: "HLG"}
# Players take larger untagged frames for HD, which is bt.709, and smaller ones for bt.601.
MOST_SD_LINES, MOST_SD_COLUMNS = 576, 1279


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Width and height in square pixels; the shorter side of a pixel is enlarged, so that nothing is lost.

    Args:
        width, height: Size in the file's pixels.
        aspect: Aspect ratio of a pixel, width to height; None or 0 for square pixels.
    """
    if not aspect or aspect <= 0:
        return width, height
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def shown_size(frame: VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    """Height and width of the frame as shown."""
    width, height = square_size(frame.width, frame.height, aspect)
    return (width, height) if _orientation(frame)[0] else (height, width)


def shown(frame: VideoFrame, aspect: Fraction | None) -> np.ndarray:
    """The frame as (H, W, 3) uint8.

    Args:
        frame: The decoded frame.
        aspect: Aspect ratio of a pixel; see `square_size`.
    """
    width, height = square_size(frame.width, frame.height, aspect)
    hd = frame.height > MOST_SD_LINES or frame.width > MOST_SD_COLUMNS
    matrix = "ITU709" if hd and frame.colorspace == UNSPECIFIED and not frame.format.is_rgb else None
    sides: dict[str, Any] = {}
    if (width, height) != (frame.width, frame.height):
        sides = {"width": width, "height": height, "interpolation": "LANCZOS"}
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=matrix, **sides)
    swapped, mirrored, upside_down = _orientation(frame)
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def high_dynamic_range(stream: VideoStream) -> str | None:
    """Names a stream's high-dynamic-range colours, which 8-bit pictures cannot show; None for usual colours."""
    codec = stream.codec_context
    if codec.color_trc in HDR_CURVES:
        return HDR_CURVES[codec.color_trc]
    wide = codec.color_primaries == BT2020_PRIMARIES or codec.colorspace in WIDE_MATRICES
    return "bt.2020" if wide else None


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How the frame is shown: whether to transpose it, then mirror it horizontally, then vertically."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    # (x, y) of the frame is shown at (a x + c y, b x + d y), y downwards.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if swapped else (a, d)
    return swapped, across < 0, down < 0
