"""ScaleCrafter: direct inference with convolutions that see as much of the picture as in training (He et al. 2023)."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad
from torch.utils.hooks import RemovableHandle

from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.family import denoiser
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.stage_scheduler import training_steps
from selfcascade.methods.direct import sampled_at
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.methods.unet_layers import (
    Named,
    Positional,
    convolution_levels,
    convolving,
    refuse_compiled,
    timestep_of,
)
from selfcascade.pipeline.calls import SelfCascadeOutput

LARGEST_BLIND = 2.0  # scale up to which plain re-dilation of the inner levels is enough


class Factor(NamedTuple):
    """Factor by which a convolution's receptive field grows along each axis."""

    height: float
    width: float

    def capped(self, most: float) -> Factor:
        """The factor, limited to the range from 1 to `most`."""
        return Factor(*(max(1.0, min(side, most)) for side in self))


class ScaleCrafter(Method, options="scalecrafter"):
    """Re-dilated convolutions in early steps; from 16x the pixels on also dispersed, with noise-damped guidance."""

    summary = "direct, with re-dilated and dispersed convolutions and noise-damped guidance in the early steps"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """The pipeline's output at the target size.

        Raises:
            ValueError: The model has no U-Net, or it is compiled.
        """
        target, native = request.target, request.cascade.native_size
        scale = Factor(target.height / native.height, target.width / native.width).capped(math.inf)
        share = request.arguments.get("dilated_share", default_share(max(scale)))
        with redilating(request.pipe, scale, share):
            return sampled_at(request.pipe, request.prompt, target, request.without("dilated_share"))


def default_share(scale: float) -> float:
    """Share of the noise levels with changed convolutions: 0.4 at 2x a side, 0.74 at 4x, as in the paper."""
    doublings = math.log2(scale)
    return 0.4 * doublings if doublings <= 1 else min(0.9, 0.4 + 0.34 * (doublings - 1))


def level_factor(scale: Factor, level: int, levels: int) -> Factor:
    """Dilation of a level, 0 the shallowest: the scale up to 2; beyond, from 2 at level 1 to the scale at the last."""
    if level == 0:
        return Factor(1.0, 1.0)
    depth = (level - 1) / max(1, levels - 2)
    return Factor(*(side if side <= LARGEST_BLIND else 2 + depth * (side - 2) for side in scale))


@contextlib.contextmanager
def redilating(pipe: Pipeline, scale: Factor, share: float) -> Generator[None]:
    """Re-dilates the U-Net's 3 x 3 convolutions within this context while t is in the top `share` of noise levels.

    Beyond 2x a side, factors fall with t (down to 2), kernels with factors over 2 are dispersed first, and guidance is
    noise-damped: eps(x) + w (eps'(x, y) - eps'(x)), where only eps' is dilated in the shallowest level too.

    Raises:
        ValueError: The model is not a U-Net, or a part of it is compiled.
    """
    unet = denoiser(pipe)
    refuse_compiled(unet, ScaleCrafter.name)
    convolutions = convolution_levels(unet, ScaleCrafter.name)
    last = training_steps(pipe.scheduler)
    large = max(scale) > LARGEST_BLIND
    state = _State(scale, len(unet.down_blocks), last * (1 - share), last, large)

    def begin(module: nn.Module, positional: Positional, named: Named) -> None:
        state.timestep = timestep_of(module, positional, named)

    def damp(module: nn.Module, positional: Positional, named: Named, output: Any) -> Any:
        guided = getattr(pipe, "do_classifier_free_guidance", False)
        if not large or not guided or state.plain_outside or not state.active:
            return None
        state.plain_outside = True
        try:
            own = _sample(module(*positional, **named))
        finally:
            state.plain_outside = False
        perturbed = bool(getattr(pipe, "do_perturbed_attention_guidance", False))  # a third branch
        blind, *prompted = _sample(output).chunk(2 + perturbed)
        unconditional = own.chunk(2 + perturbed)[0]
        damped = torch.cat([unconditional, *(unconditional + branch - blind for branch in prompted)])
        return (damped, *output[1:]) if isinstance(output, tuple) else type(output)(sample=damped)

    def convolve(module: nn.Conv2d, level: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return redilated_convolution(module, x, weight, bias, state.factor(level))

    def register() -> Iterator[RemovableHandle]:
        yield unet.register_forward_pre_hook(begin, with_kwargs=True)
        yield unet.register_forward_hook(damp, with_kwargs=True)

    changes = {module: functools.partial(convolve, module, level) for module, level in convolutions.items()}
    with hooks_in_place(register()), convolving(changes):
        yield


class _State:
    """The U-Net's place in the schedule, and so the dilation of each level."""

    def __init__(self, scale: Factor, levels: int, until: float, last: int, large: bool) -> None:
        self.scale, self.levels, self.until, self.last, self.large = scale, levels, until, last, large
        self.timestep, self.plain_outside = 0.0, False

    @property
    def active(self) -> bool:
        return self.timestep >= self.until and self.last > self.until

    def factor(self, level: int) -> Factor:
        """The dilation factor of a level at this step."""
        if not self.active:
            return Factor(1.0, 1.0)
        if not self.large:
            return level_factor(self.scale, level, self.levels)
        if level == 0:  # the strong denoiser of noise-damped guidance does not change the shallowest level
            return Factor(1.0, 1.0) if self.plain_outside else self.scale.capped(2)
        left = (self.timestep - self.until) / (self.last - self.until)
        full = level_factor(self.scale, level, self.levels)
        return Factor(*(min(side, max(2, math.ceil(side * left))) for side in full))


def redilated_convolution(module: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, factor: Factor) -> Tensor:
    """interp_{1/s}( interp_s(h) * phi_{ceil(d)}(k) ), s = ceil(d) / d; kernels over d = 2 are dispersed to 5 x 5 first.

    Args:
        module: The convolution; its stride is used, and at factor 1 it is applied unchanged.
        x: (B, C, H, W).
        weight, bias: Weight and bias of the module, 3 x 3.
        factor: d along each axis, 1 or more.
    """
    if max(factor) <= 1:
        return conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)  # type: ignore[arg-type]
    if min(factor) > 2:
        weight, factor = dispersed(weight), Factor(*(side / 2 for side in factor))
    dilation = [math.ceil(side - 1e-6) for side in factor]
    size = [
        max(1, round(side * whole / real)) for side, whole, real in zip(x.shape[-2:], dilation, factor, strict=True)
    ]
    resized = x if tuple(size) == tuple(x.shape[-2:]) else interpolate(x, size=size, mode="bilinear")
    reach = [whole * (weight.shape[-1] // 2) for whole in dilation]
    made: Tensor = conv2d(resized, weight, bias, module.stride, reach, dilation, module.groups)  # type: ignore[arg-type]
    wanted = tuple(math.ceil(side / step) for side, step in zip(x.shape[-2:], module.stride, strict=True))
    if tuple(made.shape[-2:]) == wanted:
        return made
    return interpolate(made, size=wanted, mode="bilinear")


def dispersed(kernel: Tensor) -> Tensor:
    """R(k): the 5 x 5 kernel that does on a map twice as large what the 3 x 3 kernel (..., 3, 3) did on the map."""
    transform = dispersion().to(kernel)
    return torch.einsum("pq,...q->...p", transform, kernel.flatten(-2)).reshape(*kernel.shape[:-2], 5, 5)


@functools.cache
def dispersion(pixel_weight: float = 0.05) -> Tensor:
    """R of convolution dispersion, (25, 9) float64: linear least squares over all maps h and kernels k.

    min_R || up(h * k) - up(h) * R k ||^2 + eta || h * k - h * R k ||^2, with up bilinear by two. Both sides are linear
    in h and k, so h is one point and k runs through the unit kernels.

    Args:
        pixel_weight: eta, the weight of doing the same on the map itself.
    """
    side, middle = 17, 8
    point = torch.zeros(1, 1, side, side, dtype=torch.float64)
    point[0, 0, middle, middle] = 1
    units = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)

    def up(maps: Tensor) -> Tensor:
        return interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)

    shifted = torch.eye(25, dtype=torch.float64).view(25, 1, 5, 5)
    structure = conv2d(up(point), shifted, padding=2).flatten(2)[0].T  # (positions, 25)
    wanted = up(conv2d(point, units, padding=1).transpose(0, 1)).flatten(2)[:, 0].T  # (positions, 9)
    pixels = conv2d(point, shifted, padding=2).flatten(2)[0].T
    kept = conv2d(point, pad(units, (1, 1, 1, 1)), padding=2).flatten(2)[0].T
    weight = pixel_weight**0.5
    linalg = cast("Any", torch.linalg)
    return linalg.lstsq(torch.cat([structure, weight * pixels]), torch.cat([wanted, weight * kept])).solution


def _sample(output: Any) -> Tensor:
    return cast("tuple[Tensor, ...]", output)[0] if isinstance(output, tuple) else output.sample
