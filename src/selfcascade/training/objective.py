"""The training objective: the paper's Algorithm 1, for every prediction type.

Axis letters: B pictures; the other axes are those of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Objective(Protocol):
    """A model's forward process and its loss."""

    def noisy(self, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """z_t of clean latents (B, ...) at timesteps (B,)."""
        ...

    def loss(self, prediction: Tensor, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Weighted squared error of each picture, (B,), in float32."""
        ...


class DiffusionObjective:
    """Epsilon, v or sample prediction over a discrete schedule.

    Args:
        scheduler: The pipeline's scheduler; its alphas and prediction type are read.
        snr_gamma: Gamma of min-SNR weighting, adapted to the prediction type (Hang et al. 2023); None for equal
            weights.

    Raises:
        ValueError: The prediction type is unknown, or gamma is not above 0.
    """

    def __init__(self, scheduler: Any, snr_gamma: float | None = None) -> None:
        self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, not {self.prediction_type!r}"
            )
        if snr_gamma is not None and not snr_gamma > 0:
            raise ValueError(f"snr_gamma must be over 0, not {snr_gamma!r}")
        self.alphas_cumprod, self.snr_gamma = scheduler.alphas_cumprod.double(), snr_gamma

    def noisy(self, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps."""
        signal, spread = self._coefficients(z_0, timestep)
        return signal * z_0 + spread * noise

    def loss(self, prediction: Tensor, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Squared error of eps, of v = sqrt(abar) eps - sqrt(1 - abar) z_0, or of z_0, as the model predicts."""
        signal, spread = self._coefficients(z_0, timestep)
        if self.prediction_type == "epsilon":
            target = noise
        elif self.prediction_type == "v_prediction":
            target = signal * noise - spread * z_0
        else:
            target = z_0
        error = (prediction.float() - target.float()).square().flatten(1).mean(1)
        return error * self.weights(timestep).to(error)

    def weights(self, timestep: Tensor) -> Tensor:
        """Weight of each picture's loss, (B,) float64: 1, or min(SNR, gamma) divided by the type's own SNR factor."""
        if self.snr_gamma is None:
            return torch.ones(len(timestep), dtype=torch.float64)
        abar = self.alphas_cumprod[timestep.cpu()]
        snr = abar / (1 - abar)
        # The squared error of eps is SNR times that of z_0, and the one of v is SNR + 1 times that.
        implied = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.prediction_type]
        return snr.clamp(max=self.snr_gamma) / implied

    def _coefficients(self, z_0: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[timestep.cpu()].view(-1, *[1] * (z_0.ndim - 1))
        return abar.sqrt().to(z_0), (1 - abar).sqrt().to(z_0)


class FlowObjective:
    """Rectified flow: z_t = (1 - sigma) z_0 + sigma eps with sigma = t / T, and the velocity eps - z_0 is predicted.

    Args:
        training_steps: T, the number of training timesteps.
    """

    def __init__(self, training_steps: int = 1000) -> None:
        self.training_steps = training_steps

    def noisy(self, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The straight line between data and noise."""
        sigma = (timestep / self.training_steps).view(-1, *[1] * (z_0.ndim - 1)).to(z_0)
        return (1 - sigma) * z_0 + sigma * noise

    def loss(self, prediction: Tensor, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Squared error of the velocity."""
        return (prediction.float() - (noise - z_0).float()).square().flatten(1).mean(1)


def objective_of(scheduler: Any, snr_gamma: float | None = None) -> Objective:
    """The objective that a pipeline's scheduler implies.

    Raises:
        ValueError: The prediction type is unknown, or `snr_gamma` is given for a flow model.
    """
    if not type(scheduler).__name__.startswith("FlowMatch"):
        return DiffusionObjective(scheduler, snr_gamma)
    if snr_gamma is not None:
        raise ValueError("snr_gamma must be left out for flow models")
    return FlowObjective(scheduler.config.num_train_timesteps)


def draw(
    samples: Sequence[int], seed: int, shape: Sequence[int], pivot_step: int, training_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws noise, timesteps t ~ U{1..K} and a uniform number for prompt dropout, each picture's from its own seed.

    A sample's draws depend only on its number, so they do not change with the number of processes or micro-batches.

    Args:
        samples: Each picture's number, counted over the whole run.
        seed: Seed of the run.
        shape: Shape of one picture's latents.
        pivot_step: K, the highest timestep.
        training_steps: T; timesteps are at most T - 1.

    Returns:
        Noise (B, *shape) float32, timesteps (B,) int64, and numbers (B,) float32 in [0, 1).
    """
    noise, timestep, uniform = [], [], []
    for sample in samples:
        generator = torch.Generator().manual_seed((seed * 1_000_000_007 + sample) % 2**63)
        noise.append(torch.randn(tuple(shape), generator=generator))
        timestep.append(torch.randint(1, pivot_step + 1, (), generator=generator))
        uniform.append(torch.rand((), generator=generator))
    return torch.stack(noise), torch.stack(timestep).clamp(max=training_steps - 1), torch.stack(uniform)
