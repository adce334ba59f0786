"""HiDiffusion: direct inference with deep features of the trained size and windowed attention (Zhang et al. 2023)."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate
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
    convolving,
    refuse_compiled,
    spatial_attention,
    timestep_of,
)
from selfcascade.pipeline.calls import SelfCascadeOutput

RESIDUALS = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
)


class HiDiffusion(Method, options="hidiffusion"):
    """Early steps halve the features once more, so that the U-Net's deep levels see the trained size."""

    summary = "direct, with deep features resized to the trained size in early steps and shifted-window attention"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """The pipeline's output at the target size.

        Raises:
            ValueError: The model has no U-Net with down-sampling convolutions, or it is compiled.
        """
        scale = math.sqrt(request.target.area / request.cascade.native_size.area)
        with resizing_deep_features(request.pipe, scale), attending_in_windows(request.pipe, scale):
            return sampled_at(request.pipe, request.prompt, request.target, request.arguments)


def resized_shares(scale: float) -> tuple[float, ...]:
    """Share of the noise levels, from the top, in which the first, second, ... down-sampler halves once more.

    0.4 at 2x a side; 0.7 and 0.3 at 4x (the paper's T_1 and T_2); none below 1.5x.
    """
    if scale < 1.5:
        return ()
    return (0.4,) if scale < 3 else (0.7, 0.3)


@contextlib.contextmanager
def resizing_deep_features(pipe: Pipeline, scale: float) -> Generator[None]:
    """RAU-Net: down-samplers of stride 4 and dilation 2, and up-samplers back to the skip features' own size.

    Raises:
        ValueError: The model is not a U-Net with down-sampling convolutions, or a part of it is compiled.
    """
    unet, shares = denoiser(pipe), resized_shares(scale)
    refuse_compiled(unet, HiDiffusion.name)
    last, now = training_steps(pipe.scheduler), {"timestep": 0.0}
    sizes: dict[int, tuple[int, int]] = {}  # of a level's features, at the input of its down block
    blocks = list(zip(unet.down_blocks, shares, strict=False)) if hasattr(unet, "down_blocks") else []
    convolutions: list[Any] = [
        getattr(down, "conv", None) for block, _ in blocks for down in block.downsamplers or [None]
    ]
    if len(blocks) < len(shares) or not all(isinstance(convolution, nn.Conv2d) for convolution in convolutions):
        raise ValueError(f"{type(unet).__name__} has no down-sampling convolutions; hidiffusion needs a U-Net")

    def begin(module: nn.Module, positional: Positional, named: Named) -> tuple[Positional, Named]:
        now["timestep"] = timestep_of(module, positional, named)
        sample: Tensor = named["sample"] if "sample" in named else positional[0]
        halved = [now["timestep"] >= last * (1 - share) for share in shares]
        given = {name: named[name] for name in RESIDUALS if named.get(name) is not None}
        return positional, {**named, **{name: _fitted(value, sample, halved) for name, value in given.items()}}

    def measure(level: int, module: nn.Module, positional: Positional, named: Named) -> None:
        hidden: Tensor = named["hidden_states"] if "hidden_states" in named else positional[0]
        sizes[level] = (hidden.shape[-2], hidden.shape[-1])

    def convolve(module: nn.Conv2d, share: float, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if now["timestep"] < last * (1 - share):
            return conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)  # type: ignore[arg-type]
        return conv2d(x, weight, bias, 4, 2, 2, module.groups)

    def restore(level: int, module: nn.Module, positional: Positional, named: Named) -> tuple[Positional, Named]:
        return positional[:1], {**named, "output_size": sizes[level]}

    def register() -> Iterator[RemovableHandle]:
        yield unet.register_forward_pre_hook(begin, with_kwargs=True)
        for level, (block, _) in enumerate(blocks):
            yield block.register_forward_pre_hook(functools.partial(measure, level), with_kwargs=True)
            upsampler = unet.up_blocks[len(unet.down_blocks) - 2 - level].upsamplers[0]
            yield upsampler.register_forward_pre_hook(functools.partial(restore, level), with_kwargs=True)

    changes = {
        convolution: functools.partial(convolve, convolution, share)
        for convolution, (_, share) in zip(convolutions, blocks, strict=True)
    }
    with hooks_in_place(register()), convolving(changes):
        yield


def _fitted(residuals: Any, sample: Tensor, halved: list[bool]) -> Any:
    """Residuals of a ControlNet or T2I-Adapter, resized to the level's current size."""
    if not isinstance(residuals, Tensor):
        return [_fitted(one, sample, halved) for one in residuals]
    level = round(math.log2(sample.shape[-1] / residuals.shape[-1]))
    for _ in range(sum(halved[:level])):
        size = [math.ceil(side / 2) for side in residuals.shape[-2:]]
        residuals = interpolate(residuals, size=size, mode="area")
    return residuals


@contextlib.contextmanager
def attending_in_windows(pipe: Pipeline, scale: float) -> Generator[None]:
    """MSW-MSA: self-attention of the shallowest level that has any, in four windows that shift from step to step.

    The paper draws the shift at random; here it cycles, so that a seed determines the picture.
    """
    unet = denoiser(pipe)
    layers = spatial_attention(unet, HiDiffusion.name) if scale >= 1.5 else {}
    shallowest = min(layers.values(), default=0)
    windows = {layer: _Windows() for layer, level in layers.items() if level == shallowest}
    seen: list[float] = []

    def begin(module: nn.Module, positional: Positional, named: Named) -> None:
        timestep = timestep_of(module, positional, named)
        if seen[-1:] != [timestep]:
            seen.append(timestep)
        sample: Tensor = named["sample"] if "sample" in named else positional[0]
        for own in windows.values():
            own.latent, own.quarters = (sample.shape[-2], sample.shape[-1]), (len(seen) - 1) % 4

    def register() -> Iterator[RemovableHandle]:
        yield unet.register_forward_pre_hook(begin, with_kwargs=True)
        for layer, own in windows.items():
            yield layer.register_forward_pre_hook(own.split, with_kwargs=True)
            yield layer.register_forward_hook(own.join)

    with hooks_in_place(register()):
        yield


class _Windows:
    """The four windows of one layer's tokens, each half as high and wide as the map, moved by quarters of a window."""

    def __init__(self) -> None:
        self.latent, self.quarters = (1, 1), 0
        self.grid: tuple[int, int] | None = None

    def split(self, module: nn.Module, positional: Positional, named: Named) -> tuple[Positional, Named] | None:
        """(B, H W, C) to (4 B, H/2 W/2, C); unchanged if the map cannot be halved."""
        hidden: Tensor = positional[0] if positional else named["hidden_states"]
        tokens = hidden.shape[1]
        reduction = max(1, round(math.sqrt(math.prod(self.latent) / tokens)))
        height, width = (math.ceil(side / reduction) for side in self.latent)
        whole = height * width == tokens and height % 2 == 0 and width % 2 == 0
        self.grid = (height, width) if whole else None
        if self.grid is None:
            return None
        by = [-(side // 8 * self.quarters) for side in self.grid]
        batch = len(hidden)
        moved = hidden.reshape(batch, height, width, -1).roll(by, (1, 2))
        cut = moved.reshape(batch, 2, height // 2, 2, width // 2, -1).transpose(2, 3)  # (B, 2, 2, H/2, W/2, C)
        windows = cut.reshape(4 * batch, tokens // 4, -1)
        return ((windows, *positional[1:]), named) if positional else ((), {**named, "hidden_states": windows})

    def join(self, module: nn.Module, positional: Positional, output: Tensor) -> Tensor | None:
        """The inverse of `split`."""
        if self.grid is None:
            return None
        height, width = self.grid
        batch = len(output) // 4
        cut = output.reshape(batch, 2, 2, height // 2, width // 2, -1)
        whole = cut.transpose(2, 3).reshape(batch, height, width, -1)
        by = [side // 8 * self.quarters for side in self.grid]
        return whole.roll(by, (1, 2)).reshape(batch, height * width, -1)
