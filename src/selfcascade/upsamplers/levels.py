"""One feature upsampler phi_n: the module of a resolution level for each preset, and its kernels along a clip.

Axis letters: B images (or images x frames), C channels, h, w positions of the pivot, H, W of the stage, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, silu


class FullLevel(nn.Module):
    """Two residual blocks as wide as the level's narrowest skip, conditioned on the U-Net's own time embedding.

    They run at the pivot's size and the result is enlarged: the last convolution is 1 x 1, which commutes with bilinear
    up-sampling, so only the residual blocks see fewer pixels, at a quarter of the cost or less.
    """

    def __init__(self, channels: Sequence[int], time_channels: int) -> None:
        super().__init__()
        width = min(channels)
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if width % g == 0)
        self.joins = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.blocks = nn.ModuleList(
            ResnetBlock2D(in_channels=width, out_channels=width, temb_channels=time_channels, groups=groups)
            for _ in range(2)
        )
        self.outs = nn.ModuleList(_zeroed(nn.Conv2d(width, count, 1)) for count in channels)

    def forward(self, pivot: Sequence[Tensor], own: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> list[Tensor]:
        """One residual (B, C, H, W) per skip; only the size of `own`, the stage's skips, is used."""
        made = self.prepared(pivot, timestep, temb)
        return [self.one(made, index, u, h) for index, (u, h) in enumerate(zip(pivot, own, strict=True))]

    def prepared(self, pivot: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> Tensor:
        """The part that all skips' residuals share: the residual blocks' result, at the pivot's size."""
        return self.through_blocks(self.joined(pivot), temb)

    def joined(self, pivot: Sequence[Tensor]) -> Tensor:
        """The pivot's skips of this level, as the one input of the residual blocks."""
        return torch.stack([join(h) for join, h in zip(self.joins, pivot, strict=True)]).sum(0)

    def through_blocks(self, x: Tensor, temb: Tensor) -> Tensor:
        """The residual blocks' result."""
        for block in self.blocks:
            x = block(x, temb)
        return x

    def one(self, made: Tensor, index: int, u: Tensor, h: Tensor) -> Tensor:
        """The residual of the skip of this index, from what `prepared` made."""
        return enlarged(self.outs[index](made), h)


class MicroLevel(nn.Module):
    """Two residual blocks of one 3 x 3 kernel each, shared by all channels, with gains per channel group and time.

        d = u - down(h),   x = d + a(t) silu(k1 * d),   r = b(t) up(k2 * x) + c(t) (k3 * (h - up(down(h))))

    u is the pivot's skip, h the stage's own, * a depth-wise convolution: b = 1 puts the pivot's features in the place
    of the low frequencies, c strengthens or weakens the high ones, which the pivot lacks. A gain is piecewise linear in
    t between `knots` values from 0 to the pivot step, a set for each of `groups` channel groups of each skip.
    """

    def __init__(self, channels: Sequence[int], groups: int, knots: int, pivot_step: int) -> None:
        super().__init__()
        for count in channels:
            if count % groups:
                raise ValueError(f"groups must divide the skip's channels; {groups} does not divide {count}")
        self.pivot_step = pivot_step
        identity = torch.zeros(3, 3, 3)
        identity[:, 1, 1] = 1
        self.kernels = nn.Parameter(identity)
        self.gains = nn.Parameter(torch.zeros(3, len(channels), groups, knots))

    def forward(self, pivot: Sequence[Tensor], own: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> list[Tensor]:
        """One residual (B, C, H, W) a skip."""
        made = self.prepared(pivot, timestep, temb)
        return [self.one(made, index, u, h) for index, (u, h) in enumerate(zip(pivot, own, strict=True))]

    def prepared(self, pivot: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> Tensor:
        """What the residuals of all skips share: their gains a(t), b(t) and c(t), (skips, 3, B, groups)."""
        knots = self.gains.shape[-1]
        place = (timestep.float() / self.pivot_step).clamp(0, 1)[:, None] * (knots - 1)
        weights = (1 - (place - torch.arange(knots, device=place.device)).abs()).clamp(min=0)  # (B, knots)
        return torch.einsum("asgk,bk->sabg", self.gains.float(), weights).to(pivot[0].dtype)

    def one(self, made: Tensor, index: int, u: Tensor, h: Tensor) -> Tensor:
        """The residual of the skip of this index, from what `prepared` made."""
        return self.residual([_per_group(gain, u) for gain in made[index]], u, h)

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """The residual r of one skip, given a(t), b(t) and c(t), each (B, C, 1, 1)."""
        a, b, c = gains
        low = interpolate(h, size=u.shape[-2:], mode="area")
        d = u - low
        x = d + a * silu(depthwise(d, self.kernels[0]))
        return b * enlarged(depthwise(x, self.kernels[1]), h) + c * depthwise(h - enlarged(low, h), self.kernels[2])


# The presets; a search for better ones adds its own here.
DESIGNS: dict[str, type[MicroLevel]] = {"micro": MicroLevel}
FULL_DESIGNS: dict[str, type[FullLevel]] = {"full": FullLevel}


class FrameKernels(nn.Module):
    """r + k * r for the residuals of a level: a depth-wise convolution along the frames, the first and last repeated.

    Each skip has one kernel, which its channels share; it starts as zero and then changes no bit.

    Args:
        skips: Skips of the level.
        size: Frames that a kernel sees, odd.
    """

    def __init__(self, skips: int, size: int) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.zeros(skips, size))

    def forward(self, residuals: Sequence[Tensor], frames: int) -> list[Tensor]:
        """The residuals, each (B F, C, H, W), with their neighbours in time."""
        size = self.kernels.shape[1]
        places = torch.arange(frames) + torch.arange(size)[:, None] - size // 2
        places = places.clamp(0, frames - 1).to(self.kernels.device)  # (size, F)
        moved: list[Tensor] = []
        for kernel, r in zip(self.kernels, residuals, strict=True):
            clip = r.reshape(-1, frames, *r.shape[1:])
            around = torch.stack([weight * clip[:, place] for weight, place in zip(kernel, places, strict=True)]).sum(0)
            moved.append(r + around.flatten(0, 1))
        return moved


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear up-sampling of (B, C, h, w) to the height and width of `like`."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _per_group(gain: Tensor, x: Tensor) -> Tensor:
    """(B, groups) spread over the channels of x, as (B, C, 1, 1)."""
    return gain.repeat_interleave(x.shape[1] // gain.shape[1], 1)[:, :, None, None]


def depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of (B, C, H, W) convolved with the same 3 x 3 kernel, its border repeated."""
    flat = x.flatten(0, 1)[:, None]
    return conv2d(nn.functional.pad(flat, (1, 1, 1, 1), mode="replicate"), kernel[None, None].to(x)).view(x.shape)
