"""Clips that are not video files: an animated .webp, or a folder of pictures in the order of their names."""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from selfcascade.media.endings import UNREAD_PICTURES, ending_of
from selfcascade.media.frame_rates import DEFAULT_FPS, even_rate
from selfcascade.media.images import FORMATS, file_sha256, read_image, to_rgb
from selfcascade.media.read_records import read_record
from selfcascade.media.video_files import EARLY, EARLY_SHARE, MAX_BYTES, MAX_PIXELS, ClipError, ClipInfo


def are_frames(path: Path) -> bool:
    """Whether the path is a folder, or a .webp with several frames."""
    if path.is_dir():
        return True
    if ending_of(path) != ".webp" or not path.is_file():
        return False
    try:
        with _opened(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def frames_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, or of the names and bytes of all pictures in a folder, in hexadecimal."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in _pictures(path):
        digest.update(f"{file.name} {file_sha256(file)} ".encode())
    return digest.hexdigest()


def probe_frames(path: Path) -> ClipInfo:
    """Size, rate and length of a clip; the rate is taken from the record next to it, if there is one.

    Without a record, a folder has 8 frames per second, and a .webp the rate of its shortest pictures.

    Raises:
        ClipError: There are fewer than two pictures, or one cannot be read.
    """
    if path.is_dir():
        files = _pictures(path)
        first, pictures = read_image(files[0]), len(files)
        count, fps = pictures, recorded_fps(path) or DEFAULT_FPS
        seconds = count / fps
    else:
        with _webp(path) as image:
            first, pictures = image, image.n_frames  # type: ignore[attr-defined]
            if first.width * first.height > MAX_PIXELS:
                sentence = f"clip {str(path)!r} has {first.width}x{first.height} pixels; at most 7680x4320 are read"
                raise ClipError(sentence, "clip is too large")
            lengths = [_lasts(frame) for frame in ImageSequence.Iterator(image)]
        *_, seconds = itertools.accumulate(lengths)
        count, fps = even_rate(lengths, unit=0.001)
        recorded = recorded_fps(path, seconds)
        if recorded is not None:
            count, fps = round(seconds * recorded), recorded
    if pictures < 2:
        raise ClipError(f"clip {str(path)!r} has one frame only; it is a picture, not a clip", "one frame only")
    return ClipInfo(first.height, first.width, fps, seconds, count)


def read_frames(
    path: Path, info: ClipInfo, frames: int | None = None, fps: float | None = None, start: float = 0.0
) -> tuple[np.ndarray, float]:
    """Frames at even times, each the one shown then; like `read_clip`, given the result of `probe_frames`.

    Raises:
        ClipError: There are too few frames, they are of several sizes or over 4 GiB, or one cannot be read.
    """
    rate, early = fps or info.fps, min(EARLY, EARLY_SHARE / info.fps)
    most = math.ceil((info.duration - early - start) * rate)
    count = most if frames is None else frames
    if most < count or count < 1:
        sentence = (
            f"clip {str(path)!r} has {max(0, most)} frames at {rate:g} fps from {start:g} s on, {count} are wanted"
        )
        raise ClipError(sentence, "clip is too short")
    if count * info.height * info.width * 3 > MAX_BYTES:
        raise ClipError(f"clip {str(path)!r} has more than 4 GiB of frames; read fewer at a time with frames and start")
    times = [start + index / rate + early for index in range(count)]
    rows: list[np.ndarray] = []
    for end, picture in _shown(path, info):
        due = bisect.bisect_left(times, end) - len(rows)
        if due > 0:
            rows += [picture()] * due
        if len(rows) == count:
            break
    rows += rows[-1:] * (count - len(rows))  # if rounding put the last time at the very end
    if len({row.shape for row in rows}) > 1:
        raise ClipError(f"clip {str(path)!r} changes its size on the way", "clip changes its size")
    return np.stack(rows), float(rate)


def _shown(path: Path, info: ClipInfo) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """For each picture the time in seconds at which it ends, and a function that reads it, (H, W, 3) uint8."""
    if path.is_dir():
        for number, file in enumerate(_pictures(path), 1):
            yield number / info.fps, functools.partial(_pixels, file)
        return
    end = 0.0
    with _webp(path) as image:
        for frame in ImageSequence.Iterator(image):
            end += _lasts(frame)
            yield end, functools.partial(_copy, frame)


def _opened(path: Path) -> Image.Image:
    # Sizes are checked before decoding, so Pillow's own warning is not needed.
    with warnings.catch_warnings(action="ignore"):
        return Image.open(path, formats=["WEBP"])


@contextlib.contextmanager
def _webp(path: Path) -> Iterator[Image.Image]:
    """The opened file; any error of Pillow in this context becomes a ClipError."""
    try:
        with _opened(path) as image:
            yield image
    except ClipError:
        raise
    except Image.DecompressionBombError as error:
        sentence = f"clip {str(path)!r} has too many pixels; at most 7680x4320 are read"
        raise ClipError(sentence, "clip is too large") from error
    except MemoryError as error:
        raise ClipError(f"clip {str(path)!r} does not fit in memory", "clip is too large") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ClipError(f"clip {str(path)!r} is damaged or truncated: {error}") from error


def _lasts(frame: Image.Image) -> float:
    """Seconds that a .webp's frame is shown, which is only known once it is decoded."""
    frame.load()
    return (frame.info.get("duration", 0) or 1000 / DEFAULT_FPS) / 1000


def _copy(frame: Image.Image) -> np.ndarray:
    return np.asarray(to_rgb(frame.copy()))


def _pixels(file: Path) -> np.ndarray:
    return np.asarray(read_image(file))


def _pictures(folder: Path) -> list[Path]:
    """Pictures of a folder sorted by name, "9.png" before "10.png", without other and hidden files."""
    known = {ending for ending, format_ in Image.registered_extensions().items() if format_ in FORMATS}
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    lost = sorted(file.name for file in files if ending_of(file) in UNREAD_PICTURES and ending_of(file) not in known)
    if lost:
        raise ClipError(f"clip {str(folder)!r}: {lost[0]!r} is of a format that is not read; save its frames as .png")
    found = sorted((file for file in files if ending_of(file) in known), key=_in_numbers)
    if not found:
        raise ClipError(f"clip {str(folder)!r} is a folder without pictures", "no frames")
    return found


def _in_numbers(file: Path) -> tuple[list[tuple[float, str]], str]:
    """A sort key that compares digits as numbers."""
    parts = re.findall(r"[0-9]+|[^0-9]+", file.stem)
    return [(int(part), "") if part[0] in "0123456789" else (math.inf, part) for part in parts], file.name


def recorded_fps(path: Path, seconds: float | None = None) -> float | None:
    """The rate in the record next to a clip; None if there is none, or it is for another length.

    Args:
        path: Path of the clip.
        seconds: Duration of the clip; None if only the record tells.
    """
    try:
        result = read_record(path.with_suffix(".json"), "selfcascade.clip")["result"]
        fps, frames = result["fps"], result["frames"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
        return None
    return float(fps) if seconds is None or round(seconds * fps) == frames else None
