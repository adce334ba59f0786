"""Distances between very large sets in little memory: from running sums, and from kernels block by block.

Up to rounding they equal what `metrics.registry` computes for smaller sets, with the same draws. A draw is stored as
the count of each sample, so that one pass over the features serves many draws.

Axis letters: N samples, n rows of a sample (its patches or frames), D features, K draws. Draw 0 is the set itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfcascade.evaluation.feature_files import FeatureFile, Features, blocks
from selfcascade.metrics.registry import Metric

FRECHET = frozenset({"fid", "patch_fid", "fid_b", "fvd", "frame_fid", "frame_patch_fid"})
KERNEL = frozenset({"kid", "patch_kid", "kid_b", "kvd"})
MOST_ROWS = 4096  # rows of a set whose kernels are held in memory at once
ROWS = 2048  # rows of a block
TOGETHER = 4  # draws whose covariances are summed in one pass


def figure(name: str, metric: Metric, real: Features, fake: Features, draws: int) -> Any:
    """Computes a metric in the form that result files hold.

    Args:
        name: Name of the metric in `metrics.registry`.
        metric: Entry of the registry, with `compare`.
        real, fake: Features of the samples, (N, ...).
        draws: Number of bootstrap draws.
    """
    assert metric.compare is not None
    if name in FRECHET | KERNEL and is_large(real, fake):
        return (frechet_in_blocks if name in FRECHET else kernel_in_blocks)(real, fake, draws)
    return metric.compare(_in_memory(real), _in_memory(fake), draws)


def is_large(real: Features, fake: Features) -> bool:
    """Whether the kernels between all rows would take too much memory."""
    return max(_rows(real), _rows(fake)) > MOST_ROWS


def frechet_in_blocks(real: Features, fake: Features, draws: int) -> list[float]:
    """`metrics.distances.frechet_distance` as [value, low, high]. Memory holds a few covariances (D, D).

    Args:
        real, fake: Features, (N, D) or (N, n, D).
        draws: Number of bootstrap draws.

    Raises:
        ValueError: Features are not finite.
    """
    counts, values = drawn_counts(len(real), len(fake), draws), list[float]()
    for at in range(0, draws + 1, TOGETHER):
        moments = [
            _moments(name, features, own[at : at + TOGETHER])
            for name, features, own in (("real", real, counts[0]), ("fake", fake, counts[1]))
        ]
        values += [_frechet(*one, *two) for one, two in zip(*moments, strict=True)]
    return _with_interval(torch.tensor(values, dtype=torch.float64))


def kernel_in_blocks(real: Features, fake: Features, draws: int) -> list[float]:
    """`metrics.distances.kernel_distance` as [value, low, high]. Memory holds the kernels of two blocks.

    Args:
        real, fake: Features, (N, D) or (N, n, D).
        draws: Number of bootstrap draws.

    Raises:
        ValueError: Features are not finite.
    """
    (first, second), found = drawn_counts(len(real), len(fake), draws), list[Tensor]()
    for name, features, counts in (("real", real, first), ("fake", fake, second)):
        total, diagonal = _kernel_sums(name, features, name, features, counts, counts)
        rows = counts.sum(1) * _each(features)
        found.append((total - diagonal) / (rows * (rows - 1)))
    total, _ = _kernel_sums("real", real, "fake", fake, first, second)
    pairs = first.sum(1) * _each(real) * second.sum(1) * _each(fake)
    return _with_interval(found[0] + found[1] - 2 * total / pairs)


def sample_kernel_in_blocks(real: Features, fake: Features, draws: int) -> list[float]:
    """`metrics.kernels.distance_with_interval`; memory holds the kernels of two blocks of rows.

    Args:
        real, fake: (N, D), or (N, n, D).
        draws: Number of bootstrap draws.

    Raises:
        ValueError: Features are not finite.
    """
    (first, second), within = drawn_counts(len(real), len(fake), draws), list[Tensor]()
    for name, features, counts in (("real", real, first), ("fake", fake, second)):
        total, _ = _kernel_sums(name, features, name, features, counts, counts)
        squares, each = counts.square(), _each(features)
        pairs = total / each**2 - squares @ _own_kernels(features)
        within.append(pairs / (counts.sum(1) ** 2 - squares.sum(1)))
    total, _ = _kernel_sums("real", real, "fake", fake, first, second)
    between = total / (_each(real) * _each(fake)) / (first.sum(1) * second.sum(1))
    values = within[0] + within[1] - 2 * between
    drawn = values[1:][values[1:].isfinite()]
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float(values[0]), low, high]


def drawn_counts(real: int, fake: int, draws: int) -> tuple[Tensor, Tensor]:
    """Counts of each sample, (K, N) per set: 1 in the first draw, then those of `metrics.distances.bootstrap`."""
    generator, found = torch.Generator().manual_seed(0), ([torch.ones(real)], [torch.ones(fake)])
    for _ in range(draws):
        for counts, size in zip(found, (real, fake), strict=True):
            counts.append(torch.bincount(torch.randint(size, (size,), generator=generator), minlength=size))
    return torch.stack(found[0]).double(), torch.stack(found[1]).double()


def _moments(name: str, features: Features, counts: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean (D,) and covariance (D, D) of the rows, for each row of counts (K, N)."""
    width, each, at = features.shape[-1], _each(features), 0
    sums = torch.zeros(len(counts), width, dtype=torch.float64)
    squares = torch.zeros(len(counts), width, width, dtype=torch.float64)
    for block in blocks(features, max(1, ROWS // each)):
        weights = counts[:, at : at + len(block)].repeat_interleave(each, 1)
        rows, at = _checked(name, block), at + len(block)
        sums += weights @ rows
        for number, own in enumerate(weights):
            there = own > 0
            scaled = rows[there] * own[there].sqrt()[:, None]
            squares[number].addmm_(scaled.T, scaled)
    totals = counts.sum(1) * each
    means = sums / totals[:, None]
    for number, (mean, total) in enumerate(zip(means, totals, strict=True)):
        squares[number].addr_(mean, mean, alpha=-float(total)).div_(float(total) - 1)
    return list(zip(means, squares, strict=True))


def _frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other: Tensor) -> float:
    values, vectors = torch.linalg.eigh(covariance)
    factor = vectors * values.clamp(min=0).sqrt()  # covariance = factor factor^T
    roots = torch.linalg.eigvalsh(factor.T @ other @ factor).clamp(min=0).sqrt().sum()
    gap = (mean - other_mean).square().sum()
    return float(gap + covariance.trace() + other.trace() - 2 * roots)


def _kernel_sums(
    name: str, first: Features, other: str, second: Features, counts: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of k(x, y) = (x.y / D + 1)^3 over all pairs of rows, and over each row with itself, (K,) each."""
    total, diagonal = (torch.zeros(len(counts), dtype=torch.float64) for _ in range(2))
    same, each, more = first is second, _each(first), _each(second)
    size, step = max(1, ROWS // each), max(1, ROWS // more)
    for number, block in enumerate(blocks(first, size)):
        rows, weights = _checked(name, block), counts[:, number * size : number * size + len(block)]
        if same:
            own = (rows.square().sum(1) / rows.shape[1] + 1) ** 3
            diagonal += weights @ own.view(-1, each).sum(1)
        for at in range(number * size if same else 0, len(second), step):
            part = second[at : at + step]
            columns = _checked(other, part)
            kernel = (rows @ columns.T).div_(rows.shape[1]).add_(1).pow_(3)
            kernel = kernel.view(len(block), each, len(part), more).sum((1, 3))
            found = ((weights @ kernel) * others[:, at : at + len(part)]).sum(1)
            total += 2 * found if same and at != number * size else found  # the other half is its mirror image
    return total, diagonal


def _own_kernels(features: Features) -> Tensor:
    """Mean kernel over the pairs of rows of each sample, (N,)."""
    found = []
    for block in blocks(features, max(1, ROWS // _each(features))):
        rows = block.double() if block.ndim == 3 else block[:, None].double()
        found.append(((rows @ rows.mT / rows.shape[2] + 1) ** 3).mean((1, 2)))
    return torch.cat(found)


def _with_interval(values: Tensor) -> list[float]:
    """[value, low, high] of values (K,), the first of which is the figure. As `metrics.distances.bootstrap` does."""
    value, drawn = float(values[0]), values[1:]
    low, high = torch.quantile(drawn - drawn.median(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [value, value + low, value + high]


def _checked(name: str, block: Tensor) -> Tensor:
    """The rows (rows, D) in double precision. Raises ValueError if one is not finite."""
    if not block.isfinite().all():
        raise ValueError(f"{name} has features that are not finite")
    return block.flatten(0, -2).double()


def _each(features: Features) -> int:
    """Number of rows of a sample."""
    return features.shape[1] if features.ndim == 3 else 1


def _rows(features: Features) -> int:
    return len(features) * _each(features)


def _in_memory(features: Features) -> Tensor:
    return features[:] if isinstance(features, FeatureFile) else features
