"""Checks and resolves output paths, and options that are for pictures or for clips only."""

from __future__ import annotations

from pathlib import Path

from selfcascade.cli.console import note
from selfcascade.making import OF_CLIPS, Made
from selfcascade.media.endings import CLIPS, ending_of
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.save_clips import CLIP_OUTPUTS, check_clip_output, save_clip, save_sheet
from selfcascade.media.save_pictures import EXTENSIONS, check_output, check_place, save_picture
from selfcascade.media.sound import Sound, sound_of
from selfcascade.options import Options
from selfcascade.options.checks import OptionError

DEFAULTS = Path("outputs")


def check_target(output: Path | None, options: Options, force: bool) -> None:
    """Checks an output before it is known whether the model makes pictures or video.

    Raises:
        ValueError: The output cannot be written.
    """
    if output is None:
        check_place(DEFAULTS / "picture.png")
        return
    extension = ending_of(output)
    if extension not in (*EXTENSIONS, *CLIP_OUTPUTS, ""):
        known = ", ".join(dict.fromkeys((*EXTENSIONS, *CLIP_OUTPUTS)))
        raise ValueError(f"output must end in {known}, not {output.name!r}")
    if extension in EXTENSIONS:
        check_output(output)
    else:
        check_clip_output(output, options.fps or DEFAULT_FPS, force)


def check_spares_source(source: str, output: Path | None, count: int) -> None:
    """Raises ValueError if outputs would overwrite the picture or clip to enlarge.

    Args:
        source: A file, with its record next to it, or a folder of frames.
        output: Path of the output; None means the default.
        count: Number of outputs.
    """
    own = Path(source).resolve()
    kept = {own, own.with_suffix(".json")}
    for path in [output] if output is not None else [DEFAULTS / "upscaled.png", DEFAULTS / "upscaled.mp4"]:
        named = [path, *(path.with_stem(f"{path.stem}-{number}") for number in range(2, count + 1))]
        written = {other.resolve() for name in named for other in (name, name.with_suffix(".json"))}
        folders = {folder for place in written for folder in place.parents}
        if written & (kept | set(own.parents)) or (own.is_dir() and own in folders):
            raise ValueError(f"output {str(path)!r} would be written over the image, {source!r}; give another output")


def target(output: Path | None, default: str, options: Options, video: bool, sheet: bool) -> Path:
    """The path to write to, now that the model is known.

    Raises:
        ValueError: The ending is not for what the model makes.
    """
    if video:
        path = output or DEFAULTS / ("clip.mp4" if default == "picture" else f"{default}.mp4")
        check_clip_output(path, options.fps or DEFAULT_FPS)
        return path
    check_of_clips(options, sheet)
    path = output or DEFAULTS / f"{default}.png"
    if ending_of(path) not in EXTENSIONS:
        known = ", ".join(EXTENSIONS)
        raise ValueError(f"output {str(path)!r} is for video, and model {options.model!r} makes pictures: use {known}")
    check_output(path)
    return path


def check_of_clips(options: Options, sheet: bool = False) -> None:
    """Raises OptionError if an option for video is given, but the model makes pictures."""
    given = [f"{{{name}}}" for name in OF_CLIPS if getattr(options, name) is not None] + ["--sheet"] * sheet
    if given:
        raise OptionError(f"{given[0]} is for video, and model {{found}} makes pictures", found=repr(options.model))


def sound_for(options: Options, output: Path) -> Sound | None:
    """The sound of the clip to enlarge; None if it has none, or cannot be kept, which a note explains."""
    path = Path(options.image or "")
    sound = sound_of(path, options.start or 0.0) if ending_of(path) in CLIPS else None
    obstacle = None if sound is None else sound.obstacle(output)
    if obstacle is not None:
        note(f"the sound of {str(path)!r} is not carried over: {obstacle}")
        return None
    return sound


def save(made: Made, path: Path, force: bool, sheet: bool, sound: Sound | None = None) -> list[Path]:
    """Writes a picture or clip, its sidecar and, if wanted, a contact sheet; returns the paths to print."""
    if made.frames is None:
        return [save_picture(made.image, made.record(), path, made.parameters(), force)[0]]
    fps = made.options.fps or DEFAULT_FPS
    clip, _ = save_clip(made.frames, fps, made.record(), path, made.parameters(), force, sound)
    heading = f"{made.options.prompt}  (seed {made.options.seed}, {len(made.frames)} frames at {fps:g} a second)"
    return [clip, save_sheet(made.frames, fps, clip, heading)] if sheet else [clip]
