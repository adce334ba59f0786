"""Compares pictures with the true picture of the same scene, pair by pair: what was kept, and what was made up.

Axis letters: N pictures, C channels, D features, H, W pixels, h, w positions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, normalize

WINDOW, SIGMA = 11, 1.5  # pixels, of SSIM's Gaussian window


def psnr(true: Tensor, made: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (N,): -10 log10 of the mean square error of pictures in [0, 1].

    Args:
        true, made: Pictures (N, C, H, W) in [0, 1].

    Raises:
        ValueError: They differ in shape.
    """
    _check(true, made)
    return -10 * torch.log10((true.double() - made.double()).square().flatten(1).mean(1).clamp(min=1e-10))


def ssim(true: Tensor, made: Tensor) -> Tensor:
    """Structural similarity, (N,), at most 1 (Wang et al. 2004): a Gaussian window of 11 pixels, sigma 1.5.

    Args:
        true, made: Pictures (N, C, H, W) in [0, 1] of at least 11 pixels a side. Only whole windows count.

    Raises:
        ValueError: They differ in shape, or are smaller than the window.
    """
    _check(true, made)
    if min(true.shape[-2:]) < WINDOW:
        raise ValueError(f"pictures must have {WINDOW} pixels a side or more, not {tuple(true.shape[-2:])}")
    weights = torch.exp(-0.5 * ((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) / SIGMA) ** 2)
    weights = weights / weights.sum()
    x, y = (pictures.double().flatten(0, 1)[:, None] for pictures in (true, made))

    def mean(values: Tensor) -> Tensor:
        return conv2d(conv2d(values, weights[None, None, :, None]), weights[None, None, None, :])

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y, both = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    small, large = 0.01**2, 0.03**2
    found = (2 * mean_x * mean_y + small) * (2 * both + large)
    found = found / ((mean_x**2 + mean_y**2 + small) * (var_x + var_y + large))
    return found.unflatten(0, true.shape[:2]).flatten(1).mean(1)


def octave_errors(true: Tensor, made: Tensor, octaves: int = 3) -> Tensor:
    """Energy of the error, relative to the true picture's, in each band of a Laplacian pyramid.

    0: as in the true picture. 1: as wrong as leaving the band out. Above 1: detail was made up.

    Args:
        true, made: Pictures (N, C, H, W).
        octaves: Number of bands.

    Returns:
        Relative energies (N, octaves), finest band first.

    Raises:
        ValueError: They differ in shape, or are too small for so many bands.
    """
    _check(true, made)
    if min(true.shape[-2:]) < 2**octaves:
        raise ValueError(f"octaves must be fewer for pictures of {tuple(true.shape[-2:])} pixels, not {octaves}")
    found = []
    for wanted, band in zip(_bands(true.double(), octaves), _bands(made.double(), octaves), strict=True):
        error, energy = ((x.square().flatten(1).mean(1)) for x in (band - wanted, wanted))
        found.append(error / energy.clamp(min=1e-12))
    return torch.stack(found, 1)


def feature_distance(true: Iterable[Tensor], made: Iterable[Tensor]) -> Tensor:
    """Mean square distance (N,) of unit feature vectors, over positions and then levels: LPIPS without its weights.

    Args:
        true, made: Feature maps (N, D, h, w) of a network's levels.
    """
    found = [
        (normalize(x.double(), dim=1) - normalize(y.double(), dim=1)).square().sum(1).flatten(1).mean(1)
        for x, y in zip(true, made, strict=True)
    ]
    return torch.stack(found).mean(0)


def _bands(pictures: Tensor, octaves: int) -> list[Tensor]:
    found, current = [], pictures
    for _ in range(octaves):
        smaller = avg_pool2d(current, 2)
        found.append(current - interpolate(smaller, size=current.shape[-2:], mode="bilinear", align_corners=False))
        current = smaller
    return found


def _check(true: Tensor, made: Tensor) -> None:
    if true.shape != made.shape or true.ndim != 4:
        raise ValueError(
            f"true and made must be (N, C, H, W) of one shape, not {tuple(true.shape)}, {tuple(made.shape)}"
        )
