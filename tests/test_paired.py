"""Paired tests against enumeration, and the words that follow from them."""

import itertools
import math

import numpy as np
import pytest
import torch

from selfcascade.metrics.distances import kernel_distance
from selfcascade.metrics.kernels import KernelMap, distance_of_samples, distance_with_interval, sample_kernel
from selfcascade.metrics.paired import (
    Comparison,
    mcnemar,
    paired_distances,
    paired_means,
    paired_shares,
    spread_of_distance,
    verdict,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def mmd_by_loops(points: np.ndarray, real_mean: np.ndarray, rows: tuple[int, ...]) -> float:
    """Mean of x.y over ordered pairs of different captions of a draw, less 2 x.m."""
    pairs = [points[a] @ points[b] for a, b in itertools.product(rows, rows) if a != b]
    return float(np.mean(pairs) - 2 * np.mean([points[a] @ real_mean for a in rows]))


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 3), (7, 2), (0, 9), (2, 8)])
def test_mcnemar_is_the_share_of_all_coin_tosses_as_lopsided(counts: tuple[int, int]) -> None:
    total, apart = sum(counts), abs(counts[0] - counts[1])
    tosses = [abs(sum(own)) >= apart for own in itertools.product((-1, 1), repeat=total)]
    assert mcnemar(*counts) == pytest.approx(sum(tosses) / len(tosses), abs=1e-15)


def test_shares_of_one_sample_a_caption_are_mcnemars_test() -> None:
    first = {0: [1], 1: [1], 2: [1], 3: [0], 4: [1], 5: [0], 6: [1], 9: [1]}
    second = {0: [0], 1: [0], 2: [1], 3: [0], 4: [0], 5: [1], 6: [0], 8: [1]}
    found = paired_shares(first, second)
    assert found.p == pytest.approx(mcnemar(4, 1), abs=1e-15)
    assert (found.captions, found.difference) == (7, pytest.approx(3 / 7))
    assert found.low <= found.difference <= found.high


def test_several_samples_of_a_caption_turn_round_together() -> None:
    first = {0: [1, 1, 1], 1: [1, 0, 1], 2: [0, 0, 1], 3: [1, 1, 1], 4: [1, 1, 0]}
    second = {0: [0, 0], 1: [0, 1], 2: [1, 1], 3: [0, 1], 4: [0, 0]}
    differences = [float(np.mean(first[k]) - np.mean(second[k])) for k in range(5)]
    ways = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((-1, 1), repeat=5)
    ]
    expected = np.mean([abs(way) >= abs(sum(differences)) - 1e-12 for way in ways])
    assert paired_shares(first, second).p == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="must hold 0 and 1 alone, not 2"):
        paired_shares({0: [2]}, {0: [1]})
    with pytest.raises(ValueError, match="captions in common"):
        paired_shares({0: [1]}, {1: [1]})


def test_the_bootstrap_of_distances_is_that_of_all_draws() -> None:
    first, second, mean = normal(4, 3, seed=1), normal(4, 3, seed=2) + 0.8, np.array([0.1, 0.2, 0.0])
    draws = [rows for rows in itertools.product(range(4), repeat=4) if len(set(rows)) > 1]
    every = [mmd_by_loops(first, mean, rows) - mmd_by_loops(second, mean, rows) for rows in draws]
    found = paired_distances(first[None], second[None], mean, draws=40_000)
    whole = (0, 1, 2, 3)
    assert found.difference == pytest.approx(mmd_by_loops(first, mean, whole) - mmd_by_loops(second, mean, whole))
    expected = 2 * min(np.mean(np.array(every) <= 0), np.mean(np.array(every) >= 0))
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 40_000) * 2)  # four standard errors
    below = np.mean(np.array(every) <= found.low)
    assert below == pytest.approx(0.025, abs=0.02)  # 252 draws have steps of 0.004


def test_repeats_of_captions_are_averaged() -> None:
    first, second, mean = normal(2, 6, 3, seed=3), normal(1, 6, 3, seed=4), np.zeros(3)
    alone = [paired_distances(first[k : k + 1], second, mean, draws=10).difference for k in range(2)]
    assert paired_distances(first, second, mean, draws=10).difference == pytest.approx(np.mean(alone))


def test_level_methods_are_seldom_told_apart_and_others_are() -> None:
    told = []
    for seed in range(60):
        first, second = (normal(1, 30, 8, seed=1000 * k + seed) for k in (1, 2))
        told.append(paired_distances(first, second, np.zeros(8), draws=400).p < 0.05)
    assert np.mean(told) <= 0.15  # 5 % are expected; 15 % of 60 has a chance of 0.1 %
    worse = paired_distances(normal(1, 30, 8) + 1, normal(1, 30, 8), np.zeros(8))
    assert worse.difference > 7 and worse.p < 0.001
    assert spread_of_distance(normal(1, 30, 8), np.zeros(8)) < 1


def test_paired_means_are_of_captions_that_both_have() -> None:
    first = {k: [k + 1.0, k + 2.0] for k in range(9)}
    second = {k: [float(k)] for k in range(3, 12)}
    found = paired_means(first, second)
    assert found[:3] == (1.5, 1.5, 1.5) and found.captions == 6 and found.p < 0.001


@pytest.mark.parametrize(
    ("difference", "p", "spread", "lower", "word"),
    [
        (-0.3, 0.01, 0.1, True, "ahead"),
        (0.3, 0.01, 0.1, True, "behind"),
        (0.3, 0.01, 0.0, False, "ahead"),
        (-0.3, 0.01, 0.1, False, "behind"),
        (-0.3, 0.05, 0.1, True, "level"),
        (-0.3, 0.01, 0.3, True, "level"),
    ],
)
def test_words_need_both_the_test_and_the_floor(
    difference: float, p: float, spread: float, lower: bool, word: str
) -> None:
    assert verdict(Comparison(difference, 0, 0, p, 9), spread, lower) == word


def test_distances_of_samples_leave_out_pairs_of_one_sample() -> None:
    real, fake = (torch.from_numpy(normal(5, 3, 4, seed=k)) for k in (5, 6))

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 4 + 1) ** 3)

    def within(x: torch.Tensor) -> float:
        rows = list(itertools.product(range(len(x)), range(3)))
        return float(np.mean([kernel(x[a], x[b]) for a, b in itertools.product(rows, rows) if a[0] != b[0]]))

    both = np.mean([kernel(a, b) for a, b in itertools.product(real.flatten(0, 1), fake.flatten(0, 1))])
    expected = within(real) + within(fake) - 2 * both
    assert distance_of_samples(real, fake) == pytest.approx(expected, rel=1e-12)
    assert distance_of_samples(real[:, 0], fake[:, 0]) == pytest.approx(kernel_distance(real[:, 0], fake[:, 0]))
    value, low, high = distance_with_interval(real, fake, 50)
    assert low < value < high and value == pytest.approx(expected)


def test_points_have_the_kernel_as_their_dot_products() -> None:
    landmarks, samples = (torch.from_numpy(normal(count, 2, 3, seed=count)) for count in (40, 7))
    fitted = KernelMap.fit(landmarks)  # cubes of three features span 20 dimensions
    points = fitted(samples)
    assert points.shape == (7, 20)
    assert torch.allclose(points @ points.T, sample_kernel(samples, samples), rtol=1e-6)
    again = KernelMap.fit(landmarks.clone(), dimensions=5)
    assert torch.equal(again.directions, KernelMap.fit(landmarks, dimensions=5).directions)
    assert torch.allclose(fitted(samples)[:, :5], again(samples))
