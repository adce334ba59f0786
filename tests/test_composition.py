"""The composition reader and its score."""

from pathlib import Path

import numpy as np
import pytest
import torch

from selfcascade.data.scenes import COLOURS, KINDS, render, sample_scene
from selfcascade.metrics.composition import CompositionReader, accuracy

LABELS = {"count": ["0", "1", "2", "3"], "first_kind": list(KINDS), "first_colour": list(COLOURS)}


def small_reader() -> CompositionReader:
    torch.manual_seed(0)
    return CompositionReader(LABELS, widths=(8, 16, 16, 16), input_size=32)


def pictures(count: int) -> tuple[torch.Tensor, list[dict]]:
    scenes = [sample_scene(seed) for seed in range(count)]
    images = torch.from_numpy(np.stack([render(scene, 64, 64) for scene in scenes])).permute(0, 3, 1, 2)
    return images, [{name: scene.truth[name] for name in LABELS} for scene in scenes]


def test_it_learns_eight_pictures_by_heart() -> None:
    reader = small_reader()
    images, truths = pictures(8)
    optimizer = torch.optim.Adam(reader.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        reader.loss(images, truths).backward()
        optimizer.step()
    assert accuracy(reader.read(images), truths)["all"] == 1.0


def test_it_reads_any_size_and_survives_saving(tmp_path: Path) -> None:
    reader = small_reader().eval()
    images, _ = pictures(2)
    reader.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if "config" not in path.name] == [".safetensors"]
    again = CompositionReader.from_pretrained(tmp_path, local_files_only=True)
    assert again.read(images) == reader.read(images)
    assert again.config["labels"] == LABELS
    assert reader(torch.rand(2, 3, 96, 200))["count"].shape == (2, 4)
    assert reader.features(images).shape == (2, 16)


def test_a_missing_attribute_does_not_count() -> None:
    reader = small_reader()
    images, truths = pictures(3)
    partial = [{"count": truth["count"]} for truth in truths]
    logits = reader(images)["count"]
    target = torch.tensor([int(truth["count"]) for truth in truths])
    torch.testing.assert_close(reader.loss(images, partial), torch.nn.functional.cross_entropy(logits, target))


def test_accuracy_by_hand() -> None:
    truths = [{"count": 1, "place": "left"}, {"count": 2}, {"count": 1, "place": "right"}]
    readings = [{"count": "1", "place": "left"}, {"count": "2", "place": "left"}, {"count": "1", "place": "left"}]
    assert accuracy(readings, truths) == {"all": 2 / 3, "count": 1.0, "place": 0.5}
    with pytest.raises(ValueError, match="at least one: 0 and 0"):
        accuracy([], [])


def test_objects_that_share_their_weights_are_read_each_in_its_place() -> None:
    torch.manual_seed(0)
    labels = {"count": ["1", "2"], "first_kind": list(KINDS), "last_kind": list(KINDS)}
    reader = CompositionReader(labels, widths=(8, 16, 16, 16), input_size=32, objects=("first", "last"))
    scenes = [sample_scene(seed, second=bool(seed % 2)) for seed in range(8)]
    images = torch.from_numpy(np.stack([render(scene, 32, 32) for scene in scenes])).permute(0, 3, 1, 2)
    truths = [{name: scene.truth[name] for name in labels} for scene in scenes]
    optimizer = torch.optim.Adam(reader.parameters(), lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        reader.loss(images, truths).backward()
        optimizer.step()
    assert accuracy(reader.read(images), truths)["all"] == 1.0
    shared = reader.object_head
    assert shared is not None
    assert shared.read[2].out_features == len(KINDS)


def test_objects_with_other_labels_are_refused() -> None:
    labels = {"count": ["1"], "first_kind": ["cat"], "last_kind": ["dog"]}
    with pytest.raises(ValueError, match="objects first, last must have the same attributes with the same labels"):
        CompositionReader(labels, objects=("first", "last"))
