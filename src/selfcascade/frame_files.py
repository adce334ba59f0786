"""Clips that are no video files: an animated .webp, or a folder of pictures in the order of their names."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from selfcascade.clips import MAX_BYTES, MAX_PIXELS, ClipError, ClipInfo
from selfcascade.images import FORMATS, file_sha256, read_image, to_rgb
from selfcascade.outputs import read_record

FPS = 8.0  # of what does not say
# A frame counts as shown this share of a frame early: a .webp rounds its times to milliseconds.
EARLY = 0.05


def are_frames(path: Path) -> bool:
    """Whether it is a folder, or a .webp of several frames."""
    if path.is_dir():
        return True
    if path.suffix.lower() != ".webp" or not path.is_file():
        return False
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError):
        return False


def frames_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, or of all pictures' names and bytes of a folder, in hexadecimal."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in _pictures(path):
        digest.update(f"{file.name} {file_sha256(file)} ".encode())
    return digest.hexdigest()


def probe_frames(path: Path) -> ClipInfo:
    """Size, rate and length; the rate of a folder is that of the record beside it, 8 where there is none.

    Raises:
        ClipError: There are not two pictures, or one cannot be read.
    """
    if path.is_dir():
        files = _pictures(path)
        first, count, fps = read_image(files[0]), len(files), _recorded_fps(path) or FPS
    else:
        with _webp(path) as image:
            first, count = image, image.n_frames  # type: ignore[attr-defined]
            if first.width * first.height > MAX_PIXELS:
                size = f"{first.width}x{first.height}"
                raise ClipError(f"clip {str(path)!r} has {size} pixels; at most 7680x4320 are read")
            seconds = sum(_lasts(frame) for frame in ImageSequence.Iterator(image)) / 1000
            fps = count / seconds if seconds else FPS
    if count < 2:
        raise ClipError(f"clip {str(path)!r} has one frame only; it is a picture, not a clip", "one frame only")
    return ClipInfo(first.height, first.width, fps, count / fps, count)


def read_frames(
    path: Path, info: ClipInfo, frames: int | None = None, fps: float | None = None, start: float = 0.0
) -> tuple[np.ndarray, float]:
    """Frames at even times, of each time the one that is shown then; as `read_clip`, with what `probe_frames` found.

    Raises:
        ClipError: There are too few frames, they are of several sizes or over 4 GiB, or one cannot be read.
    """
    rate = fps or info.fps
    most = math.ceil((info.frames / info.fps - start) * rate - EARLY)
    count = most if frames is None else frames
    if most < count or count < 1:
        sentence = (
            f"clip {str(path)!r} has {max(0, most)} frames at {rate:g} fps from {start:g} s on, {count} are wanted"
        )
        raise ClipError(sentence, "clip is too short")
    if count * info.height * info.width * 3 > MAX_BYTES:
        raise ClipError(f"clip {str(path)!r} has more than 4 GiB of frames; read fewer at a time with frames and start")
    numbers = [min(int((start + index / rate) * info.fps + EARLY), info.frames - 1) for index in range(count)]
    shown = _shown(path, set(numbers))
    if len({picture.shape for picture in shown.values()}) > 1:
        raise ClipError(f"clip {str(path)!r} changes its size on the way", "clip changes its size")
    return np.stack([shown[number] for number in numbers]), float(rate)


def _shown(path: Path, numbers: set[int]) -> dict[int, np.ndarray]:
    if path.is_dir():
        files = _pictures(path)
        return {number: np.asarray(read_image(files[number])) for number in numbers}
    with _webp(path) as image:
        steps = enumerate(ImageSequence.Iterator(image))
        return {number: np.asarray(to_rgb(frame.copy())) for number, frame in steps if number in numbers}


@contextlib.contextmanager
def _webp(path: Path) -> Iterator[Image.Image]:
    """The file; whatever Pillow raises meanwhile becomes a ClipError."""
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            yield image
    except ClipError:
        raise
    except (OSError, ValueError, SyntaxError) as error:
        raise ClipError(f"clip {str(path)!r} is damaged or truncated: {error}") from error


def _lasts(frame: Image.Image) -> int:
    """Milliseconds, which a .webp's frame has when it is decoded, not before."""
    frame.load()
    return frame.info.get("duration", 0)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, by name; its other files and hidden ones are no frames."""
    known = {ending for ending, format_ in Image.registered_extensions().items() if format_ in FORMATS}
    files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = sorted(file for file in files if file.suffix.lower() in known)
    if not found:
        raise ClipError(f"clip {str(folder)!r} is a folder without pictures", "no frames")
    return found


def _recorded_fps(folder: Path) -> float | None:
    try:
        fps = read_record(folder.with_suffix(".json"), "selfcascade.clip")["result"]["fps"]
    except (ValueError, KeyError, TypeError):
        return None
    return float(fps) if isinstance(fps, (int, float)) and math.isfinite(fps) and fps > 0 else None
