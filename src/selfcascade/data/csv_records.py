"""Records of a CSV that nobody vouches for: a quote that is not closed costs its own row, not those after it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator


def csv_records(lines: Iterable[str]) -> Iterator[tuple[list[str], list[str] | None]]:
    """The lines of each record and its fields, None for what is no CSV.

    Args:
        lines: With their ends, which a quoted field keeps.
    """
    source, waiting = iter(lines), deque[str]()
    while True:
        taken: list[str] = []
        try:
            fields = next(csv.reader(_fed(source, waiting, taken), strict=True), None)
            if fields is None:
                return
        except csv.Error:
            # A quoted field that ends nowhere, or in a later row's quotes: the later lines are read as rows again.
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            fields = _alone(taken[0])
        yield taken, fields


def _fed(source: Iterator[str], waiting: deque[str], taken: list[str]) -> Iterator[str]:
    """The lines that wait, then those of the source, each noted as taken."""
    while True:
        line = waiting.popleft() if waiting else next(source, None)
        if line is None:
            return
        taken.append(line)
        yield line


def _alone(line: str) -> list[str] | None:
    """The fields of one line, whose quotes may stand amid a field but must be closed."""
    if line.count('"') % 2:
        return None
    try:
        return next(csv.reader([line]), None)
    except csv.Error:
        return None
