"""Figures of clips of moving scenes, by the detectors that ship."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selfcascade.data.scenes.motion import sample_moving_scene
from selfcascade.data.scenes.render_clip import render_clip
from selfcascade.evaluation.moving_scenes_benchmark import MovingSceneEvaluator, moving_scene_prompts
from selfcascade.metrics.distances import frechet_distance
from selfcascade.metrics.i3d import I3D

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def evaluator(folder: Path) -> MovingSceneEvaluator:
    return MovingSceneEvaluator(64, 64, folder, real_count=20, draws=10)


@pytest.fixture(scope="module")
def clips() -> Tensor:
    first = moving_scene_prompts(1).first_seed
    scenes = [sample_moving_scene(first + index, held_out=True) for index in range(COUNT)]
    return torch.from_numpy(np.stack([render_clip(scene, 64, 64) for scene in scenes])).permute(0, 1, 4, 2, 3)


@pytest.fixture(scope="module")
def of_real(evaluator: MovingSceneEvaluator, clips: Tensor) -> dict[str, Any]:
    return evaluator.evaluate(clips, moving_scene_prompts(COUNT))


def test_real_clips_are_read_as_asked_and_change_as_real_ones(of_real: dict[str, Any]) -> None:
    assert of_real["clips"] == COUNT
    assert of_real["motion"][0] >= 0.9 and of_real["composition"][0] >= 0.75
    for name, least in (("change", 0.6), ("patch_change", 0.35), ("flicker", 0.6)):  # a dozen patches tell little
        assert least < of_real[name][0] < 1.6
    for name, figures in of_real.items():
        if name != "clips":
            assert figures[1] <= figures[0] <= figures[2]


def test_the_real_clips_themselves_change_exactly_as_real_ones(evaluator: MovingSceneEvaluator) -> None:
    themselves = evaluator.evaluate(evaluator.real(), moving_scene_prompts(evaluator.real_count))
    for name in ("change", "patch_change", "flicker"):
        assert themselves[name][0] == pytest.approx(1, rel=1e-4)
    assert themselves["fvd"][0] == pytest.approx(0, abs=1e-2)


def test_flawed_clips_are_seen_for_what_they_are(
    evaluator: MovingSceneEvaluator, clips: Tensor, of_real: dict[str, Any]
) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    found = {
        name: evaluator.evaluate(made, moving_scene_prompts(COUNT))
        for name, made in (
            ("shuffled", clips[:, order]),
            ("frozen", clips[:, :1].expand_as(clips)),
            ("reversed", clips.flip(1)),
        )
    }
    for figures in found.values():
        assert figures["kvd"][0] > of_real["kvd"][0]
    assert found["shuffled"]["change"][0] > 1.3 * of_real["change"][0]
    assert found["frozen"]["change"][0] < 1e-3 and found["frozen"]["flicker"][0] == 0
    assert found["reversed"]["motion"][0] < of_real["motion"][0] - 0.25
    assert found["reversed"]["change"][0] == pytest.approx(of_real["change"][0], rel=1e-4)
    # The four frames that are looked at are the same, so what is said of frames alone is too.
    assert found["reversed"]["composition"][0] == pytest.approx(of_real["composition"][0])


def test_real_features_are_made_once_and_cached(
    evaluator: MovingSceneEvaluator, folder: Path, of_real: dict[str, Any]
) -> None:
    (path,) = folder.iterdir()
    assert path.name.startswith("real-features-of-clips-scenes-8fps-") and path.suffix == ".safetensors"
    written = path.stat().st_mtime_ns
    again = MovingSceneEvaluator(64, 64, folder, real_count=20, draws=10).reference({})
    real = evaluator.reference({})
    assert torch.equal(again["clip"], real["clip"])
    assert path.stat().st_mtime_ns == written
    assert real["frame"].shape == (20, 4, 128) and real["change"].shape == (20,)


def test_fvd_is_of_the_detector_that_is_given(folder: Path, clips: Tensor) -> None:
    class Means:
        def features(self, clips: Tensor) -> Tensor:
            return clips.mean((-2, -1)).flatten(1)

    evaluator = MovingSceneEvaluator(64, 64, folder, real_count=4, draws=2, detector=Means(), detector_name="means")
    real = torch.cat(list(evaluator.real()))
    assert real.shape == (4, 16, 3, 64, 64)
    found = evaluator.evaluate(clips[:4], moving_scene_prompts(4))
    expected = frechet_distance(real.mean((-2, -1)).flatten(1), clips[:4].mean((-2, -1)).flatten(1))
    assert found["fvd"][0] == pytest.approx(expected, rel=1e-3)
    assert I3D(classes=5).features(clips[:1, :9]).shape == (1, 5)  # the same seam


def test_clips_of_another_size_or_length_are_refused(
    evaluator: MovingSceneEvaluator, clips: Tensor, tmp_path: Path
) -> None:
    for wrong in (clips[:, :8], clips[..., :32], clips[0]):
        with pytest.raises(ValueError, match=r"clips must be \(N, F, C, H, W\) with \(16, 3, 64, 64\) after N"):
            evaluator.evaluate(wrong, moving_scene_prompts(COUNT))
    with pytest.raises(ValueError, match="frames must be 3 or more"):
        MovingSceneEvaluator(64, 64, tmp_path, frames=2)
