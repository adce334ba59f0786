"""The options of a row: the command's, replaced by the row's own."""

from __future__ import annotations

import functools
from typing import Any

from selfcascade.batch.rows import Row
from selfcascade.options import Options, hints, uses
from selfcascade.options.call_options import MAX_SEED
from selfcascade.options.checks import OptionError, item_of, kind_of, nearest, shown
from selfcascade.options.load_options import LoadOptions
from selfcascade.options.methods import method_options

COMMAND = "batch"
# Options that decide which model is loaded; a batch has one model.
OF_THE_BATCH = frozenset(LoadOptions.model_fields) | {"native_size", "upsamplers", "pivot_upscaler"}
OF_SIZE = ("height", "width", "scale", "pixels")
# What may differ between rows that are made together.
OF_THE_ROW = frozenset({"prompt", "negative_prompt", "seed"})


@functools.cache
def columns() -> frozenset[str]:
    """Names of the options that a row may give."""
    own = {name for name, use in uses().items() if COMMAND in use.commands}
    return frozenset(own | {"prompt"}) - OF_THE_BATCH


def options_of(base: Options, row: Row) -> Options:
    """The options of a row; without its own seed it gets the command's plus the row's number.

    Raises:
        OptionError: A column is unknown, or a value out of range.
    """
    if row.fault is not None:
        raise OptionError("{what}", what=row.fault)
    cells = _by_option(row.cells)
    for name in cells:
        if name in OF_THE_BATCH:
            raise OptionError("{what}", what=f"the column {name!r} is for the whole batch; give it to the command")
        if name not in columns():
            words = f"the column {shown(name)} is not an option{nearest(name, columns())}"
            raise OptionError("{what}", what=words)
    own = {name: cell if row.typed else typed(name, cell) for name, cell in cells.items()}
    options = base.changed(**{**_gone(own), "seed": min(base.seed + row.number, MAX_SEED), **own})
    if not options.prompt.strip():
        raise OptionError("{prompt} must not be empty")
    if options.seed == MAX_SEED and "seed" not in own:
        raise OptionError("{seed} runs over its largest value, {most}, in this row", most=MAX_SEED)
    check_method(options.method, frozenset(options.given()), options)
    return options


@functools.cache
def short_names() -> dict[str, str]:
    """Options by their shorter flag, without dashes."""
    return {use.flag.removeprefix("--"): name for name, use in uses().items() if use.flag is not None}


def kind(options: Options) -> str:
    """A key that is the same for rows that can be made together."""
    guided = options.negative_prompt is not None
    return f"{guided} {options.model_dump_json(exclude=set(OF_THE_ROW))}"


def typed(name: str, text: str) -> Any:
    """The value that a cell's text stands for; other text is returned for the checks to refuse."""
    hint = hints()[name]
    if item_of(hint) is not None:
        values = [_value(kind_of(item_of(hint)), part) for part in text.replace(",", " ").split()]
        return values[0] if len(values) == 1 else tuple(values)
    return _value(kind_of(hint), text)


def _value(wanted: object, text: str) -> Any:
    words = text.strip()
    if wanted is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(words.lower(), words)
    try:
        return wanted(words) if wanted in (int, float) else text  # type: ignore[operator]
    except ValueError:
        return words


def _by_option(cells: dict[str, Any]) -> dict[str, Any]:
    """The cells by option; a column may also have the name of a flag."""
    found: dict[str, Any] = {}
    for column, cell in cells.items():
        name = column.replace("-", "_")
        name = short_names().get(name, name)
        if name in found:
            raise OptionError("{what}", what=f"the columns say {name!r} twice, the second time as {shown(column)}")
        found[name if name in hints() else column] = cell
    return found


def _gone(own: dict[str, Any]) -> dict[str, Any]:
    """Options of the command, under other names, that the row's own options replace."""
    given = [name for name in OF_SIZE if name in own]
    sides = {"height", "width"}
    kept = sides | set(given) if sides & set(given) else set(given)
    return {name: None for name in OF_SIZE if given and name not in kept}


def check_method(name: str, given: frozenset[str], options: Options) -> None:
    """Raises OptionError if the method is unknown, or does not take an option that is given."""
    if not _is_fine(name, given):
        method_options(name).check(options.given())


@functools.lru_cache(maxsize=1000)  # a million rows give few sets of options
def _is_fine(name: str, given: frozenset[str]) -> bool:
    try:
        method_options(name).check(dict.fromkeys(given))
    except OptionError:
        return False
    return True
