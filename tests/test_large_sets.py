"""Distances of sets that do not fit into memory are those of sets that do; their features stay in files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from selfcascade.evaluation import feature_files, large_sets
from selfcascade.evaluation.feature_files import FeatureFile, Rows, read_features, write_features
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.evaluation.scenes_benchmark import SceneEvaluator, scene_prompts
from selfcascade.metrics.kernels import distance_with_interval
from selfcascade.metrics.registry import CLIP_METRICS, IMAGE_METRICS

DISTANCES = {name: one for name, one in {**IMAGE_METRICS, **CLIP_METRICS}.items() if one.is_distance}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 16, "TOGETHER": 2, "MOST_ROWS": 4}.items():
        monkeypatch.setattr(large_sets, name, value)
    monkeypatch.setattr(feature_files, "LARGE", 500)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) + seed


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_a_distance_in_blocks_is_that_of_the_whole_sets(name: str, shape: tuple[int, ...], small_blocks: None) -> None:
    real, fake = drawn(37, *shape), drawn(29, *shape, seed=1)
    whole = DISTANCES[name].compare(real, fake, 5)  # type: ignore[misc]
    assert large_sets.figure(name, DISTANCES[name], real, fake, 5) == pytest.approx(whole, rel=1e-6)
    real[30] = torch.nan
    with pytest.raises(ValueError, match="real has features that are not finite"):
        large_sets.figure(name, DISTANCES[name], real, fake, 5)


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_a_distance_of_samples_in_blocks_is_that_of_the_whole_sets(shape: tuple[int, ...], small_blocks: None) -> None:
    real, fake = drawn(37, *shape), drawn(29, *shape, seed=1)
    found = large_sets.sample_kernel_in_blocks(real, fake, 5)
    assert found == pytest.approx(distance_with_interval(real, fake, 5), rel=1e-9)


def test_rows_that_come_in_parts_are_the_same_in_memory_and_in_a_file(tmp_path: Path, small_blocks: None) -> None:
    whole = {"few": drawn(7, 2), "many": drawn(7, 3, 40), "steps": torch.arange(7)}
    rows = Rows(tmp_path / "new")
    for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
        rows.add({name: value[part] for name, value in whole.items()})
        assert torch.equal(rows.tensors(2)["many"][:], whole["many"][:2])
    assert not list((tmp_path / "new").iterdir())  # it has no name, so a kill leaves nothing behind
    for count in (7, 5):
        found = rows.tensors(count)
        assert {name for name, value in found.items() if isinstance(value, FeatureFile)} == {"many"}
        assert all(torch.equal(value[:], whole[name][:count]) for name, value in found.items())
    path = tmp_path / "features.safetensors"
    write_features(path, rows.tensors(), {"part": "{}"})
    assert all(torch.equal(value, whole[name]) for name, value in load_file(path).items())
    read = read_features(path)
    assert isinstance(read["many"], FeatureFile) and torch.equal(read["many"][2:5], whole["many"][2:5])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match="ends before row 7"):
        read["many"][:]


def test_an_evaluation_out_of_files_is_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, base = drawn(6, 3, 64, 64), drawn(4, 3, 64, 64)

    def figures(folder: str) -> dict[str, Any]:
        evaluator = SceneEvaluator(64, 64, tmp_path / folder, real_count=8, draws=3)
        return evaluator.evaluate(pictures, prompts(), base)

    def prompts() -> PromptSet:
        return scene_prompts(6)

    whole = figures("memory")
    monkeypatch.setattr(feature_files, "LARGE", 1000)
    monkeypatch.setattr(large_sets, "MOST_ROWS", 4)
    for _ in range(2):  # made, and read again
        found = figures("files")
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            if name in DISTANCES:
                assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-9)
            else:
                assert found[name] == value
    first, second = (next((tmp_path / name).glob("real-*")) for name in ("memory", "files"))
    kept = load_file(first)
    assert {name: value.tolist() for name, value in load_file(second).items()} == {
        name: value.tolist() for name, value in kept.items()
    }
