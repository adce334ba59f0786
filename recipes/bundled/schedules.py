"""Noise schedules for small latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

# Stable Diffusion's, for 64 x 64 latents.
REFERENCE = {"beta_start": 0.00085, "beta_end": 0.012, "pixels": 64 * 64, "steps": 1000}


def reference_snr() -> Tensor:
    """Signal-to-noise ratios abar / (1 - abar) of Stable Diffusion's scaled-linear schedule, (1000,) float64."""
    roots = torch.linspace(REFERENCE["beta_start"] ** 0.5, REFERENCE["beta_end"] ** 0.5, REFERENCE["steps"]).double()
    alphas = (1 - roots**2).cumprod(0)
    return alphas / (1 - alphas)


def matched_snr(pixels: int, fade: int = 16) -> Tensor:
    """Signal-to-noise ratios that hide as much of a picture with few latent pixels as Stable Diffusion's, (1000,).

    Averaging over n latent pixels multiplies the signal-to-noise ratio by n. So a timestep means the same for the
    layout of a picture of n pixels as for one of 64 x 64 if SNR(t) n = SNR_SD(t) 64^2. That holds here to half a
    timestep up to t = 700, where the paper starts a stage. Above, the ratio fades to almost 0, since the signal that
    Stable Diffusion keeps at t = T would show (Lin et al. 2024): SNR(t) = SNR_SD(t) 64^2 / n (1 - (t / (T +
    1))^fade)^2.

    Args:
        pixels: n, the number of latent pixels at native size.
        fade: Exponent of the fading; a larger one starts later.
    """
    steps = REFERENCE["steps"]
    t = torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1)
    return reference_snr() * REFERENCE["pixels"] / pixels * (1 - t**fade) ** 2


def cosine_snr(shift: float, steps: int) -> Tensor:
    """The cosine schedule's (Nichol and Dhariwal 2021), each ratio times `shift`; (steps,) float64."""
    cosine = torch.cos(torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1) * torch.pi / 2) ** 2
    return shift * cosine / (1 - cosine)


def equivalent_step(snr: Tensor, ratio: float) -> float:
    """The timestep in [1, T], possibly fractional, at which a falling schedule (T,) has this signal-to-noise ratio."""
    falling = snr.log().tolist()
    wanted = float(torch.tensor(ratio).log())
    above = sum(value > wanted for value in falling)
    if above in (0, len(falling)):
        return float(max(above, 1))
    high, low = falling[above - 1], falling[above]
    return above + (high - wanted) / (high - low)


def build_scheduler(settings: Mapping[str, Any]) -> DDIMScheduler:
    """DDIM over one of these schedules.

    Args:
        settings: `prediction_type`, and either `pixels` (`matched_snr`) or `snr_shift` (`cosine_snr`).
    """
    steps = REFERENCE["steps"]
    snr = matched_snr(settings["pixels"]) if "pixels" in settings else cosine_snr(settings["snr_shift"], steps)
    alphas = torch.cat([torch.ones(1, dtype=torch.float64), snr / (1 + snr)])
    betas = (1 - alphas[1:] / alphas[:-1]).clamp(max=0.999)
    return DDIMScheduler(
        num_train_timesteps=steps,
        trained_betas=[round(float(beta), 9) for beta in betas],
        prediction_type=settings["prediction_type"],
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
