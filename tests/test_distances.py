"""Frechet and kernel distances against closed forms, loops and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfcascade.metrics.distances import (
    bootstrap,
    frechet_distance,
    kernel_distance,
    kernel_distance_of_subsets,
    random_patches,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(count: int, mean: Tensor, covariance: Tensor, seed: int) -> Tensor:
    """Samples whose mean and covariance are exactly these."""
    x = torch.randn(count, len(mean), generator=seeded(seed), dtype=torch.float64)
    x = x - x.mean(0)
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_is_the_closed_form_for_covariances_that_commute() -> None:
    variances = torch.tensor([[1.0, 4.0, 0.25], [9.0, 1.0, 0.25]], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0, 2.0], [1.0, -1.0, 2.0]], dtype=torch.float64)
    real, fake = (gaussian(50 + k, means[k], torch.diag(variances[k]), k) for k in range(2))
    expected = (means[0] - means[1]).square().sum() + (variances[0].sqrt() - variances[1].sqrt()).square().sum()
    assert math.isclose(frechet_distance(real, fake), float(expected), rel_tol=1e-9)
    assert abs(frechet_distance(real, real)) < 1e-9
    assert math.isclose(frechet_distance(real, fake), frechet_distance(fake, real), rel_tol=1e-9)


def test_frechet_takes_fewer_samples_than_features() -> None:
    x = torch.randn(10, 40, generator=seeded(1))
    shift = torch.full((40,), 0.5)
    assert math.isclose(frechet_distance(x, x + shift), 10.0, rel_tol=1e-4)


def test_frechet_of_few_samples_is_that_of_their_covariances() -> None:
    generator = torch.Generator().manual_seed(4)
    real, fake = torch.randn(12, 30, generator=generator).double(), torch.randn(9, 30, generator=generator).double()
    covariances = [torch.cov(x.T).numpy() for x in (real, fake)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    expected = float((real.mean(0) - fake.mean(0)).square().sum()) + sum(np.trace(one) for one in covariances)
    expected -= 2 * np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


def test_kernel_is_the_unbiased_estimate_written_as_loops() -> None:
    real, fake = torch.randn(6, 3, generator=seeded(0)), torch.randn(5, 3, generator=seeded(1)) + 1

    def k(a: Tensor, b: Tensor) -> float:
        return float((a.double() @ b.double() / 3 + 1) ** 3)

    def within(x: Tensor) -> float:
        pairs = [k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(pairs) / len(pairs)

    between = sum(k(a, b) for a in real for b in fake) / 30
    assert math.isclose(kernel_distance(real, fake), within(real) + within(fake) - 2 * between, rel_tol=1e-9)


def test_kernel_is_unbiased_where_frechet_is_not() -> None:
    draws = [torch.randn(2, 12, 4, generator=seeded(k), dtype=torch.float64) for k in range(400)]
    kernel = torch.tensor([kernel_distance(a, b) for a, b in draws])
    assert abs(kernel.mean()) < 3 * kernel.std() / 20
    assert torch.tensor([frechet_distance(a, b) for a, b in draws]).mean() > 0.5


class Flat(nn.Module):
    """A detector whose features are the pixels themselves."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).double()


def test_they_equal_torchmetrics() -> None:
    fid_module = pytest.importorskip("torchmetrics.image.fid")
    kid_module = pytest.importorskip("torchmetrics.image.kid")
    real, fake = torch.rand(40, 3, 2, 2, generator=seeded(2)), torch.rand(50, 3, 2, 2, generator=seeded(3)) ** 2
    fid = fid_module.FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2))
    fid.set_dtype(torch.float64)
    kid = kid_module.KernelInceptionDistance(feature=Flat(), normalize=True, subsets=3, subset_size=40)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    features = [images.flatten(1).double() for images in (real, fake)]
    assert math.isclose(float(fid.compute()), frechet_distance(*features), rel_tol=1e-5)
    torch.manual_seed(0)
    expected = kid.compute()
    torch.manual_seed(0)
    ours = kernel_distance_of_subsets(*features, torch.default_generator, 3, 40)
    assert math.isclose(float(expected[0]), ours[0], rel_tol=1e-5)
    assert math.isclose(float(expected[1]), ours[1], rel_tol=1e-4)


def test_the_interval_holds_the_true_value_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        real = torch.randn(80, 2, generator=seeded(seed), dtype=torch.float64)
        fake = torch.randn(80, 2, generator=seeded(1000 + seed), dtype=torch.float64) + 1
        estimate = bootstrap(frechet_distance, real, fake, seeded(seed), draws=60)
        assert estimate.low < estimate.value < estimate.high and estimate[3:] == (80, 80)
        held += estimate.low < 2 < estimate.high
    assert held >= 33


def test_rows_of_one_picture_are_drawn_together() -> None:
    rows = torch.arange(8.0)[:, None].repeat_interleave(3, 0)
    seen: list[Tensor] = []

    def note(real: Tensor, fake: Tensor) -> float:
        seen.append(real)
        return 0.0

    bootstrap(note, rows, rows, seeded(), draws=5, unit=3)
    assert all((x.view(-1, 3) == x.view(-1, 3)[:, :1]).all() for x in seen)


def test_patches_lie_inside_at_full_size_and_come_from_the_generator() -> None:
    pictures = torch.arange(2 * 8 * 10).view(2, 1, 8, 10).float()
    patches = random_patches(pictures, 50, 3, seeded())
    assert patches.shape == (100, 1, 3, 3)
    for index, patch in enumerate(patches):
        start = int(patch[0, 0, 0])
        assert start // 80 == index // 50
        expected = start + torch.arange(3) * 10
        assert torch.equal(patch[0, :, 0], expected.float()) and torch.equal(patch[0, 0], start + torch.arange(3.0))
    corners = {int(patch[0, 0, 0]) for patch in patches[:50]}
    assert len(corners) > 20
    assert torch.equal(patches, random_patches(pictures, 50, 3, seeded()))
    generator = seeded()
    parts = [random_patches(part, 50, 3, generator) for part in pictures.split(1)]
    assert torch.equal(patches, torch.cat(parts))


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), "as many features, not 3 and 2"),
        (torch.zeros(1, 3), torch.zeros(4, 3), "real must be \\(N, D\\) features of at least two samples"),
        (torch.zeros(4, 3), torch.full((4, 3), math.nan), "fake has features that are not finite"),
    ],
)
def test_bad_features_are_named(real: Tensor, fake: Tensor, message: str) -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=message):
            distance(real, fake)


def test_bad_settings_are_named() -> None:
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match="subset_size must be from 2 to the samples"):
        kernel_distance_of_subsets(x, x, seeded())
    with pytest.raises(ValueError, match="unit must divide the rows; 2 does not divide real's 5"):
        bootstrap(frechet_distance, x, x, seeded(), unit=2)
    with pytest.raises(ValueError, match="side must be from 1 to the pictures' 4 pixels, not 5"):
        random_patches(torch.zeros(1, 3, 4, 4), 1, 5, seeded())
