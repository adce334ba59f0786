"""Post-hoc averages: profiles as published, and any width put together from snapshots."""

from pathlib import Path

import numpy as np
import pytest
import torch

from averages import TRACKED, PowerAverage, averaged_weights, combination, exponent_of


def profile(width: float, steps: int) -> np.ndarray:
    """Weights of steps 1 to `steps` in a power-function average, adding up to 1."""
    weights = np.diff((np.arange(steps + 1) / steps) ** (exponent_of(width) + 1))
    return weights / weights.sum()


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_the_published_ones(width: float, exponent: float) -> None:
    assert exponent_of(width) == pytest.approx(exponent, abs=0.01)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.25])
def test_a_profile_has_the_width_that_is_asked_for(width: float) -> None:
    weights, t = profile(width, 5000), (np.arange(5000) + 0.5) / 5000
    assert np.sqrt((weights * t**2).sum() - (weights * t).sum() ** 2) == pytest.approx(width, rel=1e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3])
def test_widths_that_no_growing_power_has_are_refused(width: float) -> None:
    with pytest.raises(ValueError, match=f"width must be above 0 and below 0.289, not {width}"):
        exponent_of(width)


def test_a_running_average_weighs_steps_by_their_power() -> None:
    average = PowerAverage({"w": torch.zeros(1, dtype=torch.float64)}, 0.1)
    values = np.random.default_rng(0).normal(size=200)
    for step, value in enumerate(values, 1):
        average.update({"w": torch.tensor([value])}, step)
    assert float(average.tensors["w"]) == pytest.approx(float((profile(0.1, 200) * values).sum()), abs=1e-9)


def test_a_tracked_width_is_its_own_last_snapshot() -> None:
    factors = combination([100, 200, 100, 200], [0.05, 0.05, 0.1, 0.1], 200, 0.1)
    assert factors == pytest.approx([0, 0, 0, 1], abs=1e-6)


def test_other_widths_are_put_together_from_snapshots(tmp_path: Path) -> None:
    walk = torch.from_numpy(np.random.default_rng(1).normal(size=(400, 8)).cumsum(0) / 20)
    averages = [PowerAverage({"w": walk[0]}, width) for width in TRACKED]
    for step in range(1, 401):
        for average in averages:
            average.update({"w": walk[step - 1]}, step)
            if step % 20 == 0:
                average.save_snapshot(tmp_path, step)
    for width in (0.05, 0.075, 0.1, 0.15):
        expected = (torch.from_numpy(profile(width, 400))[:, None] * walk).sum(0).float()
        assert torch.allclose(averaged_weights(tmp_path, width)["w"], expected, atol=0.01)  # walks span 2
    shorter = (torch.from_numpy(profile(0.1, 300))[:, None] * walk[:300]).sum(0).float()
    assert torch.allclose(averaged_weights(tmp_path, 0.1, step=300)["w"], shorter, atol=2e-3)  # half precision
    with pytest.raises(FileNotFoundError, match="no snapshot up to step 10"):
        averaged_weights(tmp_path, 0.1, step=10)
