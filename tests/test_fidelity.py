"""Figures against the true picture, against torchmetrics and closed forms; damages that do what they say."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from selfcascade.metrics.damages import LADDER, blurred, meshed, noisy, repeated, shredded
from selfcascade.metrics.fidelity import feature_distance, octave_errors, psnr, ssim


def pictures(count: int = 2, height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    true, made = pictures(), (pictures() + 0.3 * pictures(seed=1)).clamp(0, 1)
    for row in range(2):
        pair = made[row : row + 1].double(), true[row : row + 1].double()
        expected = peak_signal_noise_ratio(*pair, data_range=1.0)
        assert psnr(true, made)[row] == pytest.approx(float(expected), abs=1e-5)  # its logarithm is in float32
        _, full = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
        within = full[..., 5:-5, 5:-5].mean()  # it pads the pictures; ours are windows that lie wholly within
        assert ssim(true, made)[row] == pytest.approx(float(within), abs=1e-6)  # its sums are in another order
    assert ssim(true, true) == pytest.approx([1.0, 1.0]) and psnr(true, true).tolist() == [100, 100]


def test_octave_errors_are_nought_for_the_truth_and_one_for_nothing() -> None:
    true = pictures()
    assert octave_errors(true, true).tolist() == [[0, 0, 0]] * 2
    assert torch.allclose(octave_errors(true, torch.full_like(true, 0.5)), torch.ones(2, 3, dtype=torch.float64))
    assert torch.allclose(octave_errors(true, 1 - true), torch.full((2, 3), 4.0, dtype=torch.float64))
    fine, coarse = octave_errors(true, blurred(true, 1.0))[:, 0], octave_errors(true, blurred(true, 1.0))[:, 2]
    assert (fine > 2 * coarse).all()


def test_feature_distance_is_of_directions_over_places_and_levels() -> None:
    one, other = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    one[:, 0], other[:, 1] = 5, 0.1  # at right angles everywhere: 2
    assert feature_distance([one], [other]).item() == pytest.approx(2)
    other[:, :, 0] = one[:, :, 0]  # a third of the places alike
    assert feature_distance([one, one], [other, one]).item() == pytest.approx(2 / 3)


def test_what_cannot_be_compared_is_named() -> None:
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\) of one shape"):
        psnr(pictures(2), pictures(1))
    with pytest.raises(ValueError, match="11 pixels a side or more"):
        ssim(pictures(height=10), pictures(height=10))
    with pytest.raises(ValueError, match="octaves must be fewer"):
        octave_errors(pictures(height=6), pictures(height=6))


def test_blur_spreads_a_point_by_its_sigma_and_keeps_its_light() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blurred(point, 2.0)[0, 0]
    places = torch.arange(41) - 20.0
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * places**2).sum().item() == pytest.approx(4, rel=0.03)  # cut off at three sigma
    flat = torch.full((1, 3, 9, 9), 0.7)
    assert torch.allclose(blurred(flat, 4.0), flat, atol=1e-6)


def test_noise_mesh_shreds_and_repeats() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    made = noisy(grey, 0.1) - grey
    assert made.std().item() == pytest.approx(0.1, rel=0.03) and not torch.equal(made[0], made[1])
    assert torch.equal(noisy(grey, 0.1)[:1], noisy(grey[:1], 0.1))
    assert (meshed(grey, 0.2) - grey).square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)  # 0.2 sqrt(1/2)^2
    x = pictures()
    torn = shredded(x, 0.2)
    for strip, before in zip(torn.tensor_split(8, -2), x.tensor_split(8, -2), strict=True):
        moves = [move for move in range(-6, 7) if torch.equal(strip, before.roll(move, -1))]
        assert len(moves) == 1
    twice = repeated(x, 2)
    assert torch.equal(twice[..., :12, :16], twice[..., 12:, 16:])
    assert torch.allclose(twice[0, 0, 0, 0], x[0, 0, :2, :2].mean())
    assert repeated(x, 3).shape == x.shape


def test_the_ladder_gets_worse_rung_by_rung() -> None:
    x = blurred(pictures(4, 64, 64), 1.0)
    errors = {name: float((damage(x) - x).square().mean()) for name, damage in LADDER.items()}
    assert errors.pop("none") == 0 and {"blur 2", "noise 0.05", "shreds 0.1", "mesh 0.1", "repeats 2"} < set(errors)
    for kind in ("blur", "noise", "mesh"):
        own = [error for name, error in errors.items() if name.startswith(kind)]
        assert own == sorted(own) and own[0] > 0 and math.isfinite(own[-1])
