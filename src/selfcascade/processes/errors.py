"""Errors that end all processes of a run; imported without torch."""

from __future__ import annotations


class TogetherError(ValueError):
    """An error with which all processes of a run end.

    Attributes:
        is_main: Whether this process reports it.
    """

    def __init__(self, message: str, is_main: bool = True) -> None:
        super().__init__(message)
        self.is_main = is_main


class LockedError(ValueError):
    """Another run writes into the folder; the message names its process."""
