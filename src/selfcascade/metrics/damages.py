"""Known damages of pictures, mild to strong. They show which flaws each figure can see.

Axis letters: N pictures, C channels, H, W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

Damage = Callable[[Tensor], Tensor]
STRIPS = 8


def blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Blurs pictures (N, C, H, W) with a Gaussian of `sigma` pixels and mirrored edges."""
    reach = min(math.ceil(3 * sigma), *(side - 1 for side in pictures.shape[-2:]))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / sigma) ** 2)
    weights = (weights / weights.sum()).to(pictures.dtype)
    flat = pad(pictures.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="reflect")
    flat = conv2d(conv2d(flat, weights[None, None, :, None]), weights[None, None, None, :])
    return flat[:, 0].unflatten(0, pictures.shape[:2])


def noisy(pictures: Tensor, sigma: float) -> Tensor:
    """Adds Gaussian noise of that standard deviation. The seed of a picture is its place in the batch."""
    noise = [torch.randn(pictures.shape[1:], generator=_seeded(row)) for row in range(len(pictures))]
    return (pictures + sigma * torch.stack(noise).to(pictures)).clamp(0, 1)


def shredded(pictures: Tensor, share: float) -> Tensor:
    """Moves horizontal strips, an eighth of the height each, sideways by up to this share of the width."""
    strips = pictures.tensor_split(STRIPS, -2)
    most = share * pictures.shape[-1]
    moves = [round(most * math.sin(2.4 * (index + 1))) for index in range(STRIPS)]
    return torch.cat([strip.roll(move, -1) for strip, move in zip(strips, moves, strict=True)], -2)


def meshed(pictures: Tensor, strength: float, period: int = 5) -> Tensor:
    """Adds a mesh of that amplitude. Latents off the model's manifold decode to such a mesh."""
    height, width = pictures.shape[-2:]
    down, across = (torch.sin(2 * math.pi * torch.arange(side) / period) for side in (height, width))
    return (pictures + strength * (down[:, None] * across).to(pictures)).clamp(0, 1)


def repeated(pictures: Tensor, copies: int) -> Tensor:
    """Repeats the whole picture, made small, `copies` times a side, as direct sampling repeats objects."""
    height, width = pictures.shape[-2:]
    size = (-(-height // copies), -(-width // copies))
    small = interpolate(pictures, size=size, mode="area")
    return small.repeat(1, 1, copies, copies)[..., :height, :width]


def _ladder() -> dict[str, Damage]:
    found: dict[str, Damage] = {"none": lambda x: x}
    rungs: tuple[tuple[str, Callable[[Tensor, float], Tensor], tuple[float, ...]], ...] = (
        ("blur", blurred, (1, 2, 4)),
        ("noise", noisy, (0.02, 0.05, 0.1)),
        ("shreds", shredded, (0.05, 0.1, 0.2)),
        ("mesh", meshed, (0.05, 0.1, 0.2)),
        ("repeats", lambda x, copies: repeated(x, int(copies)), (2, 3)),
    )
    for name, damage, amounts in rungs:
        found |= {f"{name} {amount:g}": lambda x, damage=damage, amount=amount: damage(x, amount) for amount in amounts}
    return found


LADDER = _ladder()


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
