"""Amounts of memory as people write them: 8GB, 512MiB. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from selfcascade.options.checks import Allowed, Text

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
WORDS = "a number over 0 with MB, GB, MiB or GiB, like 8GB"


def bytes_of(text: str) -> int:
    """Bytes of a size such as 8GB or 7.5 GiB.

    Raises:
        ValueError: The text is not such a size.
    """
    units = {unit.lower(): number for unit, number in UNITS.items()}
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?) ?([a-z]{2,3})", text.strip().lower())
    size = 0 if found is None or found[2] not in units else round(float(found[1]) * units[found[2]])
    if size < 1:
        raise ValueError(f"must be {WORDS}")
    return size


def in_words(size: int) -> str:
    """Bytes as people write them: 1.5GB."""
    unit = next((unit for unit in ("GB", "MB") if size >= UNITS[unit]), "MB")
    return f"{size / UNITS[unit]:.3g}{unit}"


def _checked(text: str) -> str:
    bytes_of(text)
    return text


MemorySize = Annotated[Text, AfterValidator(_checked), Allowed(WORDS)]
