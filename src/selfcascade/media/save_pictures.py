"""Writes pictures, completely or not at all, each with its settings in the file and in a sidecar."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, features

from selfcascade.media.endings import ending_of
from selfcascade.media.exif import add_to_tiff, user_comment
from selfcascade.media.whole_files import temporary_file

SCHEMA = 1
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".avif": "AVIF"}
CHUNK = "selfcascade"
EXIF_LIMIT = 65_000
MAX_NAME = 200
WEBP_SIDE = 16383  # most pixels of a side that the format holds
LIBRARIES = ("selfcascade", "torch", "diffusers", "transformers", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of selfcascade, Python and the libraries that affect pixels."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def check_output(path: Path, extensions: tuple[str, ...] = EXTENSIONS) -> None:
    """Checks, before anything expensive runs, that a picture can be written.

    Args:
        path: Path of the file.
        extensions: Allowed extensions, in lower case.

    Raises:
        ValueError: The extension is unknown, the path a folder, or its folder cannot be written to.
    """
    if ending_of(path) not in extensions:
        raise ValueError(f"output must end in {', '.join(extensions)}, not {path.name!r}")
    if ending_of(path) == ".avif" and not features.check("avif"):
        raise ValueError("output .avif needs a build of Pillow with AVIF, as those on PyPI are; write another format")
    check_place(path)
    if path.is_dir():
        raise ValueError(f"output {str(path)!r} is a folder; give a file name in it")


def check_place(path: Path, name: str = "output") -> None:
    """The part of `check_output` that also applies to folders.

    Args:
        path: Path of the file or folder to write.
        name: The caller's name for it, for messages.

    Raises:
        ValueError: The name is too long, or its folder cannot be written to.
    """
    if len(os.fsencode(path.name)) > MAX_NAME:
        raise ValueError(f"{name}'s file name has over {MAX_NAME} bytes: {path.name[:40]!r}...")
    try:
        folder = path.parent
        while folder != folder.parent and not os.path.lexists(folder):
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{name} folder {str(path.parent)!r} cannot be written to: {error.strerror}") from error


def save_picture(
    image: Image.Image, record: dict[str, Any], path: Path, parameters: str, force: bool = False
) -> tuple[Path, Path]:
    """Writes a picture and its JSON sidecar; a file only gets its name once it is complete.

    Args:
        image: RGB picture.
        record: The record for the sidecar and, without the stages' seconds, for the file itself (a PNG's chunk or the
            EXIF maker's note): the same settings and seed give the same bytes.
        path: A .png, .webp or .tiff (lossless), or .jpg or .avif (quality 95).
        parameters: Text that other tools read, for a PNG's `parameters` chunk or the EXIF user comment.
        force: Whether to overwrite; otherwise a taken name gets the first free number, "name-2.png".

    Returns:
        The paths of the picture and the sidecar.
    """

    def encode(file: Path) -> None:
        _encode(image, file, ending_of(path), parameters, record)

    return save_with_record(path, record, encode, force)


def write_picture(image: Image.Image, record: dict[str, Any], path: Path, parameters: str) -> None:
    """Writes only the file of a picture, with the metadata of `save_picture`, replacing an existing one."""
    _encode(image, path, ending_of(path), parameters, record)


def save_with_record(
    path: Path, record: dict[str, Any], encode: Callable[[Path], None], force: bool = False
) -> tuple[Path, Path]:
    """Writes a file that `encode` fills, and its JSON sidecar; otherwise like `save_picture`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path.parent) as picture_file, temporary_file(path.parent) as sidecar_file:
        encode(picture_file)
        sidecar_file.write_bytes(sidecar_bytes(record))
        if force:
            _replace(path, picture_file, sidecar_file)
            return path, path.with_suffix(".json")
        for picture in free_names(path):
            beside = picture.with_suffix(".json")
            # The sidecar is written first, so that every existing picture can be reproduced.
            if not os.path.lexists(picture) and publish(sidecar_file, beside):
                if publish(picture_file, picture):
                    return picture, beside
                beside.unlink()
    raise OSError(f"no free name beside {path}")


def sidecar_bytes(record: dict[str, Any]) -> bytes:
    """A record in the form of its file."""
    return (json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parameters_text(prompt: str, negative_prompt: str | None, fields: dict[str, Any]) -> str:
    """Settings as the `parameters` text that web UIs read: prompt, negative prompt, "Key: value, ..."."""
    lines = [prompt] + ([f"Negative prompt: {negative_prompt}"] if negative_prompt else [])
    given = ((key, str(value)) for key, value in fields.items() if value is not None)
    separators = set(",:\n")  # values that contain one are quoted, as those tools do
    pairs = [f"{key}: {json.dumps(text) if separators & set(text) else text}" for key, text in given]
    return "\n".join([*lines, ", ".join(pairs)])


def _encode(image: Image.Image, file: Path, extension: str, parameters: str, record: dict[str, Any]) -> None:
    kept = kept_record(record)
    if extension == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", parameters)
        info.add_itxt(CHUNK, kept)
        image.save(file, "PNG", pnginfo=info)
    elif extension in (".tif", ".tiff"):
        image.save(file, "TIFF", compression="tiff_lzw")
        add_to_tiff(file, parameters, kept)
    else:
        options = {".webp": {"lossless": True}, ".avif": {"quality": 95, "subsampling": "4:4:4"}}
        chosen: dict[str, Any] = options.get(extension, {"quality": 95, "subsampling": 0})
        for exif in (user_comment(parameters, kept), user_comment(parameters)):
            if len(exif) <= EXIF_LIMIT:  # a longer one does not fit into a JPEG; the sidecar has it
                chosen["exif"] = exif
                break
        image.save(file, FORMATS[extension], **chosen)


def kept_record(record: dict[str, Any]) -> str:
    """A record as it is kept in the file of what it made."""
    return json.dumps(untimed(record), ensure_ascii=False)


def untimed(value: Any) -> Any:
    """A record without measured seconds, which differ from run to run."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key != "seconds"}
    return [untimed(item) for item in value] if isinstance(value, list) else value


def free_names(path: Path) -> Iterator[Path]:
    """The path, followed by numbered names to try."""
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in range(2, 100_000))


def publish(file: Path, path: Path) -> bool:
    """Gives a complete file its name; returns False if the name is taken, even by another process just now."""
    try:
        os.link(file, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            return False
    file.replace(path)
    return True


def _replace(path: Path, picture: Path, sidecar: Path) -> None:
    """Replaces an earlier picture and its sidecar, which are kept if that fails or is interrupted.

    The earlier sidecar is removed first, and the new one comes last: even if the process is killed, no picture has
    another's record next to it.
    """
    beside = path.with_suffix(".json")
    with temporary_file(path.parent) as earlier, temporary_file(path.parent) as earlier_record:
        there = path.exists()
        if there:
            shutil.copy2(path, earlier)
        recorded = os.path.lexists(beside)
        if recorded:
            beside.replace(earlier_record)
        try:
            picture.replace(path)
            sidecar.replace(beside)
        except BaseException:
            if sidecar.exists():  # otherwise everything was done before Ctrl-C came
                if not picture.exists():
                    _put_back(earlier, path, there)
                _put_back(earlier_record, beside, recorded)
            raise


def _put_back(earlier: Path, path: Path, there: bool) -> None:
    if there:
        earlier.replace(path)
    else:
        path.unlink(missing_ok=True)
