"""Paired tests against enumeration, and the words that follow from them."""

import itertools
import math

import numpy as np
import pytest
import torch

from selfcascade.metrics import kernels
from selfcascade.metrics.distances import kernel_distance
from selfcascade.metrics.kernels import centred_points, distance_of_samples, distance_with_interval, sample_kernel
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


def mmd_by_loops(points: np.ndarray, rows: tuple[int, ...]) -> float:
    """Mean of x.y over ordered pairs of different captions of a draw."""
    return float(np.mean([points[a] @ points[b] for a, b in itertools.product(rows, rows) if a != b]))


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
    first, second = normal(4, 3, seed=1) - 0.1, normal(4, 2, seed=2) + 0.8
    draws = [rows for rows in itertools.product(range(4), repeat=4) if len(set(rows)) > 1]
    every = [mmd_by_loops(first, rows) - mmd_by_loops(second, rows) for rows in draws]
    found = paired_distances([first[None]], [second[None]], draws=40_000)
    whole = (0, 1, 2, 3)
    assert found.difference == pytest.approx(mmd_by_loops(first, whole) - mmd_by_loops(second, whole))
    expected = 2 * min(np.mean(np.array(every) <= 0), np.mean(np.array(every) >= 0))
    assert found.p == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 40_000) * 2)  # four standard errors
    # The 252 draws have few values, so a quantile is one of them: no more lie below it, and no fewer below or on it.
    below, to = (np.mean(np.array(every) <= found.low + rounding) for rounding in (-1e-9, 1e-9))
    assert below - 0.005 <= 0.025 <= to + 0.005


def test_repeats_of_captions_are_averaged() -> None:
    first, second = normal(2, 6, 3, seed=3), normal(1, 6, 3, seed=4)
    alone = [paired_distances([first[k : k + 1]], [second], draws=10).difference for k in range(2)]
    assert paired_distances([first], [second], draws=10).difference == pytest.approx(np.mean(alone))


def test_sets_of_captions_are_drawn_apart_and_averaged() -> None:
    first = [normal(1, count, 3, seed=count) for count in (3, 4)]
    second = [normal(1, count, 2, seed=9 + count) for count in (3, 4)]
    rows = [[own for own in itertools.product(range(n), repeat=n) if len(set(own)) > 1] for n in (3, 4)]
    own, other = (
        [mmd_by_loops(first[k][0], drawn) - mmd_by_loops(second[k][0], drawn) for drawn in rows[k]] for k in range(2)
    )
    every = np.add.outer(own, other).ravel() / 2
    found = paired_distances(first, second, draws=40_000)
    whole = [paired_distances(first[k : k + 1], second[k : k + 1], draws=10).difference for k in range(2)]
    assert (found.difference, found.captions) == (pytest.approx(np.mean(whole)), 7)
    assert np.mean(every <= found.low) == pytest.approx(0.025, abs=0.01)
    assert np.mean(every >= found.high) == pytest.approx(0.025, abs=0.01)
    with pytest.raises(ValueError, match=r"must be of the same captions, not \[3, 4\] and \[4, 3\]"):
        paired_distances(first, second[::-1])


def test_level_methods_are_seldom_told_apart_and_others_are() -> None:
    told = []
    for seed in range(60):
        first, second = (normal(1, 30, 8, seed=1000 * k + seed) for k in (1, 2))
        told.append(paired_distances([first], [second], draws=400).p < 0.05)
    assert np.mean(told) <= 0.15  # 5 % are expected; 15 % of 60 has a chance of 0.1 %
    worse = paired_distances([normal(1, 30, 8) + 1], [normal(1, 30, 8)])
    assert worse.difference > 7 and worse.p < 0.001


def test_the_spread_is_that_of_fresh_samples_of_the_same() -> None:
    fresh = [mmd_by_loops(normal(40, 8, seed=k), tuple(range(40))) for k in range(300)]
    low, high = np.quantile(fresh, [0.025, 0.975])
    found = [spread_of_distance([normal(1, 40, 8, seed=k)], draws=1000) for k in range(20)]
    assert np.mean(found) == pytest.approx((high - low) / 2, rel=0.15)
    drawn = [paired_distances([normal(1, 40, 8, seed=k)], [np.zeros((1, 40, 8))], draws=1000) for k in range(20)]
    ratio = np.mean([(one.high - one.low) / 2 for one in drawn]) / np.mean(found)
    assert ratio == pytest.approx(1.77, rel=0.05)  # draws of captions move a distance of 0 too far
    shifted = normal(1, 40, 8) + 5.0  # the spread is that of a distance of 0
    assert spread_of_distance([shifted], draws=1000) == pytest.approx(found[0], rel=1e-9)
    two = spread_of_distance([normal(1, 40, 8), normal(1, 40, 8, seed=1)], draws=4000)
    assert two == pytest.approx(np.mean(found) / math.sqrt(2), rel=0.2)


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


def test_differences_of_distances_are_those_of_points() -> None:
    real, *fakes = (torch.from_numpy(normal(count, 2, 3, seed=count)) for count in (40, 7, 8))
    points = [centred_points(one, real) for one in fakes]
    assert [own.shape for own in points] == [(7, 7), (8, 8)]
    kernel, means = sample_kernel(fakes[0], fakes[0]), sample_kernel(fakes[0], real).mean(1)
    centred = kernel - means[:, None] - means[None] + sample_kernel(real, real).mean()
    assert torch.allclose(points[0] @ points[0].T, centred, atol=1e-9)
    exact = distance_of_samples(real, fakes[0]) - distance_of_samples(real, fakes[1])
    within = [mmd_by_loops(own.numpy(), tuple(range(len(own)))) for own in points]
    assert within[0] - within[1] == pytest.approx(exact, rel=1e-9)
    assert torch.allclose(centred_points(fakes[0], real, 3), points[0][:, :3], atol=1e-9)


def test_points_beyond_those_fitted_are_of_the_same_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = torch.from_numpy(normal(30, 2, seed=1)), torch.from_numpy(normal(40, 2, seed=2))
    whole = centred_points(fake, real)
    monkeypatch.setattr(kernels, "FITTED", 30)  # cubes of two features span 9 dimensions beside the constant
    fewer = centred_points(fake, real)
    assert whole.shape == fewer.shape == (40, 9)
    assert torch.allclose(fewer @ fewer.T, whole @ whole.T, atol=1e-8)
