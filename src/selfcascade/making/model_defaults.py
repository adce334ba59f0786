"""A pipeline's own defaults."""

from __future__ import annotations

import inspect
from typing import Any


def default_frames(pipe: Any) -> int | None:
    """Default number of frames in a clip; None if neither its signature nor its configuration says."""
    parameter = inspect.signature(pipe.__call__).parameters.get("num_frames")
    if parameter is not None and isinstance(parameter.default, int):
        return parameter.default
    return getattr(getattr(pipe, "transformer", None), "config", {}).get("sample_frames")


def default_guidance(pipe: Any) -> float | None:
    """Default guidance scale; None if the pipeline has no guidance."""
    parameter = inspect.signature(pipe.__call__).parameters.get("guidance_scale")
    return parameter.default if parameter is not None and isinstance(parameter.default, (int, float)) else None
