"""What is known of stages' schedules before anything runs: whether a step is left at or below K, and which is the last.

Some pipelines give their scheduler sigmas and a shift of their own, which only they know: what follows from the
scheduler alone is then an estimate, and `PipelineBaseModel.check_schedules` asks the pipeline.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from selfcascade.base_models.protocols import Scheduler
from selfcascade.base_models.stage_scheduler import stage_scheduler


def takes_sigmas(scheduler: Scheduler) -> bool:
    """Whether it is a flow's, whose pipelines give it sigmas of their own."""
    return (
        not hasattr(scheduler, "alphas_cumprod") and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    )


def last_timesteps(scheduler: Scheduler, steps: int) -> list[float]:
    """The last timestep of so many steps, in each of the ways that pipelines ask for them; none where only they know.

    A dynamic shift is taken to be the largest, which leaves the fewest steps at low noise.

    Args:
        scheduler: The pipeline's; it is not changed.
        steps: Steps of the whole schedule.

    Raises:
        ValueError: The scheduler has no such schedule.
    """
    dynamic = bool(scheduler.config.get("use_dynamic_shifting"))
    ways: list[dict[str, Any]] = [] if dynamic else [{"num_inference_steps": steps}]
    if takes_sigmas(scheduler):
        shift = {"mu": scheduler.config.get("max_shift") or 0.0} if dynamic else {}
        ways.append({"sigmas": np.linspace(1.0, 1 / steps, steps), **shift})  # Flux and all that are built like it
    return [_last(scheduler, way) for way in ways]


def shortened(scheduler: Scheduler, steps: int, share: float, pivot_step: int) -> int:
    """That share of the steps, or as many more, up to all, as it takes to have one at or below K."""
    least = max(1, round(share * steps))
    enough = (few for few in range(least, steps) if max(last_timesteps(scheduler, few), default=0.0) <= pivot_step)
    return next(enough, steps)


def _last(scheduler: Scheduler, way: dict[str, Any]) -> float:
    whole = stage_scheduler(scheduler, None)
    whole.set_timesteps(**way)
    return float(whole.timesteps.min())
