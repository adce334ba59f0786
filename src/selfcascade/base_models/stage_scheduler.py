"""The tail scheduler: the user's own scheduler, made to start at a noise level.

A pipeline asks its scheduler for timesteps and then steps through them. The copy made here answers with the tail of its
schedule, from the first step at or below the pivot step K, and steps on the whole schedule with a begin index, exactly
as the official image-to-image twins do: the same operations in the same order, so the same bits.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Generator, Sequence
from typing import Any, Protocol, cast

from torch import Tensor

from selfcascade.base_models.pivot_controls import Anchor, counts_signal
from selfcascade.base_models.protocols import Scheduler
from selfcascade.base_models.request import Generators
from selfcascade.options.checks import OptionError, is_whole

# Their timesteps are not training timesteps (but functions of sigma, or angles), so K would have no meaning.
REFUSED = frozenset(
    {
        "AmusedScheduler",
        "CMStochasticIterativeScheduler",
        "CosineDPMSolverMultistepScheduler",
        "DDIMInverseScheduler",
        "DDPMWuerstchenScheduler",
        "DPMSolverMultistepInverseScheduler",
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "IPNDMScheduler",
        "KarrasVeScheduler",
        "RePaintScheduler",
        "SCMScheduler",
        "ScoreSdeVeScheduler",
        "ScoreSdeVpScheduler",
        "UnCLIPScheduler",
        "VQDiffusionScheduler",
    }
)
# Schedules end at 0 or at the smallest sigma of training, 0.03 for Stable Diffusion.
LAST_SIGMA = 0.1


class NoStepLeft(OptionError):
    """No scheduled step lies at or below K.

    Args:
        pivot_step: K.
        steps: Steps of the stage's whole schedule.
        last: The last scheduled timestep, as a training timestep.
        chosen_by: The option by which the caller chose K, "pivot_step" or "strength".
    """

    def __init__(self, pivot_step: int, steps: int, last: float, chosen_by: str = "pivot_step") -> None:
        self.last, self.steps = last, steps
        asked = f"{{pivot_step}} {pivot_step}" if chosen_by == "pivot_step" else f"{{{chosen_by}}}, K = {pivot_step},"
        super().__init__(
            f"{asked} leaves no step to run: the last of {steps} scheduled steps is at {last:g}; "
            f"raise {{{chosen_by}}} or {{num_inference_steps}}"
        )


class ScheduleKnown(Exception):
    """Raised by a probing scheduler once the pipeline has set its timesteps."""


class StageScheduler(Scheduler, Protocol):
    """The scheduler of one stage: the name and methods of its class, and what the stage needs.

    Attributes:
        pivot_step: K in (0, T]; None for all steps.
        first_index: Index in the whole schedule of the stage's first step.
        whole: Tensors of the whole schedule, while the pipeline sees the tail.
        mu: The dynamic shift that the pipeline passed; 0 before that, or if it passes none.
        largest_mu: Upper limit of mu for a stage with a pivot.
        probing: Whether `ScheduleKnown` is raised once the timesteps are set.
        steps_run: Number of steps run so far.
        stage_latents: Result of the last step; None before the first.
        anchor: Changes the network's output; None leaves it.
        generator: The caller's, used where a pipeline passes none to a scheduler that draws.
    """

    pivot_step: int | None
    first_index: int
    whole: dict[str, Tensor]
    mu: float
    largest_mu: float
    probing: bool
    steps_run: int
    stage_latents: Tensor | None
    anchor: Anchor | None
    generator: Generators | None


def stage_scheduler(scheduler: Scheduler, pivot_step: int | None, base_mu: float = 0.0) -> StageScheduler:
    """A copy of `scheduler` whose `set_timesteps` keeps only the steps at or below `pivot_step`.

    Args:
        scheduler: Any diffusers scheduler that numbers its steps by training timesteps; it is not changed.
        pivot_step: K in (0, T]; None keeps all steps.
        base_mu: The base stage's mu. Pipelines extrapolate mu with the size until hardly a step is left below K, so a
            stage with a pivot uses at most the larger of this and the scheduler's `max_shift`.

    Raises:
        ValueError: The scheduler's timesteps are not training timesteps, or K lies outside (0, T].
    """
    kind: type[Any] = type(scheduler)
    if not numbers_steps(scheduler):
        raise ValueError(
            f"{kind.__name__} does not number its steps by training timesteps or adds no noise at one, so no stage can "
            "start at a noise level"
        )
    if pivot_step is not None:
        check_pivot_step(pivot_step, training_steps(scheduler))
    copied = cast("StageScheduler", copy.deepcopy(scheduler))
    copied.__class__ = _stage_class(kind)
    copied.pivot_step, copied.first_index, copied.whole = pivot_step, 0, {}
    copied.mu, copied.largest_mu = 0.0, max(base_mu, scheduler.config.get("max_shift") or 0.0)
    copied.probing, copied.steps_run, copied.stage_latents = False, 0, None
    copied.anchor = copied.generator = None
    return copied


def numbers_steps(scheduler: Scheduler) -> bool:
    """Whether steps are training timesteps, and `add_noise` takes one."""
    kind: type[Any] = type(scheduler)
    noises = hasattr(scheduler, "add_noise") or hasattr(scheduler, "scale_noise")
    own = inspect.signature(kind.__init__).parameters  # a configuration keeps what another class was told
    config = {name: scheduler.config.get(name) for name in own}
    return noises and not (kind.__name__ in REFUSED or config.get("timestep_type") == "continuous")


def training_steps(scheduler: Scheduler) -> int:
    """T, the number of training timesteps."""
    return int(scheduler.config.get("num_train_timesteps", 1000))


def noise_timesteps(scheduler: Scheduler) -> Tensor:
    """The schedule's timesteps, (n,), as training timesteps: T is noise, 0 is the picture."""
    timesteps = scheduler.timesteps
    return training_steps(scheduler) - timesteps if counts_signal(scheduler) else timesteps


def matched_step(scheduler: Scheduler, step: int, ratio: float) -> int:
    """The timestep that hides as much of a picture with `ratio` times the pixels as `step` does at native size.

    Noise of neighbouring pixels averages out, so what is visible of a picture at a given scale depends on the
    signal-to-noise ratio times the pixels: SNR(t') = SNR(t) / ratio (Hoogeboom et al. 2023, "simple diffusion").

    Args:
        scheduler: A scheduler with `alphas_cumprod`, or for flows, with sigma = t / T.
        step: t, a training timestep in (0, T].
        ratio: Ratio of the pixels, over 0.
    """
    return step_of_snr(step, ratio, training_steps(scheduler), getattr(scheduler, "alphas_cumprod", None))


def step_of_snr(step: int, ratio: float, last: int, alphas_cumprod: Tensor | None) -> int:
    """`matched_step` for T = `last` training timesteps and abar, (T,); None for a flow, where sigma = t / T."""
    check_pivot_step(step, last)
    if alphas_cumprod is None:
        odds = (last - step) / step / ratio**0.5  # (1 - sigma) / sigma, the square root of the SNR
        return min(last, max(1, round(last / (1 + odds))))
    abar = alphas_cumprod.double()
    snr = abar / (1 - abar)
    return max(1, int((snr > snr[min(step, last - 1)] / ratio).sum()))


def check_pivot_step(pivot_step: object, limit: int) -> None:
    """Raises ValueError unless K is a whole number in (0, T]."""
    if not is_whole(pivot_step, 1, limit):
        raise ValueError(
            f"pivot_step must be a whole number from 1 to {limit}, a training timestep, not {pivot_step!r}"
        )


@functools.cache
def _stage_class(kind: type[Any]) -> type:
    """A subclass of the same name. Its methods keep their signatures, which pipelines inspect."""
    signature = inspect.signature(kind.step)

    @functools.wraps(kind.set_timesteps)
    def set_timesteps(self: StageScheduler, *args: object, **kwargs: object) -> None:
        mu = cast("float | None", kwargs.get("mu"))
        if mu is not None:
            self.mu = kwargs["mu"] = mu if self.pivot_step is None else min(mu, self.largest_mu)
        try:
            kind.set_timesteps(self, *args, **kwargs)
        except (AssertionError, AttributeError, TypeError) as error:  # it does not support what the pipeline asks for
            raise ValueError(
                f"scheduler {kind.__name__} does not make the schedule that this pipeline asks for; use the scheduler "
                f"that came with the model ({error or type(error).__name__})"
            ) from error
        _check_timesteps(self)
        _keep_tail(self)
        if self.probing:
            raise ScheduleKnown

    @functools.wraps(kind.step)
    def step(self: StageScheduler, *args: object, **kwargs: object) -> Sequence[Any]:
        anchor, count = self.anchor, len(self.timesteps)
        bound = signature.bind(self, *args, **kwargs)
        given = bound.arguments
        if "generator" in signature.parameters and given.get("generator") is None:
            own = self.generator
            fits = not isinstance(own, list) or len(own) == len(given["model_output"])
            given["generator"] = own if fits else None
        with whole_schedule(self):
            if anchor is not None and anchor.holds(self.steps_run, count):
                given["model_output"] = anchor(self, given["model_output"], given["timestep"], given["sample"])
            result = kind.step(*bound.args, **bound.kwargs)
        self.steps_run += 1
        self.stage_latents = result[0]
        return result

    def scale_model_input(self: StageScheduler, *args: object, **kwargs: object) -> Tensor:
        with whole_schedule(self):
            return kind.scale_model_input(self, *args, **kwargs)

    def set_begin_index(self: StageScheduler, begin_index: int = 0) -> None:
        kind.set_begin_index(self, self.first_index + begin_index)

    def init_noise_sigma(self: StageScheduler) -> float | Tensor:
        # Pipelines scale the latents they are given, but a pivot is at its noise level already.
        return kind.init_noise_sigma.fget(self) if self.pivot_step is None else 1.0

    members: dict[str, object] = {"set_timesteps": set_timesteps, "step": step, "__module__": kind.__module__}
    if hasattr(kind, "scale_model_input"):
        members["scale_model_input"] = functools.wraps(kind.scale_model_input)(scale_model_input)
    if hasattr(kind, "set_begin_index"):
        members["set_begin_index"] = set_begin_index
    if isinstance(getattr(kind, "init_noise_sigma", None), property):
        members["init_noise_sigma"] = property(init_noise_sigma)
    return type(kind.__name__, (kind,), members)


def _check_timesteps(scheduler: StageScheduler) -> None:
    # With an offset, as many steps as there are training timesteps ask for one more than there is.
    timesteps, limit = scheduler.timesteps, training_steps(scheduler)
    if not timesteps.isfinite().all():  # as with noise levels between two that lie too far apart
        raise ValueError(
            f"num_inference_steps of {scheduler.num_inference_steps} gives the {type(scheduler).__name__} timesteps "
            "that are not finite; use more"
        )
    if not timesteps.is_floating_point() and int(timesteps.max()) >= limit:
        raise ValueError(
            f"num_inference_steps of {len(timesteps)} asks the {type(scheduler).__name__} for timestep "
            f"{int(timesteps.max())} of {limit}; use fewer"
        )
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, Tensor) and sigmas.ndim == 1:
        last = 1 - float(sigmas[-1]) if counts_signal(scheduler) else float(sigmas[-1])
        if last > LAST_SIGMA:
            raise ValueError(
                f"sigmas end at {last:g}, so a stage would hand on noisy latents; end them at 0, or use "
                "the scheduler that came with the model"
            )


def _keep_tail(scheduler: StageScheduler) -> None:
    """Leaves the pipeline the steps at or below K, and keeps the whole schedule for the scheduler's arithmetic."""
    timesteps, order = noise_timesteps(scheduler), getattr(scheduler, "order", 1)
    scheduler.first_index, scheduler.whole = 0, {}
    scheduler.steps_run, scheduler.stage_latents = 0, None
    if scheduler.pivot_step is None:
        # Close noise levels round to equal timesteps; schedulers that look their first one up would take the second.
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return
    below = [index for index in range(0, len(timesteps), order) if float(timesteps[index]) <= scheduler.pivot_step]
    if not below:
        raise NoStepLeft(scheduler.pivot_step, len(timesteps), float(timesteps[-1]))
    scheduler.first_index = below[0]
    for name in ("timesteps", "sigmas"):
        values = getattr(scheduler, name, None)
        if isinstance(values, Tensor) and values.ndim == 1:
            scheduler.whole[name] = values
            setattr(scheduler, name, values[scheduler.first_index :])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)


@contextlib.contextmanager
def whole_schedule(scheduler: StageScheduler) -> Generator[None]:
    """Gives the scheduler its whole schedule within this context, instead of the tail."""
    tail = {name: getattr(scheduler, name) for name in scheduler.whole}
    for name, values in scheduler.whole.items():
        setattr(scheduler, name, values)
    try:
        yield
    finally:
        for name, values in tail.items():
            setattr(scheduler, name, values)
