"""Tests which of two methods on the same captions is ahead, caption by caption.

Methods share captions, noise and base samples, so their figures rise and fall together. Separate intervals ignore that.
These tests draw captions, or swap the methods, one whole caption at a time.

Axis letters: R repeats of the captions, N captions, D dimensions, B bootstrap draws.
"""

from __future__ import annotations

import functools
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
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compares two kernel distances from the same real samples by a bootstrap over captions.

    Samples are points whose dot products are the kernel, centred on the real samples (`centred_points`). The unbiased
    squared distance is the mean of x.y over pairs of different captions, plus a term of the real samples alone. A
    method's distance is the mean over its sets of captions. Both methods have the same captions in each draw. A caption
    that is drawn twice is not paired with itself, so draws are not biased.

    Args:
        first, second: Points (R, N, D) of each set of captions. Row n of both is of the same caption. R and D may
            differ.
        draws, seed: Number of draws and seed of the bootstrap.

    Raises:
        ValueError: The shapes do not go together, or a set has fewer than two captions.
    """
    counts, others = _counts(first), _counts(second)
    if counts != others:
        raise ValueError(f"first and second must be of the same captions, not {counts} and {others}")

    def difference(weights: np.ndarray) -> np.ndarray:
        return _distances(first, weights) - _distances(second, weights)

    return _bootstrapped(difference, counts, draws, seed)


def spread_of_distance(points: Sequence[np.ndarray], draws: int = DRAWS, seed: int = 0) -> float:
    """Half the width of the middle 95 % of a distance whose true value is 0, by chance. For real samples: the floor's.

    There, draws of captions would move the distance about 1.8 times too far: it is quadratic in the points alone. So
    the wild bootstrap draws a sign for each caption (Chwialkowski, Sejdinovic and Gretton 2014).

    Args:
        points, draws, seed: See `paired_distances`.
    """
    counts, generator = _counts(points), np.random.default_rng(seed)
    centred = [own - own.mean(1, keepdims=True) for own in points]
    values = []
    for begin in range(0, draws, BLOCK):
        signs = generator.choice([-1.0, 1.0], size=(min(BLOCK, draws - begin), sum(counts)))
        values.append(_distances(centred, signs, pairs=[count * (count - 1) for count in counts]))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(high - low) / 2


def spread_of_mean(values: Values, draws: int = DRAWS, seed: int = 0) -> float:
    """Half the width of the middle 95 % of a mean over draws of captions."""
    found = _of_means(np.array([float(np.mean(own)) for own in values.values()]), draws, seed)
    return (found.high - found.low) / 2


def _distances(sets: Sequence[np.ndarray], weights: np.ndarray, pairs: Sequence[int] = ()) -> np.ndarray:
    """Unbiased distances (B,), without the term of the real samples, of captions drawn `weights` (B, N) times.

    `pairs` are the numbers of pairs in each set; where not given, those that are drawn.
    """
    found, begin = np.zeros(len(weights)), 0
    for index, points in enumerate(sets):  # (R, N, D)
        drawn = weights[:, begin : begin + points.shape[1]]
        begin += points.shape[1]
        count = pairs[index] if pairs else drawn.sum(1) ** 2 - (drawn**2).sum(1)
        for own in points:  # (N, D)
            within = ((drawn @ own) ** 2).sum(1) - drawn**2 @ (own**2).sum(1)
            found += within / count / len(points)
    return found / len(sets)


def _of_means(values: np.ndarray, draws: int, seed: int) -> Comparison:
    return _bootstrapped(lambda weights: weights @ values / weights.sum(1), [len(values)], draws, seed)


def _bootstrapped(
    statistic: Callable[[np.ndarray], np.ndarray], counts: Sequence[int], draws: int, seed: int
) -> Comparison:
    """The statistic of all captions with its interval. p is twice the share of draws on the other side of 0.

    Captions are drawn within each set, so `counts` captions stay in each.
    """
    value = float(statistic(np.ones((1, sum(counts))))[0])
    values = np.concatenate([statistic(block.astype(np.float64)) for block in _drawn(tuple(counts), draws, seed)])
    low, high = np.quantile(values, [0.025, 0.975])
    beyond = 1 + min((values <= 0).sum(), (values >= 0).sum())
    return Comparison(value, float(low), float(high), min(1.0, 2 * float(beyond) / (len(values) + 1)), sum(counts))


@functools.lru_cache(maxsize=4)
def _drawn(counts: tuple[int, ...], draws: int, seed: int) -> list[np.ndarray]:
    """How often each caption is drawn, in blocks (B, N). All comparisons of as many captions have the same draws."""
    generator, blocks = np.random.default_rng(seed), list[np.ndarray]()
    for begin in range(0, draws, BLOCK):
        size = min(BLOCK, draws - begin)
        sets = [generator.multinomial(count, np.full(count, 1 / count), size=size) for count in counts]
        some = np.all([(own > 0).sum(1) > 1 for own in sets], axis=0)  # a draw of one caption only has no pair
        blocks.append(np.concatenate(sets, 1)[some].astype(np.int32))
    return blocks


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


def _counts(sets: Sequence[np.ndarray]) -> list[int]:
    for points in sets:
        if points.ndim != 3 or points.shape[1] < 2:
            raise ValueError(f"points must be (R, N, D) of at least two captions, not {points.shape}")
    return [points.shape[1] for points in sets]
