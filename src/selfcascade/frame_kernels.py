"""What upsamplers may have for clips: kernels along the frames, which pictures' modules cannot see.

Axis letters: B clips, F frames, C channels, H, W positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FrameKernels(nn.Module):
    """r + k * r for the residuals of a level: a depth-wise convolution along the frames, the first and last repeated.

    Each skip has one kernel, which its channels share; it starts as zero and then changes no bit.

    Args:
        skips: Of the level.
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
            clip = r.unflatten(0, (-1, frames))
            around = torch.stack([weight * clip[:, place] for weight, place in zip(kernel, places, strict=True)]).sum(0)
            moved.append(r + around.flatten(0, 1))
        return moved
