"""FVD, KVD, steadiness and frame accuracy against closed forms and plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selfcascade.metrics.video import (
    clip_distances,
    flicker,
    frame_accuracy,
    mean_estimate,
    neighbour_distance,
    relative,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_clips_moved_by_a_constant_are_that_far_away() -> None:
    real = normal(50, 6)
    found = clip_distances(real, real + 0.5, draws=2)
    assert found["fvd"].value == pytest.approx(6 * 0.25, rel=1e-9)
    assert found["kvd"].value > 0 and found["kvd"].real_count == 50
    assert abs(clip_distances(real, real, draws=2)["fvd"].value) < 1e-9


def test_they_are_what_lvdm_computes_written_plainly() -> None:
    real, fake = normal(40, 5).numpy(), 1.3 * normal(30, 5, seed=1).numpy() + 0.2

    def root(matrix: np.ndarray) -> np.ndarray:
        left, values, _ = np.linalg.svd(matrix)
        return left * np.sqrt(values) @ left.T

    covariances = [np.cov(x, rowvar=False) for x in (real, fake)]
    half = root(covariances[0])
    fvd = np.sum((real.mean(0) - fake.mean(0)) ** 2)
    fvd += np.trace(covariances[0] + covariances[1]) - 2 * np.trace(root(half @ covariances[1] @ half))

    def mean(x: np.ndarray, y: np.ndarray, skip_own: bool) -> float:
        pairs = [(x[i] @ y[j] / 5 + 1) ** 3 for i in range(len(x)) for j in range(len(y)) if not (skip_own and i == j)]
        return sum(pairs) / len(pairs)

    kvd = mean(real, real, True) + mean(fake, fake, True) - 2 * mean(real, fake, False)
    found = clip_distances(torch.from_numpy(real), torch.from_numpy(fake), draws=30)
    assert found["fvd"].value == pytest.approx(fvd, rel=1e-9)
    assert found["kvd"].value == pytest.approx(kvd, rel=1e-9)
    assert all(estimate.low < estimate.value < estimate.high for estimate in found.values())
    assert found == clip_distances(torch.from_numpy(real), torch.from_numpy(fake), draws=30)


def test_neighbour_distance_is_the_length_of_a_step() -> None:
    line = torch.arange(7.0)[None, :, None] * torch.tensor([[3.0, 4.0]])  # steps of length 5
    assert neighbour_distance(torch.stack([line[0], 2 * line[0], 0 * line[0]])).tolist() == [5.0, 10.0, 0.0]
    walk = normal(3, 8, 4).cumsum(1)
    assert (neighbour_distance(walk[:, [0, 4, 1, 5, 2, 6, 3, 7]]) > neighbour_distance(walk)).all()


def test_flicker_is_blind_to_steady_change_and_sees_alternation_at_every_size() -> None:
    ramp = torch.linspace(0, 1, 9).view(1, 9, 1, 1, 1).expand(1, 9, 3, 32, 32)
    assert float(flicker(ramp)) < 1e-6
    wave = 0.5 + 0.1 * (-1.0) ** torch.arange(9).view(1, 9, 1, 1, 1)
    for side in (16, 32, 48):
        assert float(flicker(wave.expand(1, 9, 3, side, side))) == pytest.approx(0.4, rel=1e-5)


def test_relative_is_one_for_what_is_as_real_and_has_an_interval() -> None:
    real = normal(400, 1).abs()
    assert relative(real, real) == 1.0
    assert relative(real, 2 * real) == pytest.approx(2)
    with pytest.raises(ValueError, match="real must not have a mean of 0"):
        relative(torch.zeros(3, 1), real)


def test_the_mean_s_interval_is_about_two_standard_errors() -> None:
    values = normal(500)
    estimate = mean_estimate(values, draws=300)
    error = float(values.std()) / math.sqrt(500)
    assert estimate.value == pytest.approx(float(values.mean()))
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.2)


def test_the_mean_s_interval_stays_within_the_values() -> None:
    shares = torch.tensor([1.0] * 28 + [0.0, 0.03])
    estimate = mean_estimate(torch.cat([shares, torch.tensor([math.nan])]))
    assert estimate.value == pytest.approx(float(shares.mean())) and estimate.fake_count == 30
    assert 0.8 < estimate.low < estimate.value < estimate.high <= 1


def test_frame_accuracy_by_hand() -> None:
    truths = [
        {"first_kind": "fish", "count": 1, "place": "left", "first_motion": "left"},
        {"count": 2, "first_motion": "none"},
    ]
    first = [{"first_kind": kind, "count": "1", "place": "right"} for kind in ("fish", "fish", "boat", "fish")]
    second = [{"first_kind": "house", "count": count, "place": "left"} for count in ("2", "1", "1", "1")]
    found = frame_accuracy([first, second], truths)
    assert sorted(found) == ["all", "count", "first_kind"]
    assert found["all"].tolist() == [0.75, 0.25] and found["count"].tolist() == [1.0, 0.25]
    assert found["first_kind"][0] == 0.75 and math.isnan(found["first_kind"][1])
    nothing = frame_accuracy([first, second], [truths[0], {"first_motion": "none"}])
    assert nothing["all"][0] == 0.75 and math.isnan(nothing["all"][1])


def test_bad_clips_are_named() -> None:
    with pytest.raises(ValueError, match="features must be \\(N, F, D\\) of at least two frames, not \\(2, 1, 3\\)"):
        neighbour_distance(torch.zeros(2, 1, 3))
    with pytest.raises(
        ValueError, match=r"clips must be .* 3 frames and 16 pixels a side or more, not \(1, 2, 3, 16, 16\)"
    ):
        flicker(torch.zeros(1, 2, 3, 16, 16))
    with pytest.raises(ValueError, match="at least one: 0 and 1"):
        frame_accuracy([], [{}])
