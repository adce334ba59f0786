"""Reads the record of what made a picture or a clip, from the .json beside it or from the file itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from selfcascade.media.endings import ending_of
from selfcascade.media.exif import record_in
from selfcascade.media.mp4_files import pyav, record_in_mp4
from selfcascade.media.save_pictures import CHUNK, EXTENSIONS, SCHEMA

FIRST_FRAME = "0001.png"


def read_record(path: Path, *kinds: str) -> dict[str, Any]:
    """Reads the record in a sidecar, in a picture, or in a clip.

    Args:
        path: .json, a picture in any format that `save_picture` writes, an .mp4, or a folder of frames. A .gif holds
            no record.
        kinds: Kinds of record that are accepted.

    Raises:
        ValueError: The file is missing or unreadable, or is not such a record. The message names it.
    """
    name, ending = str(path), ending_of(path)
    frames = path.is_dir() and (path / FIRST_FRAME).is_file()
    if ending not in (".json", ".mp4", *EXTENSIONS) and not frames:
        others = "" if ending != ".gif" else ", since a .gif holds no record"
        raise ValueError(
            f"{name!r} must be the .json beside a picture or clip, or a picture, .mp4 or folder of frames made by "
            f"selfcascade{others}"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{name!r} is not a regular file")
    if ending == ".mp4":
        pyav()
    try:
        record = json.loads(path.read_text("utf-8") if ending == ".json" else _text_in(path, frames))
    except FileNotFoundError as error:
        raise ValueError(f"{name!r} does not exist") from error
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name!r} holds no record of selfcascade: {' '.join(str(error).split())}") from error
    if not isinstance(record, dict) or record.get("kind") not in kinds:
        raise ValueError(f"{name!r} is not a record of kind {' or '.join(map(repr, kinds))}")
    if record.get("schema") != SCHEMA or isinstance(record["schema"], bool):
        raise ValueError(f"{name!r} has schema {record.get('schema')!r}; this version reads {SCHEMA}")
    return record


def _text_in(path: Path, frames: bool) -> str:
    """The record in a picture or a clip, as JSON."""
    if ending_of(path) == ".mp4":
        text = record_in_mp4(path)
        if text is None:
            raise ValueError("the clip has no description in its container")
        return text
    try:
        place = path / FIRST_FRAME if frames else path
        with Image.open(place, formats=("PNG", "JPEG", "WEBP", "AVIF", "TIFF")) as image:
            text = image.info.get(CHUNK) if image.format == "PNG" else record_in(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError("it is not a picture in a format that selfcascade writes") from error
    if not isinstance(text, str):
        raise ValueError(f"the picture has no {CHUNK!r} chunk or maker's note")
    return text
