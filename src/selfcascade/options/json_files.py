"""Strict reading of JSON from unknown sources. Nothing here imports torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: The text is not JSON, contains NaN or infinite numbers, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(path: Path, what: str) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Args:
        path: The file.
        what: What the file is, for messages.

    Raises:
        ValueError: The file cannot be read, or does not hold an object; the message names it.
    """
    try:
        found = parse_json(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{what} {str(path)!r} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValueError(f"{what} {str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what} {str(path)!r} must hold a JSON object, not a {type(found).__name__}")
    return {str(name): value for name, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value
