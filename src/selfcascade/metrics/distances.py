"""Distances between two sets of features: Frechet (FID, FVD) and kernel (KID, KVD), each with a bootstrap interval.

A detector turns pictures or clips into features; which one is the caller's choice. Axis letters: N samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], float]


class Estimate(NamedTuple):
    """A distance, the middle 95 % of its bootstrap values, and how many samples it was estimated from."""

    value: float
    low: float
    high: float
    real_count: int
    fake_count: int


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """|mu_r - mu_f|^2 + tr(S_r + S_f - 2 (S_r S_f)^(1/2)), in double precision (Heusel et al. 2017).

    It is biased upwards for few samples, by an amount that depends on the detector: only compare equal N.

    Args:
        real: (N, D).
        fake: (M, D).

    Raises:
        ValueError: The features differ in width, are not finite, or there are fewer than two samples.
    """
    real, fake = _checked(real, fake)
    mean_gap = (real.mean(0) - fake.mean(0)).square().sum()
    factors = [_covariance_factor(x) for x in (real, fake)]
    # With S_r = A^T A and S_f = B^T B, the roots of the eigenvalues of S_r S_f are the singular values of A B^T.
    product = factors[0] @ factors[1].T
    gram = product @ product.T if len(product) <= product.shape[1] else product.T @ product
    roots = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
    return float(mean_gap + sum(factor.square().sum() for factor in factors) - 2 * roots)


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with k(x, y) = (x.y / D + 1)^3 (Binkowski et al. 2018).

    Args:
        real: (N, D).
        fake: (M, D).

    Raises:
        ValueError: The features differ in width, are not finite, or there are fewer than two samples.
    """
    real, fake = _checked(real, fake)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        gram = kernel(x, x)
        return (gram.sum() - gram.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def kernel_distance_of_subsets(
    real: Tensor, fake: Tensor, generator: torch.Generator, subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float]:
    """KID as published: mean and standard deviation over random subsets, drawn with the caller's generator.

    Args:
        real: (N, D).
        fake: (M, D).
        generator: Draws the subsets, first those of `real`.
        subsets: Number of subsets.
        subset_size: Samples per subset, at most N and M.

    Raises:
        ValueError: There are fewer samples than in a subset, or an error of `frechet_distance`.
    """
    if not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(f"subset_size must be from 2 to the samples, {len(real)} and {len(fake)}, not {subset_size}")
    values = []
    for _ in range(subsets):
        rows = [torch.randperm(len(x), generator=generator)[:subset_size].to(x.device) for x in (real, fake)]
        values.append(kernel_distance(real[rows[0]], fake[rows[1]]))
    drawn = torch.tensor(values, dtype=torch.float64)
    return float(drawn.mean()), float(drawn.std(correction=0))


def bootstrap(
    distance: Distance, real: Tensor, fake: Tensor, generator: torch.Generator, draws: int = 200, unit: int = 1
) -> Estimate:
    """A distance with a bootstrap interval: both sets are drawn again with replacement.

    Frechet distances of drawn samples are too large, since repeated samples act like fewer samples. So the interval is
    the spread of the drawn values, moved to lie around the value itself.

    Args:
        distance: `frechet_distance`, `kernel_distance`, or another of two (N, D).
        real: (N, D).
        fake: (M, D).
        generator: Draws the samples.
        draws: Number of draws.
        unit: Number of rows that are drawn together, such as the patches of one picture.

    Raises:
        ValueError: `unit` does not divide the rows, or an error of the distance.
    """
    for name, rows in (("real", real), ("fake", fake)):
        if unit < 1 or len(rows) % unit:
            raise ValueError(f"unit must divide the rows; {unit} does not divide {name}'s {len(rows)}")

    def drawn(x: Tensor) -> Tensor:
        groups = torch.randint(len(x) // unit, (len(x) // unit,), generator=generator)
        rows = (groups[:, None] * unit + torch.arange(unit)).flatten()
        return x[rows.to(x.device)]

    value = distance(real, fake)
    values = torch.tensor([distance(drawn(real), drawn(fake)) for _ in range(draws)], dtype=torch.float64)
    low, high = torch.quantile(values - values.median(), torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Estimate(value, value + float(low), value + float(high), len(real) // unit, len(fake) // unit)


def random_patches(
    pictures: Tensor, count: int, side: int, generator: torch.Generator | Iterator[torch.Generator]
) -> Tensor:
    """Patches for a patch distance: from each picture `count` at random places, at full size (paper, Section 4.1).

    Args:
        pictures: (N, C, H, W).
        count: Patches per picture.
        side: Side of a patch, in pixels, at most H and W.
        generator: Draws the corners, picture by picture: the same ones whether pictures come together or in parts.
            Several: the next one for each picture.

    Returns:
        Patches (N count, C, side, side), with those of a picture together.

    Raises:
        ValueError: The pictures are smaller than a patch.
    """
    height, width = pictures.shape[-2:]
    if not 1 <= side <= min(height, width):
        raise ValueError(f"side must be from 1 to the pictures' {min(height, width)} pixels, not {side}")
    places = torch.tensor([height, width]).sub(side - 1)
    if isinstance(generator, torch.Generator):
        drawn = torch.rand(len(pictures), count, 2, dtype=torch.float64, generator=generator)
    else:
        own = [torch.rand(count, 2, dtype=torch.float64, generator=next(generator)) for _ in pictures]
        drawn = torch.stack(own)
    corners = (drawn * places).long()
    rows = [
        picture[:, top : top + side, left : left + side]
        for picture, own in zip(pictures, corners.tolist(), strict=True)
        for top, left in own
    ]
    return torch.stack(rows)


def _checked(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    for name, x in (("real", real), ("fake", fake)):
        if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"{name} must be a tensor of features, (N, D), not {type(x).__name__}; use torch.as_tensor"
            )
        if x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"{name} must hold real numbers, not {x.dtype}")
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"{name} must be (N, D) features of at least two samples, not {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} has features that are not finite")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must have as many features, not {real.shape[1]} and {fake.shape[1]}")
    return real.double(), fake.double()


def _covariance_factor(x: Tensor) -> Tensor:
    """A with A^T A the covariance of features (N, D); A has min(N, D) rows."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R
