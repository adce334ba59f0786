"""What a pipeline does where its call says nothing."""

from __future__ import annotations

import inspect
from typing import Any


def default_frames(pipe: Any) -> int | None:
    """Frames of its clips; None where its signature and its configuration say nothing."""
    parameter = inspect.signature(pipe.__call__).parameters.get("num_frames")
    if parameter is not None and isinstance(parameter.default, int):
        return parameter.default
    return getattr(getattr(pipe, "transformer", None), "config", {}).get("sample_frames")


def default_guidance(pipe: Any) -> float | None:
    """Its guidance scale; None where it has none."""
    parameter = inspect.signature(pipe.__call__).parameters.get("guidance_scale")
    return parameter.default if parameter is not None and isinstance(parameter.default, (int, float)) else None
