"""What ends a batch; imported without torch."""

from __future__ import annotations


class BatchError(ValueError):
    """A batch that cannot begin or go on; what is finished is kept."""


class RowsError(BatchError):
    """Rows that cannot be made, named by their lines.

    Args:
        name: The file's.
        faults: (line, what is wrong) of the first ones.
        count: How many there are.
    """

    def __init__(self, name: str, faults: list[tuple[int, str]], count: int) -> None:
        told = "; ".join(f"line {line}: {words}" for line, words in faults)
        more = count - len(faults)
        rows = "1 row" if count == 1 else f"{count:,} rows"
        super().__init__(f"{rows} of {name!r} cannot be made: {told}{f'; and {more:,} more' if more else ''}")
