"""Finds a schedule's last timestep before anything runs, which tells whether a stage has a step at or below K.

Some pipelines give their scheduler their own sigmas and shift. What follows from the scheduler alone is then an
estimate, and `PipelineBaseModel.with_steps` asks the pipeline.
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

LEAST_STEPS = 4  # of a schedule that a preset shortens
NOISE_SHARE = 0.95  # of T: from here on a stage would start from almost pure noise


class Schedules(Protocol):
    """What planning needs to know about a model's schedules, for any number of steps."""

    @property
    def training_steps(self) -> int:
        """T, the number of training timesteps."""
        ...

    def last_timesteps(self, steps: int) -> list[float]:
        """Last timesteps of a schedule with this many steps, one for each way to ask for it; empty if unknown."""
        ...

    def matched_step(self, step: int, ratio: float) -> int:
        """The timestep that hides as much of a picture with `ratio` times the pixels as `step` does at native size."""
        ...


def linear_sigmas(steps: int) -> Sequence[float]:
    """Sigmas that Flux's pipeline and those built like it give their scheduler."""
    return np.linspace(1.0, 1 / steps, steps).tolist()


def no_shift(steps: int) -> float:
    """The shift of pipelines that stay within the scheduler's `max_shift`."""
    return 0.0


@dataclass(frozen=True)
class SchedulerSchedules:
    """Schedules of a diffusers scheduler, which is not changed.

    Attributes:
        scheduler: The pipeline's scheduler.
        sigmas: Maps a number of steps to the sigmas that the pipeline gives a flow scheduler.
        shift: Maps a number of steps to the base stage's dynamic shift, if it can exceed the scheduler's `max_shift`.
    """

    scheduler: Scheduler
    sigmas: Sigmas = linear_sigmas
    shift: Shift = no_shift

    @property
    def training_steps(self) -> int:
        """T, the number of training timesteps."""
        return training_steps(self.scheduler)

    def last_timesteps(self, steps: int) -> list[float]:
        """See `last_timesteps`."""
        return last_timesteps(self.scheduler, steps, self.sigmas, self.shift(steps))

    def matched_step(self, step: int, ratio: float) -> int:
        """See `stage_scheduler.matched_step`."""
        return matched_step(self.scheduler, step, ratio)


def takes_sigmas(scheduler: Scheduler) -> bool:
    """Whether this is a flow scheduler that accepts sigmas from its pipeline."""
    return (
        not hasattr(scheduler, "alphas_cumprod") and "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    )


def last_timesteps(
    scheduler: Scheduler, steps: int, sigmas: Sigmas = linear_sigmas, base_shift: float = 0.0
) -> list[float]:
    """Last timesteps of a schedule, one for each way that pipelines ask for it; empty if only the pipeline knows.

    A dynamic shift is assumed to be the largest possible, which leaves the fewest steps at low noise.

    Args:
        scheduler: The pipeline's scheduler; it is not changed.
        steps: Steps of the whole schedule.
        sigmas: Maps a number of steps to the sigmas that the pipeline gives a flow scheduler.
        base_shift: The base stage's shift, if it can exceed the scheduler's `max_shift`.

    Raises:
        ValueError: The scheduler cannot make this schedule.
    """
    dynamic = bool(scheduler.config.get("use_dynamic_shifting"))
    ways: list[dict[str, Any]] = [] if dynamic else [{"num_inference_steps": steps}]
    if takes_sigmas(scheduler):
        shift = {"mu": max(base_shift, scheduler.config.get("max_shift") or 0.0)} if dynamic else {}
        ways.append({"sigmas": sigmas(steps), **shift})
    return [_last(scheduler, way) for way in ways]


def shortened(schedules: Schedules, steps: int, share: float, pivot_step: int) -> int:
    """Number of steps: this share of all, or as many more as are needed to have one at or below K.

    There are at least four, or all of fewer: models that were distilled to few steps need each of them.
    """
    least = max(min(steps, LEAST_STEPS), round(share * steps))
    enough = (few for few in range(least, steps) if max(schedules.last_timesteps(few), default=0.0) <= pivot_step)
    return next(enough, steps)


def lowest_pivot(limit: int, steps: int, last: float) -> int:
    """The lowest K in (0, T] that leaves a step to run.

    Args:
        limit: T, the number of training timesteps.
        steps: Steps of the schedule, for the message.
        last: The schedule's last timestep.

    Raises:
        OptionError: The step would start from almost pure noise.
    """
    if last > NOISE_SHARE * limit:
        raise OptionError(
            f"{{num_inference_steps}} {steps} leaves a stage above the base only the step from pure noise, at "
            f"{last:g} of {limit}; give more"
        )
    return max(1, math.ceil(last))


def _last(scheduler: Scheduler, way: dict[str, Any]) -> float:
    whole = stage_scheduler(scheduler, None)
    whole.set_timesteps(**way)
    return float(noise_timesteps(whole).min())
