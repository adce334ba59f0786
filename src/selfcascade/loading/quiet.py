"""Hides the libraries' progress bars and warnings while a small model is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def libraries_quiet(wanted: bool = True) -> Iterator[None]:
    """Context in which diffusers and transformers show errors, but no warnings and no progress bars.

    Args:
        wanted: If False, nothing changes.
    """
    if not wanted:
        yield
        return
    import diffusers
    import transformers

    logs: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
