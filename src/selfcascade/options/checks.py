"""Checks values against their annotated types, and words the message that refuses one. Nothing here imports torch."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

MAX_SIDE = 16_384
MAX_STEPS = 10_000
MAX_TEXT = 8_000
MAX_SHOWN = 60
PLAIN: dict[object, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Allowed:
    """An annotated type's values in words, where its bounds do not tell them."""

    words: str


class OptionError(ValueError):
    """An option that cannot be used. Its name is shown the caller's way: a keyword in Python, a flag in the shell.

    Args:
        sentence: What is wrong, options in braces: "{anchor} must be a number from 0 to 1, not {found}".
        values: Values of the other names in braces.
    """

    def __init__(self, sentence: str, /, **values: object) -> None:
        self.sentence, self.values = sentence, values
        super().__init__(self.told(lambda name: name))

    def told(self, spelled: Callable[[str], str]) -> str:
        """The message, with the options' names spelled by this function."""
        return self.sentence.format_map(_Named(self.values, spelled))


class _Named(dict[str, object]):
    """Values by name; any other name gives its spelling."""

    def __init__(self, values: Mapping[str, object], spelled: Callable[[str], str]) -> None:
        super().__init__(values)
        self.spelled = spelled

    def __missing__(self, name: str) -> str:
        return self.spelled(name)


def is_whole(value: object, low: int = 1, high: float = math.inf) -> TypeGuard[int]:
    """Whether the value is a whole number from `low` to `high`; True and False are not numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> TypeGuard[float]:
    """Whether the value is a number from `low` to `high`; True, False and nan are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def no_truth_in(value: object) -> None:
    """Raises ValueError if the value is or contains true or false, which pydantic would take for 1 or 0."""
    several = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(one, bool) for one in several):
        raise ValueError(f"must not be true or false, as {value!r} is")


def check_range(name: str, values: Sequence[int], most: int) -> None:
    """Raises OptionError, naming the option, unless all values are from 1 to `most`."""
    for value in values:
        if not 1 <= value <= most:
            raise OptionError(f"{{{name}}} must be a whole number from 1 to {most}, not {value}")


def shown(value: object) -> str:
    """A value for a message: in ASCII, and shortened if long."""
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def joined(names: Iterable[str], word: str = "or") -> str:
    """'a', 'a or b', 'a, b or c'."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest known name; empty if none is near."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {found[0]}?" if found else ""


def kind_of(annotation: object) -> object:
    """A type without its bounds, and without None."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(parts[0])
    if origin in (Union, types.UnionType):
        kinds = [kind_of(part) for part in parts if part is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - made of a list
    return annotation


def item_of(annotation: object) -> object | None:
    """T, with its bounds, for the type "T or a tuple of T"; None for other types."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return item_of(parts[0])
    if origin not in (Union, types.UnionType):
        return None
    if len(parts) == 2 and get_origin(kind_of(parts[1])) is tuple:
        return parts[0]
    return next((item for part in parts if (item := item_of(part)) is not None), None)


def allowed(annotation: object) -> str:
    """The values of a type in words: 'a number from 0 to 1', 'one of a, b', 'true or false'."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        said = [part.words for part in parts if isinstance(part, Allowed)]
        return said[0] if said else f"{allowed(parts[0])}{_bounds(parts[1:])}"
    if origin in (Union, types.UnionType):
        several = [part for part in parts if part is not types.NoneType]
        return ", or ".join(dict.fromkeys(allowed(part) for part in several))
    if origin is tuple:
        return "one for each stage"
    if origin is dict:
        return "texts by name"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    return PLAIN[annotation]


def _bounds(metadata: Iterable[object]) -> str:
    found: dict[str, float] = {}
    for one in metadata:
        for bound in one.metadata if isinstance(one, FieldInfo) else ():
            found |= {name: value for name in ("ge", "gt", "le") if (value := getattr(bound, name, None)) is not None}
    low = f" from {found['ge']:g}" if "ge" in found else f" over {found['gt']:g}" if "gt" in found else ""
    high = found.get("le")
    return low + ("" if high is None else f" {'to' if 'ge' in found else 'up to'} {high:g}" if high < 1e15 else "")


def refusal(error: ValidationError, hints: Mapping[str, object], values: Mapping[str, object]) -> OptionError:
    """The first error that pydantic found, in one sentence.

    Args:
        error: The error of a model or a field.
        hints: The fields' annotated types, by name.
        values: The given values, by name.
    """
    found = error.errors(include_url=False)
    first = found[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, OptionError):
        return cause
    if not first["loc"]:
        return OptionError("{sentence}", sentence=str(cause or first["msg"]))
    name = str(first["loc"][0])
    if name not in hints:
        return OptionError(f"{{{name}}} is not known{{hint}}", hint=nearest(name, hints))
    if cause is not None:
        return OptionError(f"{{{name}}} {{reason}}", reason=str(cause))
    value, words = values.get(name), allowed(hints[name])
    item = item_of(hints[name])
    if item is not None:
        several = isinstance(value, (list, tuple))
        wrong = [one["input"] for one in found if isinstance(one["loc"][-1], int)] if several else [value]
        value, words = (wrong[0], allowed(item)) if wrong else (value, words)
    return OptionError(f"{{{name}}} must be {{words}}, not {{found}}", words=words, found=shown(value))


def check_fields(instance: object) -> None:
    """Raises OptionError if a dataclass field's value does not fit its annotation."""
    hints = typing.get_type_hints(type(instance), include_extras=True)
    for name, hint in hints.items():
        value: object = getattr(instance, name)
        try:
            TypeAdapter[object](hint, config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            cause = found.get("ctx", {}).get("error")
            ending = str(cause) if cause is not None else f"must be {allowed(hint)}, not {shown(value)}"
            raise OptionError(f"{{{name}}} {{ending}}", ending=ending) from None


def _text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"must have at most {MAX_TEXT} characters, not {len(text)}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"must be text in UTF-8 without null characters, not {shown(text)}")
    return text


def _as_tuple(value: object) -> object:
    return tuple(typing.cast(list[object], value)) if isinstance(value, list) else value


def _as_several(value: object) -> object:
    return (value,) if isinstance(value, str) else _as_tuple(value)


def _generators(value: object) -> object:
    from torch import Generator  # who gives a generator has imported torch

    found, several = shown(value), typing.cast("list[object]", value) if isinstance(value, list) else [value]
    if not several or not all(isinstance(one, Generator) for one in several):
        raise ValueError(f"must be a torch.Generator or a list of them, not {found}")
    return several if isinstance(value, list) else value


def _upscaler(value: object) -> object:
    if isinstance(value, (str, Path)):
        return _text(str(value))
    if not callable(value):
        raise ValueError(f"must be a name, or a callable that enlarges pixels, not {shown(value)}")
    return value


def _named(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


Item = TypeVar("Item")
Text = Annotated[str, AfterValidator(_text)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Sides = Annotated[tuple[Pixels, Pixels], BeforeValidator(_as_tuple), Allowed("HEIGHTxWIDTH in pixels, like 64x96")]
Generators = Annotated[Any, AfterValidator(_generators), Allowed("a torch.Generator, or a list of them")]
# A record has the name; of an object, which no record can hold, its class.
Upscaler = Annotated[object, AfterValidator(_upscaler), PlainSerializer(_named, return_type=str), Allowed("text")]
Latents = Annotated[object, Allowed("a tensor of latents")]
# One or more texts; their number is unrelated to the number of stages.
Texts = Annotated[tuple[Text, ...], BeforeValidator(_as_several), Field(min_length=1), Allowed("text, or several")]
# One value for all stages it is for, or one for each of them.
PerStage = Annotated[Item | Annotated[tuple[Item, ...], Field(min_length=1)], BeforeValidator(_as_tuple)]
