"""The axes of `compare`: options with several values, one along the grid's columns and one along its rows."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args, get_origin

from selfcascade.cli.flags import parse_size
from selfcascade.options import Options, hints, uses
from selfcascade.options.checks import OptionError, allowed, item_of, joined, kind_of, nearest, shown

MAX_CELLS = 400


@dataclass(frozen=True)
class Axis:
    """An option and its values.

    Attributes:
        name: Name in `Options`.
        values: The option's values in turn.
        texts: The values as given.
    """

    name: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]


def read_axis(text: str) -> Axis:
    """Parses an axis such as "anchor=0,0.5,1". Values with commas are quoted; a slash separates values of stages.

    Raises:
        OptionError: The option is unknown, or a value is out of range.
        ValueError: The text does not have this form.
    """
    key, equals, listed = text.partition("=")
    names = {name for name, use in uses().items() if "compare" in use.commands} | {"method"}
    flags = {str(use.flag).lstrip("-"): name for name, use in uses().items() if use.flag is not None}
    name = key.strip().lstrip("-").replace("-", "_")
    name = flags.get(name, name)
    texts = tuple(one.strip() for one in next(csv.reader([listed], skipinitialspace=True), []))
    if not equals or not texts or not all(texts):
        raise ValueError(f"--xyz must be OPTION=VALUE,VALUE,... like anchor=0,0.5, not {shown(text)}")
    if name not in names:
        raise ValueError(f"--xyz {shown(key)} is not an option of compare{nearest(name, names)}")
    if len(set(texts)) < len(texts):
        raise ValueError(f"--xyz {name} has a value twice: {shown(listed)}")
    values = tuple(_value(name, one) for one in texts)
    for value in values:
        Options(**{name: value})
    return Axis(name, values, texts)


def cells(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """The options of each picture, row by row: the first axis runs along the columns, the second along the rows.

    Raises:
        ValueError: There are too many axes or pictures, or an option occurs twice.
    """
    if len(axes) > 2:
        raise ValueError(f"compare has two axes at most, not {joined([axis.name for axis in axes], 'and')}")
    if len({axis.name for axis in axes}) < len(axes):
        raise ValueError(f"compare has two axes of {axes[0].name}; give its values in one")
    found = [
        dict(zip([axis.name for axis in reversed(axes)], values, strict=True))
        for values in product(*(axis.values for axis in reversed(axes)))
    ]
    if len(found) > MAX_CELLS:
        raise ValueError(f"compare makes {MAX_CELLS} pictures at most, not {len(found)}")
    return found


def labels(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """The values of each picture as given, in the order of `cells`: for the first axis, then for the second."""
    return [tuple(reversed(texts)) for texts in product(*(axis.texts for axis in reversed(axes)))]


def _value(name: str, text: str) -> Any:
    hint = hints()[name]
    item = item_of(hint)
    if item is not None and kind_of(item) is not str and "/" in text:
        return tuple(_plain(name, item, part) for part in text.split("/"))
    if item is not None:
        return _plain(name, item, text)
    if get_origin(kind_of(hint)) is tuple:
        return (text,) if Ellipsis in get_args(kind_of(hint)) else parse_size(name, text)
    return _plain(name, hint, text)


def _plain(name: str, hint: object, text: str) -> Any:
    kind = kind_of(hint)
    try:
        if kind is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        return int(text) if kind is int else float(text) if kind is float else text
    except (ValueError, KeyError):
        words = allowed(hint)
        raise OptionError(f"{{{name}}} must be {{words}}, not {{found}}", words=words, found=shown(text)) from None
