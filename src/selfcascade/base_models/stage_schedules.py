"""What is known of stages' schedules before anything runs: whether a step is left at or below K, and which is the last.

Some pipelines give their scheduler sigmas and a shift of their own, which only they know: what follows from the
scheduler alone is then an estimate, and `PipelineBaseModel.check_schedules` asks the pipeline.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from selfcascade.base_models.protocols import Scheduler
from selfcascade.base_models.stage_scheduler import noise_timesteps, stage_scheduler, training_steps
from selfcascade.options.checks import OptionError

Sigmas = Callable[[int], Sequence[float]]

NOISE_SHARE = 0.95  # of T: from here on a stage would start from hardly anything but noise


def takes_sigmas(scheduler: Scheduler) -> bool:
    """Whether it is a flow's, whose pipelines give it sigmas of their own."""
    return (
        not hasattr(scheduler, "alphas_cumprod") and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    )


def linear_sigmas(steps: int) -> Sequence[float]:
    """The sigmas that Flux's pipeline and all that are built like it give their scheduler."""
    return np.linspace(1.0, 1 / steps, steps).tolist()


def last_timesteps(scheduler: Scheduler, steps: int, sigmas: Sigmas = linear_sigmas) -> list[float]:
    """The last timestep of so many steps, in each of the ways that pipelines ask for them; none where only they know.

    A dynamic shift is taken to be the largest, which leaves the fewest steps at low noise.

    Args:
        scheduler: The pipeline's; it is not changed.
        steps: Steps of the whole schedule.
        sigmas: From a number of steps to what the pipeline gives a flow's scheduler.

    Raises:
        ValueError: The scheduler has no such schedule.
    """
    dynamic = bool(scheduler.config.get("use_dynamic_shifting"))
    ways: list[dict[str, Any]] = [] if dynamic else [{"num_inference_steps": steps}]
    if takes_sigmas(scheduler):
        shift = {"mu": scheduler.config.get("max_shift") or 0.0} if dynamic else {}
        ways.append({"sigmas": sigmas(steps), **shift})
    return [_last(scheduler, way) for way in ways]


def shortened(scheduler: Scheduler, steps: int, share: float, pivot_step: int, sigmas: Sigmas = linear_sigmas) -> int:
    """That share of the steps, or as many more, up to all, as it takes to have one at or below K."""
    least = max(1, round(share * steps))
    lasts = ((few, last_timesteps(scheduler, few, sigmas)) for few in range(least, steps))
    enough = (few for few, last in lasts if max(last, default=0.0) <= pivot_step)
    return next(enough, steps)


def reachable(scheduler: Scheduler, steps: int, pivot_step: int, chosen: bool, sigmas: Sigmas = linear_sigmas) -> int:
    """K, or where so few steps leave none at or below it, the lowest K that leaves one.

    Args:
        scheduler: The pipeline's.
        steps: Steps of the stage's whole schedule.
        pivot_step: K.
        chosen: Whether the caller asked for that K, which is then not changed.
        sigmas: As in `last_timesteps`.

    Raises:
        OptionError: No step is left at the chosen K, or none at all but one that starts from pure noise.
    """
    last = last_timesteps(scheduler, steps, sigmas)
    if not last or max(last) <= pivot_step:
        return pivot_step
    if chosen and min(last) <= pivot_step:  # the pipeline knows, and is asked before anything runs
        return pivot_step
    if chosen:
        raise OptionError(
            f"{{pivot_step}} {pivot_step} leaves no step to run: the last of {steps} scheduled steps is at "
            f"{min(last):g}; raise {{pivot_step}} or {{num_inference_steps}}"
        )
    return lowest_pivot(scheduler, steps, max(last))


def lowest_pivot(scheduler: Scheduler, steps: int, last: float) -> int:
    """The lowest K that leaves a step, the last one at this timestep.

    Raises:
        OptionError: That step would start from hardly anything but noise.
    """
    limit = training_steps(scheduler)
    if last > NOISE_SHARE * limit:
        raise OptionError(
            f"{{num_inference_steps}} {steps} leaves a stage above the base none but the step from pure noise, at "
            f"{last:g} of {limit}; give more"
        )
    return max(1, math.ceil(last))


def _last(scheduler: Scheduler, way: dict[str, Any]) -> float:
    whole = stage_scheduler(scheduler, None)
    whole.set_timesteps(**way)
    return float(noise_timesteps(whole).min())
