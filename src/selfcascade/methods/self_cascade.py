"""The tuning-free self-cascade as a method."""

from __future__ import annotations

from typing import Any

from selfcascade.pipeline import SelfCascade


class SelfCascadeMethod:
    """The paper's tuning-free version: base sample, then stages from its pivot."""

    name = "self-cascade"
    summary = "base sample, then upsample, re-noise to K and denoise with the same model, stage by stage"

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput`; arguments as in `SelfCascade.__call__`."""
        return SelfCascade(pipe, native_size=native_size)(prompt, height=height, width=width, **arguments)
