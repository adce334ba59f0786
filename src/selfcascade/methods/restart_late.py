"""Restart late: the cascade with few steps a stage (MegaFusion, RectifiedHR, FreCaS: 10 of 50 steps)."""

from __future__ import annotations

from selfcascade.methods.method import Method, MethodRequest
from selfcascade.options.presets import Preset
from selfcascade.pipeline.calls import SelfCascadeOutput

SHARE = 0.2  # of the schedule, at the native size
LATE = Preset("restart-late", "t = 0.2 T at the native size, RGB pivots", SHARE, SHARE, "rgb", matched=True)


class RestartLate(Method, options="restart-late"):
    """The pivot is enlarged as a picture, and only the last steps run again, from a step shifted by the size."""

    summary = (
        "self-cascade from an RGB pivot at t = 0.2 T, shifted to the same signal-to-noise ratio at the larger size"
    )

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """What `SelfCascade` makes; a preset, a pivot step or an upsampling that is given has its way."""
        return request.cascaded({"preset": LATE, **request.arguments})
