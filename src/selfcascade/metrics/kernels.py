"""Kernel distances between samples of several rows each, and points whose dot products are their kernel.

The patches of one picture resemble each other. Pairs within a picture are therefore left out, which keeps the distance
unbiased in the samples.

Axis letters: N, M samples, n, m rows of a sample (its patches), D features, d dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

DIMENSIONS = 32
ROWS = 2048  # rows of features whose products are held at once
FITTED = 2048  # samples that the directions of points are fitted to


def sample_kernel(first: Tensor, second: Tensor) -> Tensor:
    """Mean of k(x, y) = (x.y / D + 1)^3 over the rows of each pair of samples, (N, M) in double precision.

    Args:
        first: Features (N, D) or (N, n, D).
        second: Features (M, D) or (M, m, D).
    """
    first, second = (_rows(x) for x in (first, second))
    width, columns = first.shape[2], second.flatten(0, 1).T
    found = []
    for part in first.split(max(1, ROWS // first.shape[1])):
        kernel = (part.flatten(0, 1) @ columns / width + 1) ** 3
        found.append(kernel.view(len(part), first.shape[1], len(second), second.shape[1]).mean((1, 3)))
    return torch.cat(found)


def distance_of_samples(real: Tensor, fake: Tensor) -> float:
    """The squared maximum mean discrepancy over pairs of different samples, unbiased in the samples.

    With one row per sample it is `kernel_distance`.

    Args:
        real: Features (N, D) or (N, n, D).
        fake: Features (M, D) or (M, n, D).
    """
    return float(_distances(sample_kernel(real, real), sample_kernel(fake, fake), sample_kernel(real, fake))[0])


def distance_with_interval(real: Tensor, fake: Tensor, draws: int) -> list[float]:
    """`distance_of_samples` as [value, low, high]: low and high span the middle 95 % of bootstrap draws of samples.

    A sample that is drawn twice is not paired with itself, so the drawn values are not biased.

    Args:
        real, fake: See `distance_of_samples`.
        draws: Number of bootstrap draws.
    """
    kernels = sample_kernel(real, real), sample_kernel(fake, fake), sample_kernel(real, fake)
    generator, drawn = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        counts = [
            torch.bincount(torch.randint(len(x), (len(x),), generator=generator), minlength=len(x)).double()
            for x in (real, fake)
        ]
        drawn.append(_distances(*kernels, counts[0][None], counts[1][None]))
    values = torch.cat(drawn)
    values = values[values.isfinite()]  # a draw of one sample only has no pair
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float(_distances(*kernels)[0]), low, high]


def centred_points(samples: Tensor, real: Tensor, dimensions: int = DIMENSIONS) -> Tensor:
    """Points (N, d) whose dot products are nearly the kernel of the samples, centred on the mean of the real ones.

    `distance_of_samples` then is the mean dot product of different points, plus a term of the real samples alone. So
    distances of two methods from the same real samples can be compared from their points, and each method's points
    hold as much of its own kernel as d directions can (kernel PCA). Directions of two methods differ.

    Args:
        samples: Features (N, D) or (N, n, D).
        real: Features of real samples, (M, D) or (M, m, D).
        dimensions: Largest d.
    """
    samples, real = _rows(samples), _rows(real)
    some, fitted = real[:FITTED], samples[:FITTED]
    constant = sample_kernel(some, some).mean()
    means = sample_kernel(samples, real).mean(1)
    kernel = sample_kernel(samples, fitted) - means[:, None] - means[None, : len(fitted)] + constant
    values, vectors = torch.linalg.eigh(kernel[: len(fitted)])
    kept = values > 1e-9 * values[-1]
    values, vectors = values[kept][-dimensions:], vectors[:, kept][:, -dimensions:]
    # The sign of an eigenvector is arbitrary and differs between machines, so its largest entry is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(0)[None])
    return (kernel @ (vectors * largest.sign() / values.sqrt())).flip(1)


def _distances(
    within_real: Tensor, within_fake: Tensor, between: Tensor, real: Tensor | None = None, fake: Tensor | None = None
) -> Tensor:
    """Distances (B,) from the three kernels, for samples drawn `real` (B, N) and `fake` (B, M) times. None: once."""
    real = torch.ones(1, len(within_real), dtype=torch.float64) if real is None else real
    fake = torch.ones(1, len(within_fake), dtype=torch.float64) if fake is None else fake

    def within(kernel: Tensor, weights: Tensor) -> Tensor:
        pairs = ((weights @ kernel) * weights).sum(1) - weights.square() @ kernel.diagonal()
        return pairs / (weights.sum(1) ** 2 - weights.square().sum(1))

    across = ((real @ between) * fake).sum(1) / (real.sum(1) * fake.sum(1))
    return within(within_real, real) + within(within_fake, fake) - 2 * across


def _rows(x: Tensor) -> Tensor:
    """The features as (N, n, D) in double precision."""
    if x.ndim not in (2, 3):
        raise ValueError(f"features must be (N, D) or (N, n, D), not {tuple(x.shape)}")
    return (x[:, None] if x.ndim == 2 else x).double()
