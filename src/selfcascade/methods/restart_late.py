"""Restart late: the cascade with few steps a stage (MegaFusion, RectifiedHR, FreCaS: 10 of 50 steps)."""

from __future__ import annotations

from selfcascade.methods.method import Method, MethodRequest
from selfcascade.options.presets import Preset
from selfcascade.pipeline.calls import SelfCascadeOutput

SHARE = 0.2  # of the schedule at every size: 10 of 50 steps
LATE = Preset("restart-late", "t = 0.2 T, RGB pivots", SHARE, SHARE, "rgb")


class RestartLate(Method, options="restart-late"):
    """The pivot is enlarged as a picture, and only the last fifth of the schedule runs again, at any size."""

    summary = "self-cascade from an RGB pivot at t = 0.2 T: the last fifth of the steps"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """What `SelfCascade` makes; a preset, a pivot step or an upsampling that is given has its way."""
        return request.cascaded({"preset": LATE, **request.arguments})
