"""Names of output files from a pattern: "{prompt:.30}-{seed}-{width}x{height}.png"."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.options.checks import nearest, shown

if TYPE_CHECKING:
    from selfcascade.making import Made

FIELDS: Mapping[str, object] = {
    "prompt": "a house",
    "negative_prompt": "fog",
    "seed": 0,
    "width": 1024,
    "height": 1024,
    "number": 1,
    "method": "self-cascade",
    "preset": "quality",
    "scheduler": "euler",
    "model": "bundled",
    "steps": 50,
    "guidance": 7.5,
}
# Wide enough for any use: a longer name, or a width of a million, is a mistake.
SPEC = re.compile(r"0?[0-9]{0,2}(\.[0-9]{1,3})?[dfg]?")
UNSAFE = re.compile(r"[^\w .,+=@()\[\]-]+")
MAX_BYTES = 160  # of a name's stem; with a number, the ending and ".json" it stays below file systems' limits
UNTITLED = "untitled"


def has_fields(path: Path) -> bool:
    """Whether a path is a pattern, which means that it has braces."""
    return "{" in str(path) or "}" in str(path)


def example(pattern: Path) -> Path:
    """An example of a path that the pattern gives, to check it before anything runs.

    Raises:
        ValueError: The pattern has an unknown field, or is malformed.
    """
    return named(pattern, FIELDS)


def name_of(pattern: Path, made: Made, number: int) -> Path:
    """The path of a picture or clip.

    Args:
        pattern: The pattern.
        made: The picture or clip.
        number: Number of the picture or clip in this command, from 1.
    """
    options = made.options
    values: dict[str, Any] = {name: getattr(options, name, None) for name in FIELDS}
    values |= {"width": made.image.width, "height": made.image.height, "number": number}
    values |= {"steps": _first(options.num_inference_steps), "guidance": _first(options.guidance_scale)}
    values["model"] = Path(options.model).name or options.model
    preset = options.preset
    values["scheduler"] = options.scheduler or made.sampler
    values["preset"] = preset if preset is None or isinstance(preset, str) else preset.name
    return named(pattern, values)


def named(pattern: Path, values: Mapping[str, object]) -> Path:
    """The pattern with its fields filled in; a value can never add a folder or lead out of one.

    Raises:
        ValueError: The pattern has an unknown field, or is malformed.
    """
    return Path(*(_part(part, pattern, values) for part in pattern.parts))


def _part(part: str, pattern: Path, values: Mapping[str, object]) -> str:
    if part == pattern.anchor or not has_fields(Path(part)):
        return part
    filled: list[str] = []
    for literal, name, spec, conversion in _parsed(part, pattern):
        filled.append(literal)
        if name is not None:
            filled.append(_value(pattern, name, spec or "", conversion, values))
    stem, dot, ending = "".join(filled).rpartition(".")
    if not dot or has_fields(Path(part.rpartition(".")[2])) or not ending.isalnum():
        stem, dot, ending = "".join(filled), "", ""
    stem = stem.encode()[:MAX_BYTES].decode(errors="ignore").strip()
    return f"{stem or UNTITLED}{dot}{ending}"


def _parsed(part: str, pattern: Path) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(part))
    except ValueError as error:
        raise ValueError(f"output {shown(str(pattern))} is not a valid pattern: {error}") from None


def _value(pattern: Path, name: str, spec: str, conversion: str | None, values: Mapping[str, object]) -> str:
    if name not in FIELDS:
        known = ", ".join(FIELDS)
        raise ValueError(f"output has an unknown field {shown(name)}; there are {known}{nearest(name, FIELDS)}")
    value = values.get(name)
    kind = type(FIELDS[name])
    form = SPEC.fullmatch(spec)
    if conversion is not None or form is None:
        raise ValueError(f"output's field {name} may say a width or a precision, as {{{name}:.30}}, not {spec!r}")
    try:
        format(FIELDS[name], spec)
    except ValueError as error:
        raise ValueError(f"output's field {name} cannot be written as {spec!r}: {error}") from None
    text = "none" if value is None else format(kind(value) if kind is not str else str(value), spec)  # type: ignore[call-arg]
    return UNSAFE.sub("-", " ".join(text.split())).strip(" .-") or UNTITLED


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
