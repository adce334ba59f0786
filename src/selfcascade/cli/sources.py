"""Reads the picture or clip that `upscale` enlarges."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.media.endings import CLIPS, ending_of
from selfcascade.media.frame_files import are_frames, frames_sha256, probe_frames, read_frames, recorded_fps
from selfcascade.media.images import read_image
from selfcascade.media.mp4_files import pyav
from selfcascade.media.video_files import probe_clip, read_clip
from selfcascade.options import Options
from selfcascade.options.checks import OptionError

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.pipeline import SelfCascade

# A .gif or .webp is read as a picture first, and as a clip if the model makes video.
VIDEO_EXTENSIONS = CLIPS - {".gif"}


def is_clip(path: Path) -> bool:
    """Whether a path can only be a clip: a video file, frames in a folder, or several in a .webp."""
    return ending_of(path) in VIDEO_EXTENSIONS or are_frames(path)


def read_source(options: Options) -> tuple[Image.Image | None, Options]:
    """Reads the picture to enlarge (None for a video or folder), and adds its checksum to the options.

    Raises:
        ValueError: The file cannot be read, or differs from the one that the options were recorded with.
    """
    if options.image is None:
        raise ValueError("image is missing")
    path = Path(options.image)
    if ending_of(path) in VIDEO_EXTENSIONS:
        pyav()
        probe_clip(path)
    elif are_frames(path):
        probe_frames(path)
    image = None if ending_of(path) in VIDEO_EXTENSIONS or path.is_dir() else read_image(path)
    sha256 = frames_sha256(path)
    if options.image_sha256 not in (None, sha256):
        raise ValueError(f"image {options.image!r} is not the file that was recorded (its SHA-256 differs)")
    return image, options.changed(image_sha256=sha256)


def source_for(cascade: SelfCascade, options: Options, image: Image.Image | None) -> tuple[Any, Options]:
    """The input for `SelfCascade.upscale`, once the model is known: the picture, or the frames of the clip.

    Returns:
        The picture or frames, (F, H, W, 3) bytes, and the options with the clip's length and frame rate.

    Raises:
        ValueError: The model makes pictures and the file is a video, or it cannot make clips of that length.
    """
    if not cascade.family.video:
        if image is None:
            raise ValueError(f"image {options.image!r} is a video, and model {options.model!r} makes pictures")
        return image, options
    from selfcascade.pipeline.calls import check_clips

    path, start = Path(str(options.image)), options.start or 0.0
    loose = are_frames(path)
    if not loose:
        pyav()

    def check(count: int) -> None:
        try:
            check_clips(cascade.family, count, options.shared_noise or 0.0)
        except OptionError as error:
            words = f"image {{file}} has {count} frames: {error.sentence}; use {{num_frames}}"
            raise OptionError(words, **{**error.values, "file": repr(str(path))}) from error

    info, most = (probe_frames if loose else probe_clip)(path), cascade.family.most_frames
    # A .gif rounds its times too coarsely to find a rate from them; other files state theirs.
    recorded = recorded_fps(path, info.duration) if ending_of(path) == ".gif" else None
    rate = options.fps or recorded
    held = round((info.duration - start) * (rate or info.fps))
    if options.num_frames is None and most is not None and held > most:
        check(held)  # before what is too long is decoded
    read = functools.partial(read_frames, path, info) if loose else functools.partial(read_clip, path)
    frames, fps = read(options.num_frames, rate, start=start)
    check(len(frames))
    return frames, options.changed(num_frames=len(frames), fps=float(fps))
