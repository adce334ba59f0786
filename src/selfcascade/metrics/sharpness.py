"""Detail, without labels and without a network: how much energy the pictures have in each octave."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


def octave_energies(pictures: Tensor, octaves: int = 3) -> Tensor:
    """Mean square of each band of a Laplacian pyramid, finest first: blur lowers the first, noise raises it.

    Divided by those of real pictures of the same size, 1 is right; an enlarged picture lacks the finest octaves.

    Args:
        pictures: (N, C, H, W).
        octaves: How many bands.

    Returns:
        (N, octaves).

    Raises:
        ValueError: The pictures are too small for this many.
    """
    if min(pictures.shape[-2:]) < 2**octaves:
        raise ValueError(f"octaves must be fewer for pictures of {tuple(pictures.shape[-2:])} pixels, not {octaves}")
    energies, current = [], pictures.float()
    for _ in range(octaves):
        smaller = avg_pool2d(current, 2)
        larger = interpolate(smaller, size=current.shape[-2:], mode="bilinear", align_corners=False)
        energies.append((current - larger).square().flatten(1).mean(1))
        current = smaller
    return torch.stack(energies, 1)


def octave_ratios(real: Tensor, fake: Tensor, draws: int = 0) -> list[float]:
    """Mean `octave_energies` of pictures over those of real ones, finest first: 1 is right, below is blur, above noise.

    Args:
        real: (N, octaves).
        fake: (M, octaves).
        draws: Not used: there is no interval.
    """
    return (fake.mean(0) / real.mean(0)).tolist()
