"""Ways to reach a target size, behind one protocol; a new one is a new file and a line here."""

from __future__ import annotations

from typing import Any, Protocol

from selfcascade.methods.attention_scaling import AttentionScaling
from selfcascade.methods.direct import Direct
from selfcascade.methods.enlargement import Lanczos
from selfcascade.methods.fine_tuned import FULL, LORA
from selfcascade.methods.hidiffusion import HiDiffusion
from selfcascade.methods.restart_late import RestartLate
from selfcascade.methods.scalecrafter import ScaleCrafter
from selfcascade.methods.self_cascade import SelfCascadeMethod, SelfCascadeTunedMethod
from selfcascade.methods.super_resolution import SuperResolution


class Method(Protocol):
    """A way to reach the target size with a given pipeline, which it leaves as it was.

    Attributes:
        name: In `METHODS` and on the command line.
        summary: In a line.
        from_base: Whether it enlarges the base model's own sample, and so takes one as `pivot`.
    """

    name: str
    summary: str
    from_base: bool

    def __call__(self, pipe: Any, prompt: str | list[str], *, height: int, width: int, **arguments: Any) -> Any:
        """Pictures of the prompt at (height, width); the result has `.images`, or `.frames` for video."""
        ...


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Direct(),
        AttentionScaling(),
        ScaleCrafter(),
        HiDiffusion(),
        SelfCascadeMethod(),
        SelfCascadeTunedMethod(),
        RestartLate(),
        FULL,
        LORA,
        SuperResolution(),
        Lanczos(),
    )
}
