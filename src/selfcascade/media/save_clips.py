"""Writes clips: an .mp4, an animated .gif or .webp, or a folder of .png frames, each with its JSON sidecar."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin

from selfcascade.media.endings import ending_of
from selfcascade.media.exif import user_comment
from selfcascade.media.frame_rates import MAX_FPS, MIN_FPS
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.mp4_files import pyav, write_mp4
from selfcascade.media.save_pictures import (
    CHUNK,
    check_output,
    check_place,
    free_names,
    kept_record,
    publish,
    save_with_record,
    sidecar_bytes,
)
from selfcascade.media.sound import Sound
from selfcascade.media.whole_files import temporary_prefix, write_whole
from selfcascade.options.checks import is_number

CLIP_OUTPUTS = (".mp4", ".gif", ".webp")
FRAME_NAME = re.compile(r"[0-9]{4,}\.png")
MAX_GIF_FPS = 100.0  # frames of a GIF last whole hundredths of a second
SHEET_FRAMES, SHEET_COLUMNS, SHEET_SIDE = 16, 4, 192


def check_clip_output(path: Path, fps: float, force: bool = False) -> None:
    """Checks, before anything expensive runs, that a clip can be written.

    Args:
        path: Path of a file, or, without an extension, of a folder of frames.
        fps: Frames per second.
        force: Whether an existing clip will be overwritten.

    Raises:
        ValueError: The extension is unknown, the path cannot be written, a folder to overwrite has files other than
            frames, a folder has the name of the sidecar, PyAV is missing, or `fps` is out of range.
    """
    check_fps(fps)
    if not path.suffix:
        if path.name in ("", ".."):
            raise ValueError(f"output {str(path)!r} has no name; give a new folder for the frames, or {_endings()}")
        check_place(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"output {str(path)!r} is a file; give a folder for the frames, or {_endings()}")
        if force:
            _check_replaceable(path)
        return
    if ending_of(path) == ".gif" and fps > MAX_GIF_FPS:
        raise ValueError(f"fps of a .gif must be at most {MAX_GIF_FPS:g}, not {fps!r}; write a .webp or .mp4")
    if ending_of(path) not in CLIP_OUTPUTS:
        raise ValueError(f"output of video must end in {_endings()}, or be a folder for frames, not {path.name!r}")
    check_output(path, CLIP_OUTPUTS)
    if force:
        _check_sidecar(path)
    if ending_of(path) == ".mp4":
        pyav()


def check_fps(fps: object) -> None:
    """Raises ValueError unless `fps` is a frame rate that players support."""
    if not is_number(fps, MIN_FPS, MAX_FPS):
        raise ValueError(f"fps must be a number from {MIN_FPS:g} to {MAX_FPS:g}, not {fps!r}")


def save_clip(
    frames: Sequence[Image.Image],
    fps: float,
    record: dict[str, Any],
    path: Path,
    parameters: str,
    force: bool = False,
    sound: Sound | None = None,
) -> tuple[Path, Path]:
    """Writes a clip and its JSON sidecar; a file only gets its name once it is complete.

    The same frames give the same bytes. Only a .webp and a folder are lossless: an .mp4 halves the resolution of
    colours (4:2:0, which every player supports), and a .gif has 256 colours per frame.

    Args:
        frames: RGB frames of one size; sides must be even for .mp4.
        fps: Frames per second, on average: frames of a .gif last whole hundredths, of a .webp whole thousandths.
        record: The record for the sidecar and, without the seconds, for the clip itself: an .mp4's description, the
            WebP's EXIF maker's note, or a chunk of the first frame. A .gif has no place for it.
        path: A .mp4, .gif or .webp (lossless), or a folder, without an extension, for 0001.png and so on.
        parameters: Text for the comment of an .mp4 or .gif, a WebP's EXIF, or the frames' `parameters` chunk.
        force: Whether to overwrite; otherwise a taken name gets the first free number, "name-2.mp4".
        sound: Sound for an .mp4.

    Returns:
        The paths of the clip and the sidecar.

    Raises:
        ValueError: There are no frames, their sizes differ or are odd, or the path or `fps` cannot be used.
    """
    if not frames or len({frame.size for frame in frames}) > 1:
        raise ValueError(f"frames must be pictures of one size, not {len(frames)} of {len({f.size for f in frames})}")
    check_clip_output(path, fps, force)
    if not path.suffix:
        return _save_folder(frames, record, path, parameters, force)
    ending = ending_of(path)

    def encode(file: Path) -> None:
        write_clip(frames, fps, file, parameters, ending, sound, record)

    return save_with_record(path, record, encode, force)


def write_clip(
    frames: Sequence[Image.Image],
    fps: float,
    file: Path,
    parameters: str,
    ending: str,
    sound: Sound | None = None,
    record: dict[str, Any] | None = None,
) -> None:
    """Writes only a clip's file, replacing an existing one; arguments as in `save_clip`, and the format's ending."""
    kept = None if record is None else kept_record(record)
    if ending == ".mp4":
        write_mp4(frames, fps, file, parameters, sound, kept)
    elif ending == ".webp":
        write_webp(frames, fps, file, parameters, record=kept)
    else:
        _write_gif(frames, fps, file, parameters)


def save_sheet(frames: Sequence[Image.Image], fps: float, clip: Path, heading: str = "") -> Path:
    """Writes a contact sheet next to a clip, "name.sheet.png": up to 16 evenly spaced frames with their times."""
    count = min(len(frames), SHEET_FRAMES)
    chosen = [round(index * (len(frames) - 1) / max(1, count - 1)) for index in range(count)]
    panels = [Panel(frames[index], f"{index / fps:.2f} s", f"frame {index + 1} of {len(frames)}") for index in chosen]
    sheet = picture_grid(panels, min(count, SHEET_COLUMNS), SHEET_SIDE, heading)
    path = clip.with_name(f"{clip.stem}.sheet.png")
    write_whole(path, lambda file: sheet.save(file, "PNG"))
    return path


def clip_sha256(frames: Sequence[Image.Image]) -> str:
    """The SHA-256 of all frames' sizes and pixels, in hexadecimal, independent of the file format."""
    digest = hashlib.sha256(f"{len(frames)} frames ".encode())
    for frame in frames:
        digest.update(f"{frame.mode} {frame.width} {frame.height} ".encode())
        digest.update(frame.tobytes())
    return digest.hexdigest()


def _write_gif(frames: Sequence[Image.Image], fps: float, file: Path, comment: str) -> None:
    options: dict[str, Any] = {"duration": [10 * length for length in _durations(len(frames), 100 / fps)], "loop": 0}
    frames[0].save(
        file, "GIF", save_all=True, append_images=list(frames[1:]), comment=comment.encode(), disposal=1, **options
    )


def write_webp(
    frames: Sequence[Image.Image],
    fps: float,
    file: Path | BinaryIO,
    comment: str = "",
    quality: int | None = None,
    record: str | None = None,
) -> None:
    """Writes an animated .webp that loops: lossless, or with a quality from 0 to 100.

    The record, as JSON, goes with the comment into its EXIF.
    """
    options: dict[str, Any] = {"duration": _durations(len(frames), 1000 / fps), "loop": 0}
    options |= {"lossless": True} if quality is None else {"quality": quality, "method": 6}
    if comment:
        options["exif"] = user_comment(comment, record)
    frames[0].save(file, "WEBP", save_all=True, append_images=list(frames[1:]), **options)


def _save_folder(
    frames: Sequence[Image.Image], record: dict[str, Any], path: Path, parameters: str, force: bool
) -> tuple[Path, Path]:
    info, first = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    for one in (info, first):
        one.add_text("parameters", parameters)
    first.add_itxt(CHUNK, kept_record(record))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(path.parent), dir=path.parent) as place:
        filled = Path(place) / "frames"
        filled.mkdir()
        for index, frame in enumerate(frames, 1):
            frame.save(filled / f"{index:04}.png", pnginfo=first if index == 1 else info)
        sidecar = Path(place) / "sidecar"
        sidecar.write_bytes(sidecar_bytes(record))
        if force:
            _replace(path, filled, sidecar, Path(place))
            return path, path.with_suffix(".json")
        for folder in free_names(path):
            beside = folder.with_suffix(".json")
            # The sidecar is written first, as for pictures.
            if os.path.lexists(folder) or not publish(sidecar, beside):
                continue
            with contextlib.suppress(OSError):  # another process has just made it
                filled.rename(folder)
                return folder, beside
            beside.unlink()
    raise OSError(f"no free name beside {path}")


def _replace(folder: Path, filled: Path, sidecar: Path, place: Path) -> None:
    """Replaces earlier frames and their sidecar, which are restored if that fails or is interrupted.

    Args:
        folder: Path of the folder; the earlier one is removed with `place`.
        filled, sidecar: The new folder and sidecar.
        place: A temporary folder on the same file system.
    """
    _check_replaceable(folder)
    beside = folder.with_suffix(".json")
    # The old record is removed first, and the new one comes last: a kill never leaves frames with another's record.
    earlier = {beside: place / "earlier.json", folder: place / "earlier"}
    try:
        for path, aside in earlier.items():
            if os.path.lexists(path):
                path.rename(aside)
        filled.rename(folder)
        sidecar.rename(beside)
    except BaseException:
        if sidecar.exists():  # otherwise everything was done before Ctrl-C came
            if not filled.exists():
                folder.rename(filled)
            for path, aside in earlier.items():
                if os.path.lexists(aside):
                    aside.rename(path)
        raise


def _check_replaceable(folder: Path) -> None:
    """Raises ValueError if a folder to overwrite has files other than frames, or its sidecar is a folder."""
    _check_sidecar(folder)
    if folder.is_dir() and not all(FRAME_NAME.fullmatch(entry.name) for entry in folder.iterdir()):
        raise ValueError(f"output folder {str(folder)!r} holds other files than frames, and is not overwritten")


def _check_sidecar(path: Path) -> None:
    """Raises ValueError if a folder has the name of a clip's sidecar."""
    beside = path.with_suffix(".json")
    if beside.is_dir():
        raise ValueError(f"output {str(path)!r} has its record beside it, in {beside.name!r}, and that is a folder")


def _durations(count: int, length: float) -> list[int]:
    """Whole durations whose sums stay within half a unit of the true times."""
    ends = [round(index * length) for index in range(count + 1)]
    return [max(1, end - start) for start, end in itertools.pairwise(ends)]


def _endings() -> str:
    return ", ".join(CLIP_OUTPUTS)
