"""Video files for the tests, written with PyAV: each frame has its own grey, and a red corner at the top left."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

STEP = 12  # between the greys of neighbouring frames


def write_clip(
    path: Path,
    frames: int = 10,
    size: tuple[int, int] = (36, 48),
    fps: int = 8,
    codec: str = "mpeg4",
    times: Sequence[int] | None = None,
    rotation: float = 0.0,
    audio: bool = False,
    mirror: dict[str, bool] | None = None,
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    """Writes a clip of (height, width); `times` are the frames' milliseconds; with no frames it has audio alone.

    It is turned by `rotation` against the clock and then mirrored; its pixels have the given aspect.
    """
    with av.open(str(path), "w", options=options) as container:
        # All streams are there before the first packet is written.
        video: Any = container.add_stream(codec, rate=1000 if times else fps) if frames else None
        sound: Any = container.add_stream("aac", rate=44100) if audio else None
        if frames:
            video.height, video.width = size
            video.pix_fmt = "yuv420p"
            if rotation or mirror:
                video.set_display_rotation(rotation, **mirror or {})
            if aspect:
                video.codec_context.sample_aspect_ratio = aspect
            for number in range(frames):
                pixels = np.full((*size, 3), STEP * number % 256, np.uint8)
                pixels[: size[0] // 3, : size[1] // 3] = (255, 0, 0)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if times is not None:
                    frame.pts, frame.time_base = times[number], Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio:
            for number in range(20):
                beat = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                beat.sample_rate, beat.pts = 44100, number * 1024
                container.mux(sound.encode(beat))
            container.mux(sound.encode())
    return path


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames of such a clip these are, by their grey in the middle; (F, H, W, 3) uint8 or floats in [0, 255]."""
    height, width = frames.shape[1:3]
    return [round(float(frame[height // 2, width // 2].mean()) / STEP) for frame in frames]


def red_corner(frame: np.ndarray) -> str:
    """Where the red corner of a frame (H, W, 3) is."""
    corners = {"top left": (1, 1), "top right": (1, -2), "bottom left": (-2, 1), "bottom right": (-2, -2)}
    redness = {name: int(frame[at][0]) - int(frame[at][1]) for name, at in corners.items()}
    return max(redness, key=lambda name: redness[name])
