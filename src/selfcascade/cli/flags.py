"""Makes the commands' flags from the list of options, and spells options as flags."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import typer

from selfcascade.options import Options, Use, hints, uses
from selfcascade.options.checks import OptionError, allowed, item_of, kind_of
from selfcascade.options.load_options import LoadOptions

Command = Callable[..., None]

OF_CLIPS = ("num_frames", "fps", "start", "shared_noise")
OF_METHODS = ("method", "upsamplers", "upsampler_scale", "weights", "in_cascade", "dilated_share", "noise_level")


def with_options(
    command: str, options: type[Options] = Options, unless: str | None = None, required: bool = False
) -> Callable[[Command], Command]:
    """Makes a function a command with the flags of its options, in addition to its own parameters.

    Args:
        command: Name of the command in `Use.commands`.
        options: The class of options.
        unless: Descriptions of defaults that differ for this command, by option.
        required: Whether positional options must be given.

    Returns:
        A decorator. The function's first parameter gets the given options, by name.
    """
    found = {name: use for name, use in uses(options).items() if command in use.commands}

    def decorate(function: Command) -> Command:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [_parameter(name, use, options, command, unless, required) for name, use in found.items()]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            given = {name: _read(name, values.pop(name), options) for name in found}
            function({name: value for name, value in given.items() if value is not None}, **values)

        parameters = sorted([*shared, *own], key=lambda one: one.default is not inspect.Parameter.empty)
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def flag(name: str, options: type[Options] = Options) -> str:
    """The flag of an option; names of arguments and unknown names are returned unchanged."""
    use = uses(options).get(name)
    if use is None or not use.commands or use.positional:
        return name
    return use.flag or f"--{name.replace('_', '-')}"


def as_flags(error: OptionError) -> str:
    """The error's message, with options spelled as flags."""
    return error.told(flag)


def help_of(name: str, use: Use, hint: object, unless: str | None = None) -> str:
    """The help text of an option, with its range and default."""
    values = allowed(item_of(hint) or hint).removeprefix("a whole number").removeprefix("a number").strip()
    default = use.unless if unless is None else unless
    words = [values] if values not in ("", "text", "true or false") else []
    words += [f"default: {default}"] if default else []
    return f"{use.help} ({'; '.join(words)})" if words else use.help


def panel_of(name: str, use: Use) -> str | None:
    """The heading of an option in the help; None for what everyone needs, which comes first."""
    if name in LoadOptions.model_fields:
        return "Model" if "info" in use.commands or name == "dtype" else "Added to the model, and how it runs"
    if name in OF_CLIPS:
        return "Clips"
    if name in OF_METHODS:
        return "Methods other than the plain cascade"
    return "Stages above the base" if use.taken_by == "cascade" and name != "preset" else None


def parse_size(name: str, text: str) -> tuple[int, int]:
    """(height, width) of "64x96".

    Raises:
        OptionError: The text does not have this form.
    """
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if match is None:
        raise OptionError(f"{{{name}}} must be HEIGHTxWIDTH in pixels, like 64x96, not {{found}}", found=ascii(text))
    return int(match[1]), int(match[2])


def _parameter(
    name: str, use: Use, options: type[Options], command: str, unless: str | None, required: bool
) -> inspect.Parameter:
    hint = hints(options)[name]
    text, default = help_of(name, use, hint, unless), None
    kind = _kind(hint)
    if command in use.positional:
        shown: Any = typer.Argument(help=text, metavar=use.metavar, show_default=False)
        kind, default = (str, inspect.Parameter.empty) if required else (kind, default)
    else:
        long = f"--{name.replace('_', '-')}"
        flags = [long] if use.flag is None else [use.flag, long]
        flags = [f"{long}/--no-{long[2:]}"] if kind_of(hint) is bool else flags
        shown = typer.Option(*flags, help=text, metavar=use.metavar, rich_help_panel=panel_of(name, use))
    annotation = Annotated[kind, shown]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _kind(hint: object) -> Any:
    """The type for typer: a number, text or a flag, or a list if there may be one value per stage."""
    item = item_of(hint)
    if item is not None:
        return list[kind_of(item)] | None  # type: ignore[misc]
    if _is_several(hint):
        return list[str] | None
    kind = kind_of(hint)
    return (kind if kind in (int, float, bool) else str) | None  # type: ignore[operator]


def _read(name: str, value: Any, options: type[Options]) -> Any:
    hint = hints(options)[name]
    if _is_several(hint):
        return tuple(value) if value else None
    if value is not None and get_origin(kind_of(hint)) is tuple:
        return parse_size(name, value)
    if item_of(hint) is not None:
        return None if not value else value[0] if len(value) == 1 else tuple(value)
    return value


def _is_several(hint: object) -> bool:
    """Whether the flag may be repeated to make a list that is unrelated to stages."""
    return item_of(hint) is None and Ellipsis in get_args(kind_of(hint))
