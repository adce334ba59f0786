"""Keeps a stage close to its pivot, beyond re-noising: anchors its low band, and restores its energy.

Both act on latents or on the scheduler's input, never on a network, so LoRAs, ControlNets, and compiled or quantised
denoisers work as before.

Axis letters: B images, C channels, F frames, h, w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.base_models.protocols import Scheduler
from selfcascade.cascade import Size
from selfcascade.options.checks import OptionError

Upscaling = Callable[[Tensor, Size], Tensor]
KINDS = ("epsilon", "v_prediction", "flow_prediction", "sample")
# Every second step of these is at a noise level for which their `add_noise` has no timestep.
HALF_STEPS = frozenset({"KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"})
MAX_GAIN = 2.0  # of the high band: where almost nothing of it is left, only error would be amplified


@dataclass(frozen=True)
class PivotSettings:
    """How a pivot is enlarged, and how closely a stage follows it.

    Attributes:
        upsampling: phi: "latent-bilinear" (the paper), "latent-bicubic", or "rgb" (decode, Lanczos, encode).
        anchor: Share of the stage's steps, from the first, whose low band is replaced by the pivot's, in [0, 1].
        energy: How much of its lost energy the enlarged pivot's high band gets back, in [0, 1].
        shared_noise: Share of the renoise variance that all frames of a clip have in common, in [0, 1].
        attention: Attention in stages above the native size: "full", or "local" (`stage_attention`).
        upscaler: Enlarges the decoded pivot in "rgb": from pixels in [0, 1] and a size to pixels of that size in
            [0, 1] (`pixel_upscaling.PixelUpscaler`). None means Lanczos windows.
    """

    upsampling: str = "latent-bilinear"
    anchor: float = 0.0
    energy: float = 0.0
    shared_noise: float = 0.0
    attention: str = "full"
    upscaler: Upscaling | None = None


def counts_signal(scheduler: Scheduler) -> bool:
    """Whether timesteps and sigmas rise from noise at 0 to the picture, like Mochi's."""
    return bool(scheduler.config.get("invert_sigmas"))


def check_anchorable(scheduler: Scheduler) -> None:
    """Raises OptionError unless the scheduler's prediction type and the noise level of each of its steps are known."""
    name, kind = type(scheduler).__name__, _prediction_type(scheduler)
    if name in HALF_STEPS:
        why = f"knows no noise level for the half steps of {name}"
    elif kind not in KINDS:
        why = f"needs a prediction_type of {', '.join(KINDS)}, not prediction_type {kind!r} of {name}"
    else:
        return
    raise OptionError("{anchor} {why}; give {anchor} 0, or the pipeline another scheduler", why=why)


def low_band(z: Tensor, height: int, width: int) -> Tensor:
    """The part of z that survives at height x width latent pixels: averaged down to that size, and enlarged again.

    For a whole factor per side this is the projection on block means, and for 2 the low band of a Haar wavelet:
    low_band(low_band(z)) = low_band(z). It is orthogonal to the rest, so a low band can be replaced without changing
    the bands above it.

    Args:
        z: (..., h, w).
        height, width: The new size, at most h and w.
    """
    planes = z.float().flatten(0, -3)[None]  # (1, B C F, h, w)
    small = interpolate(planes, size=(height, width), mode="area")
    return interpolate(small, size=z.shape[-2:], mode="nearest-exact")[0].view(z.shape)


def restore_energy(z_up: Tensor, pivot: Tensor, strength: float) -> Tensor:
    """The enlarged pivot with the energy that interpolation took from its finest octave.

    z = L + k^strength H, with L the low band at half the pivot's size, H = z_up - L, and k such that L + k H has the
    pivot's own variance in each channel of each picture: k^2 = (var z_0 - var L) / var H, in [1, 2]. RectifiedHR and
    MegaFusion rescale energy too; scaling only the band that lost it, which keeps contrast and colours, is ours.

    Args:
        z_up: phi(z_0), (B, C, h', w') or (B, C, F, h', w').
        pivot: z_0, (B, C, h, w) or (B, C, F, h, w).
        strength: How much is restored, from 0 (bit for bit z_up) to 1 (all).
    """
    if strength == 0:
        return z_up
    height, width = (max(1, side // 2) for side in pivot.shape[-2:])
    low = low_band(z_up, height, width)
    high = z_up.float() - low
    wanted = _variance(pivot) - _variance(low)
    gain = (wanted.clamp(min=0) / _variance(high).clamp(min=1e-12)).sqrt().clamp(1.0, MAX_GAIN)
    return (low + gain**strength * high).to(z_up.dtype)


class Anchor:
    """Replaces the low band of a step's predicted x_0 by the pivot's, by changing the network's output.

    With P the low band at the pivot's size: x_0' = x_0 + P (phi(z_0^(r-1)) - x_0). Every prediction is affine in x_0 at
    a given noisy sample, x_0 = a x + b o, so the output becomes o' = o + P (phi(z_0^(r-1)) - x_0) / b, and any
    scheduler can go on from there. DiffuseHigh (Kim et al. 2025) replaces the low band of a wavelet in the same way.
    Guidance is affine in its two outputs, with weights that add up to 1, so correcting the result is the same as
    correcting both; it costs half as much, and works for rescaled guidance too.

    Args:
        enlarged: phi(z_0^(r-1)), (B, C, h, w) or (B, C, F, h, w).
        height, width: Height and width of the pivot, in latent pixels.
        share: Share of the stage's steps, from the first, in (0, 1].
        to_spatial: Converts the scheduler's samples to the layout of `enlarged`.
        to_step: The inverse of `to_spatial`.
    """

    def __init__(
        self,
        enlarged: Tensor,
        height: int,
        width: int,
        share: float,
        to_spatial: Callable[[Tensor], Tensor],
        to_step: Callable[[Tensor], Tensor],
    ) -> None:
        self.enlarged, self.height, self.width, self.share = enlarged, height, width, share
        self.to_spatial, self.to_step = to_spatial, to_step

    def holds(self, step: int, count: int) -> bool:
        """Whether the step of this index, of `count`, is among the first share."""
        return step < round(self.share * count)

    def correction(self, x_0: Tensor) -> Tensor:
        """P (phi(z_0^(r-1)) - x_0), which is added to a predicted x_0; in the layout of `enlarged`."""
        return low_band(self.enlarged.float() - x_0, self.height, self.width)

    def __call__(self, scheduler: Scheduler, output: Tensor, timestep: float | Tensor, sample: Tensor) -> Tensor:
        """The output o' that replaces the network's.

        Args:
            scheduler: The scheduler with all its steps; its state is not changed.
            output: The network's output after guidance, as passed to the scheduler.
            timestep: Timestep of the step.
            sample: x, the noisy latents.

        Raises:
            ValueError: The output is not of the sample's shape.
        """
        if output.shape != sample.shape:
            raise OptionError(
                f"{{anchor}} needs an output of the latents' shape {[*sample.shape]}, and {type(scheduler).__name__} "
                f"is given {[*output.shape]}; give {{anchor}} 0"
            )
        a, b = x_0_weights(scheduler, timestep)
        if b == 0:
            return output
        x_0 = self.to_spatial(a * sample.float() + b * output.float())
        return output + (self.to_step(self.correction(x_0)) / b).to(output.dtype)


def x_0_weights(scheduler: Scheduler, timestep: float | Tensor) -> tuple[float, float]:
    """Weights a, b of x_0 = a x + b o, by which a scheduler computes clean latents from a sample x and an output o.

    With x = alpha z_0 + sigma eps, in the scheduler's own scale, and n^2 = alpha^2 + sigma^2:

        epsilon        o = eps                             a = 1 / alpha      b = -sigma / alpha
        v_prediction   o = (alpha eps - sigma z_0) / n     a = alpha / n^2    b = -sigma / n
        flow           o = eps - z_0, alpha = 1 - sigma    a = 1              b = -sigma; + where o = z_0 - eps
        sample         o = z_0                             a = 0              b = 1
    """
    kind = _prediction_type(scheduler)
    if kind == "sample":
        return 0.0, 1.0
    alpha, sigma = noise_weights(scheduler, timestep)
    if kind == "epsilon":
        return 1 / alpha, -sigma / alpha
    if kind == "v_prediction":
        square = alpha**2 + sigma**2
        return alpha / square, -sigma / square**0.5
    return 1.0, sigma if counts_signal(scheduler) else -sigma


def noise_weights(scheduler: Scheduler, timestep: float | Tensor) -> tuple[float, float]:
    """Weights alpha, sigma of the current step's sample alpha z_0 + sigma eps, from the scheduler's `add_noise`."""
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    timesteps = torch.as_tensor(timestep).reshape(-1)[:1].to("cpu")

    def mixed(z_0: Tensor, noise: Tensor) -> float:
        if hasattr(scheduler, "add_noise"):
            return float(scheduler.add_noise(z_0, noise, timesteps))
        if counts_signal(scheduler):
            return float(scheduler.scale_noise(noise, timesteps, z_0))
        return float(scheduler.scale_noise(z_0, timesteps, noise))

    return mixed(one, zero), mixed(zero, one)


def _prediction_type(scheduler: Scheduler) -> str:
    return scheduler.config.get("prediction_type", "flow_prediction")  # schedulers for flows only do not state it


def _variance(z: Tensor) -> Tensor:
    return z.float().var(dim=(-2, -1), keepdim=True, unbiased=False)
