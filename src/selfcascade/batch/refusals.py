"""Errors that end a batch; imported without torch."""

from __future__ import annotations


class BatchError(ValueError):
    """A batch that cannot begin or continue; finished rows are kept."""


class RowsError(BatchError):
    """Rows that cannot be made, named by their lines.

    Args:
        name: Name of the file.
        faults: (line, what is wrong) for the first of them.
        count: Number of such rows.
    """

    def __init__(self, name: str, faults: list[tuple[int, str]], count: int) -> None:
        told = "; ".join(f"line {line}: {words}" for line, words in faults)
        more = count - len(faults)
        rows = "1 row" if count == 1 else f"{count:,} rows"
        super().__init__(f"{rows} of {name!r} cannot be made: {told}{f'; and {more:,} more' if more else ''}")
