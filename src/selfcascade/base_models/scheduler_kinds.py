"""Checks that a pipeline's scheduler is of the kind that its model was trained for."""

from __future__ import annotations

import inspect
from typing import Any

from selfcascade.base_models.family import Family
from selfcascade.base_models.pivot_controls import counts_signal
from selfcascade.base_models.protocols import Scheduler
from selfcascade.base_models.stage_scheduler import numbers_steps

FLOW = "FlowMatchEulerDiscreteScheduler"


def check_scheduler(family: Family) -> None:
    """Raises if the scheduler would misread the model's output, or has no steps that a stage could start at.

    Raises:
        ValueError: The scheduler does not fit; the message says what to use.
    """
    scheduler, flow = family.pipe.scheduler, predicts_flow(family)
    name, kind = family.name, type(scheduler).__name__
    other = _of_eps(scheduler) if flow else FLOW
    if flow and not is_flow(scheduler):
        raise ValueError(
            f"scheduler {kind} takes the network's output for {other}, and {name} predicts a flow; "
            f"use pipe.scheduler = {FLOW}.from_config(pipe.scheduler.config)"
        )
    if flow is False and not hasattr(scheduler, "init_noise_sigma"):
        raise ValueError(
            f"scheduler {kind} is for models that predict a flow, which {name} does not; use the scheduler that came "
            "with the model, or another of that kind, such as DDIMScheduler or EulerDiscreteScheduler"
        )
    signal = counts_signal(scheduler)
    if family.counts_signal and not signal:
        raise ValueError(
            f"scheduler {kind} counts from picture to noise, and {name} from noise to picture; "
            f"use pipe.scheduler = {FLOW}.from_config(pipe.scheduler.config, invert_sigmas=True)"
        )
    if not numbers_steps(scheduler) or (signal and not family.counts_signal):
        again = "(pipe.scheduler.config, invert_sigmas=False)" if flow else "(pipe.scheduler.config)"
        raise ValueError(
            f"scheduler {kind} does not number its steps by training timesteps or adds no noise at one, so no stage "
            f"can start at a noise level; use pipe.scheduler = {FLOW if flow else 'DDIMScheduler'}.from_config{again}"
        )


def predicts_flow(family: Family) -> bool | None:
    """Whether the model predicts eps - z_0, from its class or its pipeline's signature; None if neither says."""
    if family.flow is not None:
        return family.flow
    parameter = inspect.signature(type(family.pipe).__init__).parameters.get("scheduler")
    declared = "" if parameter is None else f"{parameter.annotation}"
    if "FlowMatch" in declared:
        return True
    return False if "Scheduler" in declared and "SchedulerMixin" not in declared else None


def is_flow(scheduler: Scheduler) -> bool:
    """Whether the scheduler takes the network's output for a flow."""
    config: Any = scheduler.config
    by_name = not hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "init_noise_sigma")
    return by_name or config.get("prediction_type") == "flow_prediction" or bool(config.get("use_flow_sigmas"))


def _of_eps(scheduler: Scheduler) -> str:
    return str(scheduler.config.get("prediction_type", "epsilon"))
