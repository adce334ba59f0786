"""ComfyUI's noise schedules as the library's planning knows schedules: by training timesteps."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import comfy.samplers
import numpy as np
import torch
from torch import Tensor

from selfcascade.base_models.stage_scheduler import step_of_snr

FLOW_STEPS = 1000  # T of flows, whose timestep is sigma T, as diffusers has it
DECIMALS = 3  # of timesteps that are interpolated in float32


class ComfySchedules:
    """The schedules of a model with a sampler and a scheduler of ComfyUI, of any number of steps.

    Args:
        model: A `ModelPatcher`.
        sampler_name, scheduler: Names as KSampler has them.

    Raises:
        ValueError: The model's noise levels have no training timesteps, so K would mean nothing.
    """

    def __init__(self, model: Any, sampler_name: str, scheduler: str) -> None:
        self.model, self.sampler_name, self.scheduler = model, sampler_name, scheduler
        self.sampling = model.get_model_object("model_sampling")
        self.flow = isinstance(self.sampling, comfy.model_sampling.CONST)
        if not self.flow and not hasattr(self.sampling, "num_timesteps"):
            raise ValueError(
                f"model has noise levels without training timesteps, {type(self.sampling).__mro__[1].__name__}, so no "
                "stage can start at one; use a Stable Diffusion 1.x, 2.x or XL checkpoint, or a flow (SD 3, Flux)"
            )

    @property
    def training_steps(self) -> int:
        """T, the number of training timesteps."""
        return FLOW_STEPS if self.flow else self.sampling.num_timesteps

    def sigmas(self, steps: int, pivot_step: int | None = None) -> Tensor:
        """KSampler's own sigmas of so many steps, falling to 0; with K those from the first one at or below it on."""
        known = comfy.samplers.KSampler(
            self.model, steps, "cpu", self.sampler_name, self.scheduler, 1.0, self.model.model_options
        ).sigmas
        if pivot_step is None:
            return known
        return known[next(index for index, sigma in enumerate(known) if self.timestep(sigma) <= pivot_step) :]

    def timestep(self, sigma: Tensor) -> float:
        """The training timestep of a noise level, in [0, T]; between two of them in proportion to log sigma."""
        if self.flow:
            return round(float(sigma) * FLOW_STEPS, DECIMALS)
        levels = self.sampling.sigmas.cpu()
        if len(levels) != self.training_steps:  # distilled models know a few of them
            return float(self.sampling.timestep(sigma))
        place = np.interp(float(sigma.log()), levels.log().numpy(), np.arange(len(levels)))
        return round(float(place), DECIMALS)

    def last_timesteps(self, steps: int) -> list[float]:
        """The timestep of the last of so many steps."""
        return [self.timestep(self.sigmas(steps)[-2])]

    def matched_step(self, step: int, ratio: float) -> int:
        """The timestep that hides as much of a picture with `ratio` times the pixels as `step` of a native one."""
        kept = None if self.flow else 1 / (1 + self.sampling.sigmas.cpu().double() ** 2)
        return step_of_snr(step, ratio, self.training_steps, kept)


def step_of(sigmas: Tensor, sigma: Tensor) -> int:
    """The index of the step of a schedule that a noise level, (B,), belongs to; samplers also stop between two."""
    level = sigma.reshape(-1)[0].to(sigmas.device)
    return int(torch.sum(sigmas[1:-1] >= level * (1 - 1e-4)))
