"""What ends the processes of a run together; imported without torch."""

from __future__ import annotations


class TogetherError(ValueError):
    """All processes of a run end for the same reason, each with this sentence.

    Attributes:
        is_main: Whether this is the process that says it.
    """

    def __init__(self, message: str, is_main: bool = True) -> None:
        super().__init__(message)
        self.is_main = is_main


class LockedError(ValueError):
    """Another run writes into the folder; the sentence names its process."""
