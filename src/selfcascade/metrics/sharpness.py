"""Measures detail without labels or a network: the energy of pictures in each octave."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


def octave_energies(pictures: Tensor, octaves: int = 3) -> Tensor:
    """Mean square of each band of a Laplacian pyramid, finest first; blur lowers the first, noise raises it.

    Divide by the energies of real pictures of the same size: 1 is right. Enlarged pictures lack the finest octaves.

    Args:
        pictures: (N, C, H, W).
        octaves: Number of bands.

    Returns:
        (N, octaves).

    Raises:
        ValueError: The pictures are too small for this many octaves.
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
    """Mean `octave_energies` divided by those of real pictures, finest first: 1 is right, less is blur, more is noise.

    Args:
        real: Energies of real pictures, (N, octaves).
        fake: Energies of the pictures, (M, octaves).
        draws: Not used, since there is no interval.
    """
    return (fake.mean(0) / real.mean(0)).tolist()
