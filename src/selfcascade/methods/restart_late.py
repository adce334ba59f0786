"""Restart late: the cascade with few steps a stage (MegaFusion, RectifiedHR, FreCaS: 10 of 50 steps)."""

from __future__ import annotations

from typing import Any

from selfcascade.methods.self_cascade import without_tuning
from selfcascade.pipeline import SelfCascade
from selfcascade.presets import Preset

SHARE = 0.2  # of the schedule, at the native size
LATE = Preset("restart-late", "t = 0.2 T at the native size, RGB pivots", SHARE, SHARE, "rgb", matched=True)


class RestartLate:
    """The pivot is enlarged as a picture, and only the last steps run again, from a step shifted by the size."""

    name = "restart-late"
    from_base = True
    summary = (
        "self-cascade from an RGB pivot at t = 0.2 T, shifted to the same signal-to-noise ratio at the larger size"
    )

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
        """A `SelfCascadeOutput`; arguments as in `SelfCascade.__call__`, a given pivot_step or upsampling is used."""
        cascade = SelfCascade(pipe, native_size=native_size)
        given = {name: value for name, value in without_tuning(arguments).items() if value is not None}
        return cascade(prompt, height=height, width=width, **{"preset": LATE, **given})
