"""Training of feature upsamplers, LoRAs and whole U-Nets for a larger size (paper, Algorithm 1)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# The settings are read by the command line before torch is needed.
_HOMES = {"Trainer": "loop", "TrainingConfig": "config", "run_training": "launch"}

__all__ = ["Trainer", "TrainingConfig", "run_training"]

if TYPE_CHECKING:
    from selfcascade.training.config import TrainingConfig
    from selfcascade.training.launch import run_training
    from selfcascade.training.loop import Trainer


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'selfcascade.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f"selfcascade.training.{_HOMES[name]}"), name)
