"""Reads rows of a file of prompts one at a time, from any row on: text, CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from selfcascade.batch.refusals import BatchError
from selfcascade.media.endings import ending_of
from selfcascade.options.checks import shown
from selfcascade.options.optional import install

ENDINGS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
MAX_LINE_BYTES = 2**20
AT_ONCE = 1024
BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """The position of a row.

    Attributes:
        offset: Number of bytes before the row; in a Parquet file, number of rows.
        line: Number of its first line, from 1; in a Parquet file, number of the row.
    """

    offset: int
    line: int


@dataclass(frozen=True)
class Row:
    """A row of the file.

    Attributes:
        number: Number of the row, from 0.
        place: Position of the row.
        cells: The cells by column; empty ones are left out.
        fault: What is wrong with the row as a whole; None if nothing is.
        typed: Whether the file format distinguishes numbers from text.
    """

    number: int
    place: Place
    cells: dict[str, Any]
    fault: str | None = None
    typed: bool = True


class _Line(NamedTuple):
    """A line including its end, the positions of it and the next one, and what is wrong with it."""

    place: Place
    text: str
    fault: str | None
    after: Place


class PromptFile(Protocol):
    """A file of prompts."""

    path: Path

    def rows(self, start: Place | None = None, number: int = 0) -> Iterator[Row]:
        """The rows from a position on; `number` is the number of the first. None starts at the beginning.

        Raises:
            BatchError: The file cannot be read.
        """
        ...


def open_prompts(path: Path) -> PromptFile:
    """Opens a file of prompts; its ending decides the format.

    Raises:
        BatchError: The file does not exist, or its ending is unknown.
    """
    kinds = {".txt": TextPrompts, ".csv": CsvPrompts, ".tsv": CsvPrompts, ".jsonl": JsonPrompts}
    ending = ending_of(path)
    if ending not in ENDINGS:
        raise BatchError(f"prompts must be a file that ends in {', '.join(ENDINGS)}, not {str(path)!r}")
    if not path.is_file():
        raise BatchError(f"prompts {str(path)!r} is not a file")
    return ParquetPrompts(path) if ending == ".parquet" else kinds[ending](path)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    if path.exists() and not path.is_file():
        raise BatchError(f"prompts {str(path)!r} is not a file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BatchError(f"prompts {str(path)!r} cannot be read: {error.strerror or error}") from error


class TextPrompts:
    """One prompt per line; blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, start: Place | None = None, number: int = 0) -> Iterator[Row]:
        """See `PromptFile`."""
        for place, text, fault, _ in _lines(self.path, start):
            if fault is not None or text.strip():
                yield Row(number, place, {"prompt": text.strip()} if fault is None else {}, fault)
                number += 1


class JsonPrompts:
    """One JSON object per line with options as keys; null and NaN count as missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, start: Place | None = None, number: int = 0) -> Iterator[Row]:
        """See `PromptFile`."""
        for place, text, fault, _ in _lines(self.path, start):
            if fault is None and not text.strip():
                continue
            cells: dict[str, Any] = {}
            if fault is None:
                try:
                    cells = json.loads(text, object_pairs_hook=_object)
                except (ValueError, RecursionError) as error:
                    fault = f"is not JSON: {' '.join(str(error).split())}"
            if fault is None and not isinstance(cells, dict):
                fault = f"must be a JSON object, not {shown(cells)}"
            yield Row(number, place, _given(cells) if fault is None else {}, fault)
            number += 1


class CsvPrompts:
    """Comma-separated values, or .tsv with tabs, with options as columns; empty cells count as missing."""

    def __init__(self, path: Path) -> None:
        self.path, self.dialect = path, {"delimiter": "\t" if ending_of(path) == ".tsv" else ",", "strict": True}

    def rows(self, start: Place | None = None, number: int = 0) -> Iterator[Row]:
        """See `PromptFile`."""
        header, after = self._header()
        fed = _Fed(_lines(self.path, start or after))
        while True:
            fed.begin()
            fault, fields = None, None
            try:
                fields = next(csv.reader(fed, **self.dialect), None)
            except csv.Error as error:
                fault = f"is not CSV: {error}"
            if fed.place is None:
                return
            fault = fed.fault or fault
            if fault is None and not fields:  # a blank line
                continue
            if fault is None and fields is not None and len(fields) != len(header):
                fault = f"has {len(fields)} cells, and the header {len(header)}"
            cells = dict(zip(header, fields or (), strict=False)) if fault is None else {}
            cells = {name: cell for name, cell in cells.items() if cell.strip()}
            yield Row(number, fed.place, cells, fault, typed=False)
            number += 1

    def _header(self) -> tuple[list[str], Place]:
        fed = _Fed(_lines(self.path, None))
        try:
            header = [name.strip() for name in next(csv.reader(fed, **self.dialect), [])]
        except csv.Error as error:
            raise BatchError(f"the header of {str(self.path)!r} is not CSV: {error}") from error
        twice = sorted({name for name in header if header.count(name) > 1})
        if fed.fault or not header or twice:
            words = fed.fault or (f"has the column {twice[0]!r} twice" if twice else "is missing")
            raise BatchError(f"the header of {str(self.path)!r} {words}")
        return header, fed.after


class ParquetPrompts:
    """A Parquet file with options as columns; null, and NaN in columns of numbers, count as missing.

    A row group can only be read from its start, so rows that are read in order are read once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise BatchError(f"prompts {str(path)!r} need pyarrow to be read: {install('pyarrow')}") from error
        try:
            self.file: Any = parquet.ParquetFile(path)
        except Exception as error:  # pyarrow's errors share no base class
            raise BatchError(f"prompts {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
        self._next = 0
        self._open: Iterator[Row] = iter(())

    def rows(self, start: Place | None = None, number: int = 0) -> Iterator[Row]:
        """See `PromptFile`."""
        first = 0 if start is None else start.offset
        if first < self._next or first == 0:
            self._next, self._open = 0, self._all()
        for row in self._open:
            self._next = row.number + 1
            if row.number >= first:
                yield row

    def _all(self) -> Iterator[Row]:
        number = 0
        for batch in self.file.iter_batches(AT_ONCE):
            for cells in batch.to_pylist():
                known = {name: _whole(cell) for name, cell in _given(cells).items()}
                yield Row(number, Place(number, number + 1), known)
                number += 1


class _Fed:
    """Supplies lines to a CSV reader, which takes as many as a record has."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self.lines, self.after = lines, Place(0, 1)
        self.begin()

    def begin(self) -> None:
        """Forgets the previous record."""
        self.place: Place | None = None
        self.fault: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        place, text, fault, self.after = next(self.lines)
        self.place, self.fault = self.place or place, self.fault or fault
        return text


def _lines(path: Path, start: Place | None) -> Iterator[_Line]:
    """The lines of a file from a position on."""
    place = start or Place(0, 1)
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            while data := _line(file):
                text, fault = "", None
                try:
                    text = data.removeprefix(BOM if place.offset == 0 else b"").decode()
                    if len(data) > MAX_LINE_BYTES:
                        text, fault = "", f"has over {MAX_LINE_BYTES:,} bytes"
                except UnicodeDecodeError:
                    fault = "is not UTF-8"
                after = Place(file.tell(), place.line + 1)
                yield _Line(place, text, fault, after)
                place = after
    except OSError as error:
        raise BatchError(f"prompts {str(path)!r} cannot be read: {error.strerror or error}") from error


def _line(file: BinaryIO) -> bytes:
    """The next line, or the beginning of a line that is too long."""
    data = rest = file.readline(MAX_LINE_BYTES + 1)
    while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
        rest = file.readline(MAX_LINE_BYTES + 1)
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _given(cells: dict[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in cells.items() if cell is not None and not _is_nan(cell)}


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def _whole(cell: Any) -> Any:
    """A whole number that became a float because other values in its column are missing."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell
