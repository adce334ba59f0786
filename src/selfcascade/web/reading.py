"""Reads settings from a picture that a visitor drops on the page: its record, or other tools' `parameters`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

from selfcascade.making import read_options
from selfcascade.media.endings import ending_of
from selfcascade.media.save_pictures import CHUNK
from selfcascade.options import Options
from selfcascade.options.checks import OptionError

MAX_TEXT, MAX_RECORD = 100_000, 1_000_000
PAIR = re.compile(r'\s*([A-Za-z][\w \-/]{0,60}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
MAX_LINE = 10_000  # of the last line, which has the pairs
TAKEN = {"Steps": "num_inference_steps", "CFG scale": "guidance_scale", "Seed": "seed", "Size": "size"}
# Options that decide a picture: no paths, and nothing that depends on the machine.
LEFT_OUT = frozenset({"model", "device", "dtype", "native_size", "image", "image_sha256"}) | {
    *("weights", "upsamplers", "pivot_upscaler")
}


def read_settings(file: Path, name: str) -> tuple[Options, str]:
    """The options in a file, without those that depend on the machine, and a note for the visitor.

    Args:
        file: A .png with a record or `parameters`, or the .json next to a picture.
        name: The visitor's name for the file.

    Raises:
        ValueError: The file has no settings.
    """
    if ending_of(file) not in (".png", ".json"):
        raise ValueError(f"{name!r} must be a .png made by selfcascade or another tool, or the .json beside one")
    if ending_of(file) == ".json" and file.stat().st_size > MAX_RECORD:
        raise ValueError(f"{name!r} has over {MAX_RECORD // 1000} kB, which no record has")
    text = "" if ending_of(file) == ".json" else _parameters(file, name)
    if text is not None and ending_of(file) == ".png":
        return read_parameters(text), f"read from the parameters of {name}"
    try:
        options, _ = read_options(file)
    except ValueError as error:
        raise ValueError(str(error).replace(repr(str(file)), repr(name)).replace(str(file), name)) from error
    left = {field: None for field in LEFT_OUT - {"model"}}
    remark = f"read from {name}, made with the model {options.model!r}"
    return options.changed(**left, model="bundled", method="self-cascade"), remark


def read_parameters(text: str) -> Options:
    """Prompt, negative prompt, steps, guidance, seed and size from a `parameters` text; other fields are ignored.

    Raises:
        ValueError: The text is malformed, or a value is out of range.
    """
    lines = text[:MAX_TEXT].strip().splitlines()
    fields = _pairs(lines[-1]) if lines and "Steps:" in lines[-1] else {}
    if not fields:
        raise ValueError("the picture's parameters have another form than other tools write")
    words = "\n".join(lines[:-1])
    prompt, _, negative = words.partition("Negative prompt:")
    given: dict[str, Any] = {"prompt": prompt.strip()}
    if negative.strip():
        given["negative_prompt"] = negative.strip()
    try:
        for field, option in TAKEN.items():
            value = fields.get(field, "").strip().strip('"')
            if value and option == "size":
                given["width"], given["height"] = (int(side) for side in value.split("x"))
            elif value:
                kind = float if option == "guidance_scale" else int
                several = tuple(kind(part) for part in value.split())
                given[option] = several[0] if len(several) == 1 else several
        return Options(**given)
    except OptionError:
        raise
    except ValueError:
        raise ValueError("the picture's parameters have a value that is not a number") from None


def _pairs(line: str) -> dict[str, str]:
    """Names and values with commas between them; what is no pair is left out."""
    found, place, line = dict[str, str](), 0, line[:MAX_LINE]
    while place < len(line):
        pair = PAIR.match(line, place)
        if pair is not None:
            found[pair[1]] = pair[2]
        place = pair.end() if pair is not None else (line.find(",", place) + 1 or len(line))
    return found


def _parameters(file: Path, name: str) -> str | None:
    """The `parameters` of a PNG without our record; None if it has one."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            found = dict(image.info)
    except Exception as error:  # a broken header fails in many ways
        raise ValueError(f"{name!r} cannot be read as a PNG picture") from error
    if isinstance(found.get(CHUNK), str):
        try:
            json.loads(found[CHUNK])
        except (ValueError, RecursionError):
            raise ValueError(f"{name!r} has a damaged record") from None
        return None
    if not isinstance(found.get("parameters"), str):
        raise ValueError(f"{name!r} has neither a record of selfcascade nor parameters of another tool")
    return found["parameters"]
