"""Kernel distances of samples that have several rows each, and points whose dot products are their kernel.

The patches of one picture resemble each other, so pairs of them are left out: what remains is unbiased in the samples.

Axis letters: N, M samples, n rows of a sample (its patches), D features, L landmarks, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DIMENSIONS = 64
ROWS = 2048  # of features whose products are held at once


def sample_kernel(first: Tensor, second: Tensor) -> Tensor:
    """Mean of k(x, y) = (x.y / D + 1)^3 over the rows of each pair of samples, (N, M) in double precision.

    Args:
        first: (N, D), or (N, n, D).
        second: (M, D), or (M, m, D).
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

    With one row a sample it is `kernel_distance`.

    Args:
        real: (N, D), or (N, n, D).
        fake: (M, D), or (M, n, D).
    """
    return float(_distances(sample_kernel(real, real), sample_kernel(fake, fake), sample_kernel(real, fake))[0])


def distance_with_interval(real: Tensor, fake: Tensor, draws: int) -> list[float]:
    """That distance as [value, low, high], with the middle 95 % over samples that are drawn again.

    A sample drawn twice is no pair with itself, so the drawn values are not biased, and the interval is theirs.

    Args:
        real, fake: As in `distance_of_samples`.
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
    values = values[values.isfinite()]  # one sample alone, drawn as often as there are samples, has no pair
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float(_distances(*kernels)[0]), low, high]


@dataclass(frozen=True)
class KernelMap:
    """Samples as points of few dimensions, whose dot products are nearly `sample_kernel` (kernel PCA, not centred).

    So a set's kernel distance can be computed, and tested, from a few numbers a sample. The map is fitted to landmarks:
    real samples, and damaged ones, since what is wrong with a method's samples must have directions too.

    Attributes:
        landmarks: (L, n, D).
        directions: (L, d).
    """

    landmarks: Tensor
    directions: Tensor

    @classmethod
    def fit(cls, landmarks: Tensor, dimensions: int = DIMENSIONS) -> KernelMap:
        """The map onto the directions in which the landmarks have most of their kernel; fewer where they have fewer.

        Args:
            landmarks: (L, D), or (L, n, D).
            dimensions: At most as many.
        """
        values, vectors = torch.linalg.eigh(sample_kernel(landmarks, landmarks))
        kept = values > 1e-9 * values[-1]
        values, vectors = values[kept][-dimensions:], vectors[:, kept][:, -dimensions:]
        # An eigenvector's sign is arbitrary, and differs between machines: its largest entry is positive here.
        largest = vectors.gather(0, vectors.abs().argmax(0)[None])
        return cls(_rows(landmarks), (vectors * largest.sign() / values.sqrt()).flip(1))

    def __call__(self, samples: Tensor) -> Tensor:
        """Points (N, d), in double precision, of features (N, D) or (N, n, D)."""
        return sample_kernel(samples, self.landmarks) @ self.directions


def _distances(
    within_real: Tensor, within_fake: Tensor, between: Tensor, real: Tensor | None = None, fake: Tensor | None = None
) -> Tensor:
    """The distance from the three kernels, (B,), of samples drawn `real` (B, N) and `fake` (B, M) times; None: once."""
    real = torch.ones(1, len(within_real), dtype=torch.float64) if real is None else real
    fake = torch.ones(1, len(within_fake), dtype=torch.float64) if fake is None else fake

    def within(kernel: Tensor, weights: Tensor) -> Tensor:
        pairs = ((weights @ kernel) * weights).sum(1) - weights.square() @ kernel.diagonal()
        return pairs / (weights.sum(1) ** 2 - weights.square().sum(1))

    across = ((real @ between) * fake).sum(1) / (real.sum(1) * fake.sum(1))
    return within(within_real, real) + within(within_fake, fake) - 2 * across


def _rows(x: Tensor) -> Tensor:
    """(N, n, D) in double precision."""
    if x.ndim not in (2, 3):
        raise ValueError(f"features must be (N, D) or (N, n, D), not {tuple(x.shape)}")
    return (x[:, None] if x.ndim == 2 else x).double()
