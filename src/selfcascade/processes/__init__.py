"""Processes that work together: their group, what they must agree on, and the lock of their output folder."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The command line knows the errors before torch is needed.
_HOMES = {
    "LockedError": "errors",
    "OutputLock": "lock",
    "Processes": "group",
    "TogetherError": "errors",
    "appears": "group",
    "join": "group",
}

__all__ = ["LockedError", "OutputLock", "Processes", "TogetherError", "appears", "join"]

if TYPE_CHECKING:
    from selfcascade.processes.errors import LockedError, TogetherError
    from selfcascade.processes.group import Processes, appears, join
    from selfcascade.processes.lock import OutputLock


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfcascade.processes' has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfcascade.processes.{_HOMES[name]}"), name)
