"""Restart late: the cascade with few steps a stage (MegaFusion, RectifiedHR, FreCaS: 10 of 50 steps)."""

from __future__ import annotations

from typing import Any

from selfcascade.base_models.stage_scheduler import matched_step, training_steps
from selfcascade.methods.self_cascade import without_tuning
from selfcascade.pipeline import SelfCascade

SHARE = 0.2  # of the schedule, at the native size


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
        given = {"upsampling": "rgb", **{key: value for key, value in arguments.items() if value is not None}}
        if "pivot_step" not in given and "preset" not in given:
            sizes = [stage.size for stage in cascade.plan(height, width)]
            native, step = cascade.native_size.area, round(SHARE * training_steps(pipe.scheduler))
            shifted = [matched_step(pipe.scheduler, step, size.area / native) for size in sizes[1:]]
            given |= {"pivot_step": shifted} if shifted else {}
        return cascade(prompt, height=height, width=width, **without_tuning(given))
