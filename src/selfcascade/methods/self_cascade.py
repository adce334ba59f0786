"""The self-cascade as methods: tuning-free, and tuned with feature upsamplers."""

from __future__ import annotations

from selfcascade.methods.method import Method, MethodRequest
from selfcascade.pipeline import SelfCascade
from selfcascade.pipeline.calls import SelfCascadeOutput


class SelfCascadeMethod(Method, options="self-cascade"):
    """The paper's tuning-free version: a base sample, then stages that start from its pivot."""

    summary = "base sample, then upsample, re-noise to K and denoise with the same model, stage by stage"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """Runs `SelfCascade`."""
        return request.cascaded(request.arguments)


class SelfCascadeTunedMethod(Method, options="self-cascade-tuned"):
    """The paper's tuned version: every step of a stage also gets the pivot's upsampled skip features."""

    summary = "self-cascade with trained feature upsamplers, which carry the pivot's features into every step"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """Runs `SelfCascade` with the upsamplers.

        Raises:
            ValueError: The upsamplers were made for another model.
        """
        cascade = SelfCascade(request.pipe, request.arguments["upsamplers"], request.native_size)
        return request.cascaded(request.without("upsamplers"), cascade)
