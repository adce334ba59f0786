"""Repetition and detail: what they say of pictures whose objects and sharpness are known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.data.scenes import Scene, render, sample_scene
from selfcascade.metrics.composition import CompositionReader
from selfcascade.metrics.repetition import repetition
from selfcascade.metrics.sharpness import octave_energies
from selfcascade.models import BUNDLED

COUNT = 24


def with_copies(index: int, count: int) -> Scene:
    """A real scene with `count` objects of the same kind, colour and size, well apart."""
    scene = sample_scene(60_500_000 + index, held_out=True, second=False)
    first, rng, items = scene.items[0], np.random.default_rng(index), []
    for _ in range(200):
        place = (rng.uniform(0.15, 0.85), first.y + (rng.uniform(-0.25, 0.1) if count > 1 else 0))
        if all(np.hypot(place[0] - item.x, place[1] - item.y) > 0.25 for item in items):
            items.append(dataclasses.replace(first, x=float(place[0]), y=float(place[1])))
        if len(items) == count:
            break
    return dataclasses.replace(scene, items=tuple(items))


def scores(scenes: list[Scene]) -> Tensor:
    reader = CompositionReader.from_pretrained(str(BUNDLED.parent / "reader"), local_files_only=True).float().eval()
    pictures = torch.from_numpy(np.stack([render(scene, 128, 128) for scene in scenes])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return repetition(reader.places(pictures.contiguous()))


def right(lower: Tensor, higher: Tensor) -> float:
    """Share of pairs that are in order."""
    return float((higher[:, None] > lower[None]).float().mean())


def test_it_tells_one_object_and_two_different_ones_from_equal_ones() -> None:
    one, two, three = (scores([with_copies(index, count) for index in range(COUNT)]) for count in (1, 2, 3))
    different = scores([sample_scene(60_600_000 + index, held_out=True, second=True) for index in range(COUNT)])
    assert right(one, two) > 0.9 and right(one, three) > 0.95 and right(different, two) > 0.9


def test_it_is_one_for_the_same_features_far_apart_and_blind_to_neighbours() -> None:
    features = 0.01 * torch.randn(3, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    mark = torch.randn(8, generator=torch.Generator().manual_seed(1))
    features[:, :, 2, 2] += mark
    features[1, :, 9, 9] += mark  # far off
    features[2, :, 3, 3] += mark  # one and the same object
    alone, far, near = repetition(features).tolist()
    assert far > 0.99 and alone < 0.8 and near < 0.8
    moved = repetition(features.roll(3, -1))
    assert torch.allclose(moved[1], torch.tensor(far), atol=1e-3)
    with pytest.raises(ValueError, match="apart must be a share"):
        repetition(features, 1.5)
    with pytest.raises(ValueError, match="leave each of 12x12 positions another"):
        repetition(features, 0.95)


def test_octaves_know_blur_from_noise() -> None:
    pictures = torch.from_numpy(np.stack([render(sample_scene(index), 128, 128) for index in range(8)]))
    pictures = pictures.permute(0, 3, 1, 2).contiguous()
    soft = interpolate(interpolate(pictures, scale_factor=0.5, mode="area"), scale_factor=2, mode="bilinear")
    noisy = pictures + 0.05 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    real, blurred, loud = (octave_energies(one).mean(0) for one in (pictures, soft, noisy))
    assert blurred[0] < 0.1 * real[0] and blurred[2] > 0.7 * real[2]
    assert loud[0] > real[0] + 0.05**2 * 0.5 and loud[2] < real[2] + 0.05**2 * 0.1
    flat = octave_energies(torch.full((1, 3, 16, 16), 0.3))
    assert float(flat.max()) < 1e-12
    with pytest.raises(ValueError, match="octaves must be fewer"):
        octave_energies(pictures[..., :4, :4])
