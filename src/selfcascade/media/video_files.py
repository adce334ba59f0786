"""Reads video files with PyAV: sizes and lengths from the header, frames by their times.

Files are not trusted: containers that refer to other files are not opened, and any fault of a file raises a `ClipError`
that names it. Axis letters: F frames, H, W pixels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfcascade.media.frame_rates import even_rate
from selfcascade.media.shown_frames import high_dynamic_range, shown, shown_size, square_size
from selfcascade.options.optional import install

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Containers that hold their own frames; a playlist would make the library open other files.
DEMUXERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,gif"
JOINING = "gif"  # the format whose encoders join equal frames to a longer one
MAX_PIXELS = 7680 * 4320
MAX_BYTES = 4 * 2**30
MAX_START = 86_400.0
# Containers round times, GIF to hundredths: a frame counts as shown this much earlier, in seconds and as a share.
EARLY, EARLY_SHARE = 0.006, 0.25
# A header's rate that is higher than the frames' by this factor is the clock's.
TOO_FAST = 1.1


class ClipError(ValueError):
    """A video file cannot be used; the message says why.

    Attributes:
        reason: The reason in a few words, the same for all files with this fault.
    """

    def __init__(self, sentence: str, reason: str = "clip is damaged") -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class ClipInfo:
    """Facts about a video file.

    Attributes:
        height, width: Size as shown, upright and in square pixels.
        fps: Frames per second; the mean if the rate varies.
        duration: Duration in seconds.
        frames: Number of frames.
        sound: Whether there is sound.
    """

    height: int
    width: int
    fps: float
    duration: float
    frames: int
    sound: bool = False


def probe_clip(path: str | os.PathLike[str]) -> ClipInfo:
    """Reads a file's size and length; only the first frame is decoded, to see how it is rotated.

    Raises:
        ClipError: The file is missing, not a video, damaged, HDR, has only one frame, or over 7680 x 4320 pixels.
    """
    name = os.fspath(path)
    with opened_clip(name) as (container, stream):
        count, fps = _count_and_rate(container, stream)
        first = next(_decoded(name, container, stream), None)
        if first is None:
            raise ClipError(f"clip {name!r} is damaged or truncated: no frame can be read")
        if count < 2:
            raise _one_frame(name)
        height, width = shown_size(first, stream.sample_aspect_ratio)
        seconds = _end(container, stream) or count / fps
        return ClipInfo(height, width, fps, seconds, count, bool(container.streams.audio))


def read_clip(
    path: str | os.PathLike[str],
    frames: int | None = None,
    fps: float | None = None,
    stride: int | None = None,
    start: float = 0.0,
) -> tuple[np.ndarray, float]:
    """Reads the frames that a player shows at even times.

    So a variable rate becomes a constant one, and at a constant rate each frame is taken once.

    Args:
        path: Path of the file.
        frames: Number of frames; None takes all.
        fps: Frames per second to take, above or below the file's own rate; None takes the file's (mean) rate.
        stride: Instead of `fps`, take every stride-th frame at the file's own rate.
        start: Seconds from the beginning to the first frame taken.

    Returns:
        Frames (F, H, W, 3) uint8, and frames per second.

    Raises:
        ClipError: The file has a fault that `probe_clip` finds, too few frames, is truncated, changes its size, or has
            over 4 GiB of frames.
        ValueError: An argument is out of range, or `fps` and `stride` are both given.
    """
    _check(frames, fps, stride, start)
    name = os.fspath(path)
    with opened_clip(name) as (container, stream):
        own = _count_and_rate(container, stream)[1]
        rate = fps or own / (stride or 1)
        rows: list[np.ndarray] = []
        for frame in _at_even_times(name, container, stream, (own, rate), start, frames):
            rows.append(shown(frame, stream.sample_aspect_ratio))
            if rows[-1].shape != rows[0].shape:
                raise ClipError(f"clip {name!r} changes its size on the way", "clip changes its size")
            if rows[0].nbytes * max(len(rows), frames or 0) > MAX_BYTES:
                sentence = f"clip {name!r} has more than 4 GiB of frames; read fewer at a time with frames and start"
                raise ClipError(sentence, "clip is too large")
    wanted = frames or 1
    if len(rows) < wanted:
        sentence = f"clip {name!r} has {len(rows)} frames at {rate:g} fps from {start:g} s on, {wanted} are wanted"
        raise ClipError(sentence, "clip is too short")
    return np.stack(rows), float(rate)


def _check(frames: int | None, fps: float | None, stride: int | None, start: float) -> None:
    if frames is not None and frames < 1:
        raise ValueError(f"frames must be 1 or more, not {frames}")
    if fps is not None and stride is not None:
        raise ValueError("fps and stride must not both be given")
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"fps must be above 0 and at most 1000, not {fps}")
    if stride is not None and stride < 1:
        raise ValueError(f"stride must be 1 or more, not {stride}")
    if not 0 <= start <= MAX_START:
        raise ValueError(f"start must be from 0 to {MAX_START:g} seconds, not {start}")


@contextlib.contextmanager
def opened_clip(name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video; any error of PyAV in this context becomes a ClipError."""
    try:
        import av
    except ImportError as error:
        raise ClipError(f"clip {name!r} needs PyAV to be read: {install('av')}", "PyAV is missing") from error
    if not Path(name).is_file():
        raise ClipError(f"clip {name!r} does not exist or is not a regular file", "clip is missing")
    if Path(name).stat().st_size == 0:
        raise ClipError(f"clip {name!r} is empty (0 bytes)", "clip is empty")
    # By default the library reads GIF frames under two hundredths of a second as tenths, as browsers once did.
    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "min_delay": "1"}
    try:
        with av.open(f"file:{name}", options=options) as container:
            yield container, _video(name, container)
    except ClipError:
        raise
    except PermissionError as error:
        raise ClipError(f"clip {name!r} may not be read: permission denied", "clip cannot be read") from error
    except MemoryError as error:
        raise ClipError(f"clip {name!r} does not fit in memory", "clip is too large") from error
    except (av.FFmpegError, OSError, UnicodeError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise ClipError(f"clip {name!r} is not a readable video, or is damaged or truncated: {words}") from error


def _video(name: str, container: InputContainer) -> VideoStream:
    import av.stream

    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        if container.streams.audio:
            raise ClipError(f"clip {name!r} has no video, only audio", "no video")
        raise ClipError(f"clip {name!r} is damaged or truncated, or has no video")
    stream = streams[0]
    if stream.codec_context is None:
        raise ClipError(f"clip {name!r} is damaged, or in a video format that is not read")
    if not stream.width or not stream.height:
        raise ClipError(f"clip {name!r} is damaged or truncated: its frames have no size")
    width, height = square_size(stream.width, stream.height, stream.sample_aspect_ratio)
    if width * height > MAX_PIXELS:
        size = f"{width}x{height}"
        raise ClipError(f"clip {name!r} has {size} pixels; at most 7680x4320 are read", "clip is too large")
    return stream


def _one_frame(name: str) -> ClipError:
    return ClipError(f"clip {name!r} has one frame only; it is a picture, not a clip", "one frame only")


def _count_and_rate(container: InputContainer, stream: VideoStream) -> tuple[int, float]:
    """Number of frames, and mean frames per second (25 if unknown)."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    rate = float(rate) if rate and 0 < rate <= 1000 else 25.0
    joined = container.format.name == JOINING
    if stream.frames and not joined:
        return stream.frames, rate
    # Matroska and MPEG headers do not tell; going through the packets decodes nothing.
    packets, unit = [packet for packet in container.demux(stream) if packet.size], float(stream.time_base or 0)
    container.seek(0)
    lengths = [packet.duration * unit for packet in packets if packet.duration]
    if joined and unit and len(lengths) > 1:
        return even_rate(lengths, unit)
    times = [packet.pts for packet in packets if packet.pts is not None]
    span = (max(times) - min(times)) * unit if times else 0.0
    if span and rate > TOO_FAST * (len(times) - 1) / span:
        rate = (len(times) - 1) / span
    return len(packets), rate


def _end(container: InputContainer, stream: VideoStream) -> float | None:
    """The video's length in seconds, from its header; None if the header does not tell."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def _decoded(name: str, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise ClipError(f"clip {name!r} is damaged or truncated: a frame cannot be decoded")
        wide = high_dynamic_range(stream)
        if wide is not None:
            sentence = f"clip {name!r} has HDR colours ({wide}), which are not read; convert it to SDR (bt.709) first"
            raise ClipError(sentence, "clip is HDR")
        yield frame


def _decoded_from(
    name: str, container: InputContainer, stream: VideoStream, start: float
) -> Iterator[tuple[float, VideoFrame]]:
    """(time in seconds, frame) from the frame shown at `start`, or an earlier one, on."""
    unit = float(stream.time_base or 0)
    origin = None if stream.start_time is None else stream.start_time * unit
    if start and unit and stream.start_time is not None:
        container.seek(stream.start_time + int(start / unit), stream=stream, backward=True)
        first = next(container.decode(stream), None)
        landed = None if first is None or first.time is None or first.is_corrupt else first.time - (origin or 0.0)
        # Containers without seeking are read from their beginning.
        later = landed is None or landed > start + EARLY
        container.seek(0 if later else stream.start_time + int(start / unit), stream=None if later else stream)
    for frame in _decoded(name, container, stream):
        time = frame.time or 0.0
        origin = time if origin is None else origin
        yield time - origin, frame


def _at_even_times(
    name: str,
    container: InputContainer,
    stream: VideoStream,
    rates: tuple[float, float],
    start: float,
    wanted: int | None,
) -> Iterator[VideoFrame]:
    """The frames shown at the times start + i / rate, as long as there are any; `rates` are own and wanted."""
    lasts, taken, seen, end = 1 / rates[0], 0, 0, 0.0
    early = min(EARLY, EARLY_SHARE * lasts)
    shown: VideoFrame | None = None

    def due(at: float, early: float = early) -> bool:
        return start + taken / rates[1] + early < at and (wanted is None or taken < wanted)

    for time, frame in _decoded_from(name, container, stream, start):
        while due(time):
            yield shown or frame
            taken += 1
        own = float((frame.duration or 0) * (frame.time_base or 0)) if container.format.name == JOINING else 0.0
        shown, seen, end = frame, seen + 1, time + max(lasts, own)
        if wanted is not None and taken >= wanted:
            return
    if shown is None:
        return
    if seen == 1 and not start:
        raise _one_frame(name)
    promised = _end(container, stream)
    if promised is not None and end < promised - max(1.5 * lasts, 0.1):
        sentence = f"clip {name!r} is truncated: it ends after {end:.2f} of {promised:.2f} seconds"
        raise ClipError(sentence, "clip is truncated")
    last = end - lasts
    if promised is not None and last < promised < end:
        end = promised
    while due(end, min(early, (end - last) / 2)):
        yield shown
        taken += 1
