"""Degrades real clips, to train detectors and to measure what distances respond to.

Each function takes a clip (F, 3, H, W) in [0, 1], an amount in (0, 1] and a generator. Axis letters: F frames,
C channels, H, W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate


def shuffled(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Moves frames by random amounts of up to `amount` of the clip's length, and sorts them by the result."""
    count = len(clip)
    order = torch.arange(count) + amount * count * torch.rand(count, generator=generator)
    moved = order.argsort()
    if torch.equal(moved, torch.arange(count)):
        moved[[0, 1]] = moved[[1, 0]]
    return clip[moved]


def frozen(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Freezes the last frames, a share of `amount`."""
    held = min(max(round(amount * len(clip)), 2), len(clip))
    return torch.cat([clip[: len(clip) - held], clip[len(clip) - held].expand(held, -1, -1, -1)])


def backwards(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Reverses the clip, whatever the amount."""
    return clip.flip(0)


def dropped(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Replaces frames by the one before: half of them at the full amount."""
    lost = torch.rand(len(clip), generator=generator) < 0.5 * amount
    lost[0], lost[1 + int(torch.randint(len(clip) - 1, (), generator=generator))] = False, True
    rows = torch.where(lost, 0, torch.arange(len(clip))).cummax(0).values
    return clip[rows]


def shaken(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Displaces each frame randomly: by up to 3 % of the sides at the full amount."""
    shift = 0.06 * amount * (2 * torch.rand(len(clip), 1, 1, 2, generator=generator) - 1)
    return _moved(clip, shift.expand(-1, *clip.shape[-2:], -1))


def wobbling(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Bends each frame randomly."""
    coarse = torch.randn(len(clip), 2, 6, 6, generator=generator)
    bend = interpolate(coarse, size=clip.shape[-2:], mode="bicubic", align_corners=False)
    return _moved(clip, 0.03 * amount * bend.permute(0, 2, 3, 1))


def flickering(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Changes the brightness of each frame and channel randomly."""
    return (clip * (1 + 0.1 * amount * torch.randn(len(clip), 3, 1, 1, generator=generator))).clamp(0, 1)


def blurred(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Mixes the clip with itself at half the resolution, or at a quarter for amounts from one half."""
    size = clip.shape[-2:]
    soft = interpolate(avg_pool2d(clip, 2), size=size, mode="bilinear", align_corners=False)
    softer = interpolate(avg_pool2d(clip, 4), size=size, mode="bilinear", align_corners=False)
    return clip.lerp(soft, 2 * amount) if amount < 0.5 else soft.lerp(softer, 2 * amount - 1)


def noisy(clip: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Adds noise with a standard deviation of up to 0.1, different in each frame."""
    return (clip + 0.1 * amount * torch.randn(clip.shape, generator=generator)).clamp(0, 1)


FLAWS = {
    function.__name__: function
    for function in (shuffled, frozen, backwards, dropped, shaken, wobbling, flickering, blurred, noisy)
}


def flawed(clip: Tensor, generator: torch.Generator, share: float) -> tuple[Tensor, Tensor]:
    """A clip with random flaws, each with probability `share`, and the amounts of all flaws, (flaws,)."""
    amounts = torch.rand(len(FLAWS), generator=generator) * (torch.rand(len(FLAWS), generator=generator) < share)
    for column, (name, function) in enumerate(FLAWS.items()):
        if amounts[column] > 0:
            clip = function(clip, float(amounts[column]), generator)
            if name == "backwards":
                amounts[column] = 1.0
    return clip, amounts


def _moved(clip: Tensor, shift: Tensor) -> Tensor:
    rows, columns = (torch.linspace(-1, 1, side) for side in clip.shape[-2:])
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) + shift  # (F, H, W, 2)
    return grid_sample(clip, grid, padding_mode="border", align_corners=True)
