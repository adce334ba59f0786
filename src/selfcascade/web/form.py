"""Makes the page's advanced settings from the list of options, and options from a visitor's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from selfcascade.cascade import Size
from selfcascade.options import Options, hints, uses
from selfcascade.options.checks import OptionError, allowed, item_of, kind_of, shown

# Text may name files of the machine, so only these text options are shown.
TEXTS = frozenset({"negative_prompt"})
# In front of the page, or decided by it.
FRONT = frozenset({"prompt", "height", "width", "scale", "pixels", "seed", "preset", "num_frames", "fps"})
TAKEN = frozenset({"all", "cascade", "vae_tiling"})
MAX_SEED = 2**53 - 1  # a larger one loses digits in a browser
RATIOS = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "3:4": 3 / 4, "2:3": 2 / 3, "9:16": 9 / 16}
YES_NO = {"yes": True, "no": False}


@dataclass(frozen=True)
class Entry:
    """One advanced setting.

    Attributes:
        kind: "choice", "whole", "number", "text", or "each" for one value or one per stage.
        choices: Choices of the kind "choice".
        bounds: Range of a number.
    """

    name: str
    kind: Literal["choice", "whole", "number", "text", "each"]
    help: str
    unless: str
    choices: tuple[str, ...] = ()
    values: str = ""

    @property
    def label(self) -> str:
        """Label of the field."""
        return label(self.name)


def label(name: str) -> str:
    """An option's label on the page."""
    words = {"num_inference_steps": "Steps", "num_frames": "Frames", "vae_tiling": "Decode in tiles", "fps": "FPS"}
    return words.get(name, name.replace("_", " ").capitalize())


def entries(command: str) -> list[Entry]:
    """The advanced settings: options of "compare" (for pictures) or "generate" (for clips) that are not in front.

    New options appear automatically if they are numbers or choices; text does not, since it may name files.
    """
    found = []
    for name, use in uses().items():
        if command in use.commands and use.passed and use.taken_by in TAKEN and name not in FRONT:
            entry = _entry(name, hints()[name], use.help, use.unless)
            if entry is not None:
                found.append(entry)
    return found


def options_of(base: Options, front: Mapping[str, Any], names: Sequence[Entry], values: Sequence[Any]) -> Options:
    """The options that a visitor has set.

    Args:
        base: Options of the command line.
        front: Options with their own fields, by name; None and "" count as not given.
        names: The advanced settings.
        values: Values of their fields.

    Raises:
        OptionError: A value cannot be used.
    """
    given = {name: value for name, value in front.items() if value is not None and value != ""}
    for name in ("seed", "height", "width", "num_frames"):
        if name in given:
            given[name] = _whole(name, given[name])
    if given.get("seed", 0) > MAX_SEED:
        raise OptionError(f"{{seed}} must be at most {MAX_SEED} on this page; use the command line")
    for entry, value in zip(names, values, strict=True):
        if value is not None and value != "":
            given[entry.name] = _value(entry, value)
    return base.changed(**given)


def typed(entry: Entry, value: Any) -> Any:
    """An option's value in the form of its field; "" if it is not given.

    Numbers are text too: an empty field for numbers is sent as 0, which would overrule the preset.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if entry.kind in ("each", "whole", "number"):  # all digits, to make a picture again
        return ", ".join(str(one).removesuffix(".0") for one in (value if isinstance(value, tuple) else (value,)))
    return value


def sides(native: Size, scale: float, ratio: str, multiple: int) -> Size:
    """The size with `scale` times the native sides, or as many pixels in another ratio, rounded for the model.

    Raises:
        OptionError: The ratio is unknown, or the scale is out of range.
    """
    if ratio not in RATIOS:
        raise OptionError(f"ratio must be one of {', '.join(RATIOS)}, not {{found}}", found=shown(ratio))
    scale = Options(scale=float(scale) if isinstance(scale, int) else scale).scale or 2.0
    if ratio == "1:1" and native.height != native.width:  # the model's own ratio
        wanted = (scale * native.height, scale * native.width)
    else:
        root = scale * math.sqrt(native.area)
        wanted = (root / math.sqrt(RATIOS[ratio]), root * math.sqrt(RATIOS[ratio]))
    return Size(*(max(1, round(side / multiple)) * multiple for side in wanted))


def across(size: Size) -> str:
    """A size as the page writes all sizes, width first."""
    return f"{size.width} x {size.height}"


def _entry(name: str, hint: object, text: str, unless: str) -> Entry | None:
    item, kind = item_of(hint), kind_of(hint)
    if item is not None:
        return Entry(name, "each", text, unless, values=allowed(hint)) if kind_of(item) in (int, float) else None
    if get_origin(kind) is Literal:
        return Entry(name, "choice", text, unless, ("", *map(str, get_args(kind))))
    if kind is bool:
        return Entry(name, "choice", text, unless, ("", *YES_NO))
    if kind in (int, float):
        return Entry(name, "whole" if kind is int else "number", text, unless, values=allowed(hint))
    return Entry(name, "text", text, unless) if kind is str and name in TEXTS else None


def _value(entry: Entry, value: Any) -> Any:
    if entry.kind == "each":
        parts = _numbers(entry, kind_of(item_of(hints()[entry.name])), str(value).split(","))
        return parts[0] if len(parts) == 1 else tuple(parts)
    if entry.kind == "choice" and set(entry.choices) == {"", *YES_NO}:
        return YES_NO.get(value, value)
    if entry.kind in ("whole", "number"):
        return _numbers(entry, int if entry.kind == "whole" else float, [str(value)])[0]
    return value


def _numbers(entry: Entry, kind: Any, texts: Sequence[str]) -> list[Any]:
    of: Callable[[str], Any] = int if kind is int else float
    try:
        return [of(text) for text in texts]
    except ValueError:
        words = "with commas between them, " if entry.kind == "each" else ""
        found = shown(",".join(texts))
        raise OptionError(f"{{{entry.name}}} must be {entry.values}, {words}not {{found}}", found=found) from None


def _whole(name: str, value: Any) -> Any:
    """A whole number that the browser may have sent as 2.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
