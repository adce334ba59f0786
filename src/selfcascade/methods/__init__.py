"""Ways to reach a target size, one file each; a method declares the options that it takes."""

from __future__ import annotations

from selfcascade.methods.attention_scaling import AttentionScaling
from selfcascade.methods.direct import Direct
from selfcascade.methods.enlargement import Lanczos
from selfcascade.methods.fine_tuned import FullFineTuning, LoraFineTuning
from selfcascade.methods.hidiffusion import HiDiffusion
from selfcascade.methods.method import METHODS, Method, MethodRequest, register_method
from selfcascade.methods.restart_late import RestartLate
from selfcascade.methods.scalecrafter import ScaleCrafter
from selfcascade.methods.self_cascade import SelfCascadeMethod, SelfCascadeTunedMethod
from selfcascade.methods.super_resolution import SuperResolution

__all__ = ["METHODS", "Method", "MethodRequest", "register_method"]

for _method in (
    Direct(),
    AttentionScaling(),
    ScaleCrafter(),
    HiDiffusion(),
    SelfCascadeMethod(),
    SelfCascadeTunedMethod(),
    RestartLate(),
    FullFineTuning(),
    LoraFineTuning(),
    SuperResolution(),
    Lanczos(),
):
    register_method(_method)
