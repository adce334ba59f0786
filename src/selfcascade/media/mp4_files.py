"""Writes .mp4 files with PyAV: bytes that depend only on the frames, and optionally the sound of another clip."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.media.sound import Sound
from selfcascade.options.optional import install

# x264's bytes depend on its number of threads, so it uses one. At this quality, compression is invisible.
ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "14", "preset": "medium", "threads": "1"}),
    ("libopenh264", {"rc_mode": "quality", "allow_skip_frames": "0"}),
    ("mpeg4", {"qmin": "1", "qmax": "3", "flags": "+qscale", "global_quality": "236", "threads": "1"}),
)


def write_mp4(
    frames: Sequence[Image.Image],
    fps: float,
    file: Path,
    comment: str = "",
    sound: Sound | None = None,
    description: str | None = None,
) -> None:
    """Writes an .mp4 in 4:2:0: H.264 if the build of PyAV has it, otherwise MPEG-4.

    Its container holds the comment, and the description where there is one: `record_in_mp4` reads that.

    Raises:
        ValueError: A side is odd, or PyAV is not installed.
    """
    av = pyav()
    width, height = frames[0].size
    if width % 2 or height % 2:
        raise ValueError(f"an .mp4 needs even sides, not {width}x{height}; write a .webp or a folder of frames")
    name, options = _encoder(av)
    rate = Fraction(fps).limit_denominator(1001)
    container: Any = av.open(str(file), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})
    with container:
        container.metadata["comment"] = comment
        if description is not None:
            container.metadata["description"] = description
        stream = container.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        # swscale's own matrix, set explicitly: readers that ignore tags assume it too.
        copy_sound = None if sound is None else sound.copy_into(container, len(frames) / fps)
        colours, levels = av.video.reformatter.Colorspace.SMPTE170M, av.video.reformatter.ColorRange.MPEG
        stream.codec_context.colorspace, stream.codec_context.color_range = colours, levels
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=colours, dst_color_range=levels)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if copy_sound is not None:
            copy_sound()


def record_in_mp4(file: Path) -> str | None:
    """The description in a clip's container; None where it has none.

    Raises:
        OSError: There is no such file.
        ValueError: It is not a video file.
    """
    try:
        av = pyav()
        with av.open(
            f"file:{file}", options={"format_whitelist": "mov,mp4", "protocol_whitelist": "file"}
        ) as container:
            return container.metadata.get("description")
    except UnicodeDecodeError as error:
        raise ValueError("its description is not UTF-8") from error


def pyav() -> Any:
    """Imports PyAV, which reads and writes video files.

    Raises:
        ValueError: PyAV is not installed.
    """
    try:
        import av
        import av.video.reformatter
    except ImportError as error:
        others = "only .webp, .gif and folders can do without"
        raise ValueError(f"video files need PyAV ({install('av')}); {others}") from error
    return av


def _encoder(av: Any) -> tuple[str, dict[str, str]]:
    for name, options in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:  # UnknownCodecError is one
            continue
        return name, options
    raise ValueError("this build of PyAV has no encoder for .mp4; write a .webp, a .gif or a folder of frames")
