"""Equation 6: adds noise to the enlarged pivot, up to the noise level of K.

Axis letters: B images or clips, C channels, F frames, h, w latent pixels.
"""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from selfcascade.base_models.pivot_controls import counts_signal
from selfcascade.base_models.request import Generators
from selfcascade.base_models.stage_scheduler import StageScheduler, whole_schedule


def add_noise_at_start(scheduler: StageScheduler, z_0: Tensor, noise: Tensor) -> Tensor:
    """z_0 noised to the first step of the stage: sqrt(abar) z_0 + sqrt(1 - abar) eps (eq. 6), or a flow's own mixture.

    Args:
        scheduler: A stage scheduler whose timesteps are set.
        z_0: Clean latents, (B, ...).
        noise: Gaussian noise, the shape of z_0.
    """
    timestep = scheduler.timesteps[:1]
    with whole_schedule(scheduler):
        if hasattr(scheduler, "add_noise"):
            return scheduler.add_noise(z_0, noise, timestep.repeat(len(z_0)))
        if counts_signal(scheduler):  # its sigma is the share of the picture
            return scheduler.scale_noise(noise, timestep, z_0)
        return scheduler.scale_noise(z_0, timestep, noise)


def noise_like(z_0: Tensor, generator: Generators | None, frames_first: bool, shared: float = 0.0) -> Tensor:
    """The noise eps of equation 6, N(0, I), drawn in the pipeline's own order.

    Args:
        z_0: Clean latents, (B, C, h, w) or (B, C, F, h, w).
        generator: Source of the noise; a list has one for each sample.
        frames_first: Whether the pipeline draws clips as (B, F, C, h, w).
        shared: Share in [0, 1] of the variance that all frames of a clip have in common (`mixed_noise`).

    Returns:
        Noise, the shape and type of z_0.
    """

    def drawn(shape: torch.Size | tuple[int, ...]) -> Tensor:
        return randn_tensor(shape, generator, z_0.device, z_0.dtype)

    own = drawn(z_0.transpose(1, 2).shape).transpose(1, 2) if frames_first else drawn(z_0.shape)
    return own if shared == 0 else mixed_noise(own, drawn((*z_0.shape[:2], 1, *z_0.shape[3:])), shared)


def mixed_noise(own: Tensor, common: Tensor, share: float) -> Tensor:
    """Noise whose frames are correlated, each still N(0, I).

    The mixed noise of Ge et al. 2023, "Preserve Your Own Correlation: A Noise Prior for Video Diffusion Models":

    eps_f = sqrt(s) eps_common + sqrt(1 - s) eps_own,f, so E[eps_f eps_g] = s between two frames f and g. With
    the paper's alpha, s = alpha^2 / (1 + alpha^2).

    Args:
        own: Independent noise of all frames, in the pipeline's layout.
        common: Noise of one frame, in the same layout.
        share: s in [0, 1]; 0 is `own`, 1 gives every frame the same noise.
    """
    return share**0.5 * common + (1.0 - share) ** 0.5 * own
