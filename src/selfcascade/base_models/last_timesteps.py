"""The last timestep of a schedule before anything runs, and so whether a stage has a step at or below its K.

Some pipelines give their scheduler sigmas and a shift of their own, which only they know: what follows from the
scheduler alone is then an estimate, and `PipelineBaseModel.check_schedules` asks the pipeline.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from selfcascade.base_models.protocols import Scheduler
from selfcascade.base_models.stage_scheduler import matched_step, noise_timesteps, stage_scheduler, training_steps
from selfcascade.options.checks import OptionError

Sigmas = Callable[[int], Sequence[float]]
Shift = Callable[[int], float]

NOISE_SHARE = 0.95  # of T: from here on a stage would start from hardly anything but noise


class Schedules(Protocol):
    """The schedules of a model, of any number of steps: all that planning must know of them."""

    @property
    def training_steps(self) -> int:
        """T, the number of training timesteps."""
        ...

    def last_timesteps(self, steps: int) -> list[float]:
        """The last timestep of this many steps, for each way to ask for them; none where that is not known."""
        ...

    def matched_step(self, step: int, ratio: float) -> int:
        """The timestep that hides as much of a picture with `ratio` times the pixels as `step` of a native one."""
        ...


def linear_sigmas(steps: int) -> Sequence[float]:
    """The sigmas that Flux's pipeline and all that are built like it give their scheduler."""
    return np.linspace(1.0, 1 / steps, steps).tolist()


def no_shift(steps: int) -> float:
    """That of pipelines whose shift the scheduler's largest bounds."""
    return 0.0


@dataclass(frozen=True)
class SchedulerSchedules:
    """Schedules of a diffusers scheduler, which is not changed, and what its pipeline gives one of a flow.

    Attributes:
        scheduler: The pipeline's.
        sigmas: From a number of steps to what the pipeline gives it.
        shift: From a number of steps to the base stage's dynamic shift, where that can pass the scheduler's largest.
    """

    scheduler: Scheduler
    sigmas: Sigmas = linear_sigmas
    shift: Shift = no_shift

    @property
    def training_steps(self) -> int:
        """As `stage_scheduler.training_steps`."""
        return training_steps(self.scheduler)

    def last_timesteps(self, steps: int) -> list[float]:
        """As `last_timesteps`."""
        return last_timesteps(self.scheduler, steps, self.sigmas, self.shift(steps))

    def matched_step(self, step: int, ratio: float) -> int:
        """As `stage_scheduler.matched_step`."""
        return matched_step(self.scheduler, step, ratio)


def takes_sigmas(scheduler: Scheduler) -> bool:
    """Whether it is a flow's, whose pipelines give it sigmas of their own."""
    return (
        not hasattr(scheduler, "alphas_cumprod") and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    )


def last_timesteps(
    scheduler: Scheduler, steps: int, sigmas: Sigmas = linear_sigmas, base_shift: float = 0.0
) -> list[float]:
    """The last timestep of this many steps, for each way that pipelines ask for them; none where only they know.

    A dynamic shift is taken to be the largest, which leaves the fewest steps at low noise.

    Args:
        scheduler: The pipeline's; it is not changed.
        steps: Steps of the whole schedule.
        sigmas: From a number of steps to what the pipeline gives a flow's scheduler.
        base_shift: The base stage's, where it may be larger than the scheduler's largest.

    Raises:
        ValueError: The scheduler has no such schedule.
    """
    dynamic = bool(scheduler.config.get("use_dynamic_shifting"))
    ways: list[dict[str, Any]] = [] if dynamic else [{"num_inference_steps": steps}]
    if takes_sigmas(scheduler):
        shift = {"mu": max(base_shift, scheduler.config.get("max_shift") or 0.0)} if dynamic else {}
        ways.append({"sigmas": sigmas(steps), **shift})
    return [_last(scheduler, way) for way in ways]


def shortened(schedules: Schedules, steps: int, share: float, pivot_step: int) -> int:
    """That share of the steps, or as many more, up to all, as it takes to have one at or below K."""
    least = max(1, round(share * steps))
    enough = (few for few in range(least, steps) if max(schedules.last_timesteps(few), default=0.0) <= pivot_step)
    return next(enough, steps)


def lowest_pivot(limit: int, steps: int, last: float) -> int:
    """The lowest K in (0, T] that leaves a step, the last one at this timestep.

    Args:
        limit: T.
        steps: Steps of the schedule.
        last: Its last timestep.

    Raises:
        OptionError: That step would start from hardly anything but noise.
    """
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
