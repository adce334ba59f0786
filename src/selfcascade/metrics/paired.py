"""Tests which of two methods on the same captions is ahead, caption by caption.

Methods share captions, noise and base samples, so their figures rise and fall together. Separate intervals ignore that.
These tests draw captions, or swap the methods, one whole caption at a time.

Axis letters: R repeats of the captions, N captions, D dimensions, B bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

DRAWS = 10_000
LEVEL = 0.05  # p of a two-sided test
BLOCK = 1000  # draws at once: their weights are (B, N)

Word = Literal["ahead", "level", "behind"]
Values = Mapping[int, Sequence[float]]  # caption -> its value in each repeat


class Comparison(NamedTuple):
    """How far the figure of a first method is above that of a second.

    Attributes:
        difference: Figure of the first method minus that of the second.
        low, high: The middle 95 % of the difference's bootstrap values.
        p: Two-sided probability of a difference this large if the methods were alike.
        captions: Number of captions that both methods have.
    """

    difference: float
    low: float
    high: float
    p: float
    captions: int


def verdict(comparison: Comparison, spread: float, lower_is_better: bool) -> Word:
    """What may be said of the first method. "ahead" and "behind" need both the test and the floor.

    Args:
        comparison: Comparison of the two methods.
        spread: How far the figure of real samples moves by chance (`spread_of_distance`).
        lower_is_better: Whether the figure is a distance.
    """
    if not comparison.p < LEVEL or abs(comparison.difference) <= spread:
        return "level"
    return "ahead" if (comparison.difference < 0) == lower_is_better else "behind"


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test (1947).

    Captions that both methods get right or both get wrong do not count. Each of the others is a fair coin.

    Args:
        only_first, only_second: Captions that only one of the two gets right.

    Raises:
        ValueError: A number is negative.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"only_first and only_second must be 0 or more, not {only_first} and {only_second}")
    count = only_first + only_second
    tail = sum(math.comb(count, one) for one in range(min(only_first, only_second) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**count)))


def paired_shares(first: Values, second: Values, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compares two shares of right samples, with equal weight for each caption and an exact p.

    If the methods were alike, the difference of a caption could as well have the other sign. p is the share of all 2^N
    choices of signs whose sum is at least as far from 0. With one sample per caption this is McNemar's test. Several
    samples of a caption (trainings with different seeds) keep one sign.

    Args:
        first, second: For each caption, 1 for a sample that is right and 0 for one that is not.
        draws, seed: Number of draws and seed of the interval's bootstrap.

    Raises:
        ValueError: No caption is in both, or a value is neither 0 nor 1.
    """
    captions = _shared(first, second)
    for name, values in (("first", first), ("second", second)):
        wrong = next((value for own in values.values() for value in own if value not in (0, 1)), None)
        if wrong is not None:
            raise ValueError(f"{name} must hold 0 and 1 alone, not {wrong!r}")
    differences = [_share(first[caption]) - _share(second[caption]) for caption in captions]
    whole = math.lcm(*(one.denominator for one in differences))
    p = _sign_flip([int(one * whole) for one in differences])
    return _of_means(np.array([float(one) for one in differences]), draws, seed)._replace(p=p)


def paired_means(first: Values, second: Values, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compares two means by a bootstrap over captions, with equal weight for each caption.

    Args:
        first, second: For each caption, the value of each of its samples.
        draws, seed: Number of draws and seed of the bootstrap.

    Raises:
        ValueError: No caption is in both.
    """
    rows = [float(np.mean(first[caption]) - np.mean(second[caption])) for caption in _shared(first, second)]
    return _of_means(np.array(rows), draws, seed)


def paired_distances(
    first: np.ndarray, second: np.ndarray, real_mean: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compares two kernel distances from the same real samples by a bootstrap over captions.

    Samples are points whose dot products are the kernel (`KernelMap`). The unbiased squared distance is the mean of x.y
    over pairs of different captions, less 2 x.m, plus a term of the real samples alone. Both methods have the same
    captions in each draw. A caption that is drawn twice is not paired with itself, so draws are not biased.

    Args:
        first, second: Points (R, N, D). Row n of both is of the same caption. R may differ.
        real_mean: Mean m of the real points, (D,).
        draws, seed: Number of draws and seed of the bootstrap.

    Raises:
        ValueError: The shapes do not go together, or there are fewer than two captions.
    """
    _check_points(first, real_mean)
    _check_points(second, real_mean)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"first and second must be of the same captions, not {first.shape[1]} and {second.shape[1]}")
    count = first.shape[1]

    def difference(weights: np.ndarray) -> np.ndarray:
        return _distances(first, real_mean, weights) - _distances(second, real_mean, weights)

    return _bootstrapped(difference, count, draws, seed)


def spread_of_distance(points: np.ndarray, real_mean: np.ndarray, draws: int = DRAWS, seed: int = 0) -> float:
    """Half the width of the middle 95 % of a distance over draws of captions. For real samples: the floor's spread.

    Args:
        points, real_mean, draws, seed: See `paired_distances`.
    """
    _check_points(points, real_mean)
    found = _bootstrapped(lambda weights: _distances(points, real_mean, weights), points.shape[1], draws, seed)
    return (found.high - found.low) / 2


def spread_of_mean(values: Values, draws: int = DRAWS, seed: int = 0) -> float:
    """Half the width of the middle 95 % of a mean over draws of captions."""
    found = _of_means(np.array([float(np.mean(own)) for own in values.values()]), draws, seed)
    return (found.high - found.low) / 2


def _distances(points: np.ndarray, real_mean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Unbiased distances (B,), without the term of the real samples, of captions drawn `weights` (B, N) times."""
    total, squares = weights.sum(1), (weights**2).sum(1)
    found = np.zeros(len(weights))
    for own in points:  # (N, D)
        sums = weights @ own  # (B, D)
        within = (sums**2).sum(1) - weights**2 @ (own**2).sum(1)
        found += within / (total**2 - squares) - 2 * (sums @ real_mean) / total
    return found / len(points)


def _of_means(values: np.ndarray, draws: int, seed: int) -> Comparison:
    return _bootstrapped(lambda weights: weights @ values / weights.sum(1), len(values), draws, seed)


def _bootstrapped(statistic: Callable[[np.ndarray], np.ndarray], count: int, draws: int, seed: int) -> Comparison:
    """The statistic of all captions with its interval. p is twice the share of draws on the other side of 0."""
    generator = np.random.default_rng(seed)
    value = float(statistic(np.ones((1, count)))[0])
    drawn = []
    for begin in range(0, draws, BLOCK):
        size = min(BLOCK, draws - begin)
        weights = generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        some = (weights > 0).sum(1) > 1  # a draw of one caption only has no pair
        drawn.append(statistic(weights[some]))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [0.025, 0.975])
    beyond = 1 + min((values <= 0).sum(), (values >= 0).sum())
    return Comparison(value, float(low), float(high), min(1.0, 2 * float(beyond) / (len(values) + 1)), count)


def _sign_flip(differences: Sequence[int]) -> float:
    """P(|sum of +-d| >= |sum of d|) with each sign a fair coin. The sum's distribution is built one d at a time."""
    reach = sum(map(abs, differences))
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in (abs(one) for one in differences if one):
        later = np.zeros_like(chances)
        later[step:] += chances[:-step] / 2
        later[:-step] += chances[step:] / 2
        chances = later
    sums = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, chances[sums >= abs(sum(differences))].sum()))


def _share(values: Sequence[float]) -> Fraction:
    return Fraction(int(sum(values)), len(values))


def _shared(first: Values, second: Values) -> list[int]:
    captions = sorted(set(first) & set(second))
    if not captions:
        raise ValueError("first and second must have captions in common, and have none")
    return captions


def _check_points(points: np.ndarray, real_mean: np.ndarray) -> None:
    if points.ndim != 3 or points.shape[1] < 2 or points.shape[2:] != real_mean.shape:
        shapes = f"{points.shape} with a real mean of {real_mean.shape}"
        raise ValueError(f"points must be (R, N, D) of at least two captions, and the real mean (D,), not {shapes}")
