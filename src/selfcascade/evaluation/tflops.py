"""TFLOPs of a picture, as `selfcascade plan` states them, for results to be compared by."""

from __future__ import annotations

from typing import Any

from selfcascade.base_models import family_of
from selfcascade.cost.plan import estimate_call
from selfcascade.evaluation.make_samples import Sampling
from selfcascade.methods.restart_late import LATE
from selfcascade.options import Options
from selfcascade.pipeline import SelfCascade

CASCADES = ("self-cascade", "restart-late")


def planned_tflops(pipe: Any, sampling: Sampling, tuned: bool = False, frames: int | None = None) -> float | None:
    """TFLOPs of a picture or clip with its base sample and decoding, two operations a multiply-add.

    Args:
        pipe: The base model's pipeline.
        sampling: Settings of the samples, with their size.
        tuned: Whether feature upsamplers are used.
        frames: Number of frames in a clip; None for pictures.

    Returns:
        None for what no plan tells: the tuned version, methods that change how the network runs, and a model that
        enlarges pivots.
    """
    if tuned or sampling.pivot_upscaler is not None or sampling.method not in ("direct", *CASCADES):
        return None
    given: dict[str, Any] = sampling.size._asdict()
    if sampling.method == "direct":
        given |= sampling.of_base
        cascade = SelfCascade(pipe, native_size=sampling.size)
    else:
        names = ("num_inference_steps", "guidance_scale", "pivot_step", "upsampling", "anchor", "energy", "attention")
        given |= {name: value for name in names if (value := getattr(sampling, name)) is not None}
        given["preset"] = sampling.reference_preset() or LATE
        cascade = SelfCascade(pipe)
    length = {"num_frames": frames} if family_of(pipe).video else {}
    costs = estimate_call(cascade, cascade.plan(**given), Options(**given, **length), timed=False)
    counted = [cost.tflops for cost in costs if cost.tflops is not None]
    return sum(counted) if len(counted) == len(costs) else None
