"""Tolerant CSV reading: an unclosed quote costs its own row, but not the rows after it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator


def csv_records(lines: Iterable[str]) -> Iterator[tuple[list[str], list[str] | None]]:
    """The lines of each record with its fields, or with None if it is malformed.

    Args:
        lines: Lines including their ends, which a quoted field keeps.
    """
    source, waiting = iter(lines), deque[str]()
    while True:
        taken: list[str] = []
        try:
            fields = next(csv.reader(_fed(source, waiting, taken), strict=True), None)
            if fields is None:
                return
        except csv.Error:
            # A quoted field has no end, or ends in a later row's quotes: the later lines are read again as rows.
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            fields = _alone(taken[0])
        yield taken, fields


def _fed(source: Iterator[str], waiting: deque[str], taken: list[str]) -> Iterator[str]:
    """The waiting lines, then those of the source; each is recorded in `taken`."""
    while True:
        line = waiting.popleft() if waiting else next(source, None)
        if line is None:
            return
        taken.append(line)
        yield line


def _alone(line: str) -> list[str] | None:
    """The fields of one line; quotes inside a field are allowed, but must be closed."""
    if line.count('"') % 2:
        return None
    try:
        return next(csv.reader([line]), None)
    except csv.Error:
        return None
