"""Collages as what models are measured on: those that ship, and of one's own cut-outs."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clip_score import tiny_clip_score
from selfcascade.cascade import Size
from selfcascade.data.collages import SPLITS, caption, render, sample_collage
from selfcascade.evaluation import open_benchmark
from selfcascade.evaluation.scenes_benchmark import FIRST_PROMPT, drawn_collages
from selfcascade.experiments.experiment import Experiment
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.models import BUNDLED

SIDE = Size(64, 64)


def test_what_is_asked_is_the_test_split_unless_another_is_named() -> None:
    for data, split in (("collages", "test"), ("collages:split=validation", "validation")):
        asked = open_benchmark(data, "scenes", SIDE).prompts(5, seed=0)
        collages = [sample_collage(FIRST_PROMPT + k, split) for k in range(5)]
        assert asked.prompts == tuple(caption(own, FIRST_PROMPT + k) for k, own in enumerate(collages))
        assert asked.truths == tuple(own.truth for own in collages)


def test_sets_of_captions_share_none() -> None:
    asked = {
        split: set(open_benchmark(f"collages:split={split}", "scenes", SIDE).prompts(200, seed=0).prompts)
        for split in SPLITS[1:]
    }
    assert not asked["test"] & asked["validation"] | asked["test"] & asked["tuning"]
    assert not asked["validation"] & asked["tuning"]


def test_nothing_is_measured_on_what_is_trained_on() -> None:
    with pytest.raises(ValueError, match="must be of the split test, validation or tuning"):
        open_benchmark("collages:split=train", "scenes", SIDE)
    samplings, training = {"base": {"method": "lanczos"}}, {"method": "lora"}
    assert Experiment(samplings=samplings, training=training, data="collages").train_data is None
    with pytest.raises(ValueError, match="train_data must be other pictures than data"):
        Experiment(samplings=samplings, training=training, data="collages:split=validation")


def test_ones_own_collages_are_asked_for_and_drawn(tmp_path: Path) -> None:
    sprites = tmp_path / "sprites"
    sprites.mkdir()
    for colour in ("red", "green", "blue", "white"):
        picture = Image.new("RGBA", (60, 60))
        ImageDraw.Draw(picture).ellipse((5, 5, 55, 55), fill=colour)
        picture.save(sprites / f"{colour} ball.png")
    clip = tiny_clip_score()
    clip.model.save_pretrained(tmp_path / "clip")
    clip.tokenizer.save_pretrained(tmp_path / "clip")
    own = open_benchmark(f"collages:sprites={sprites}", f"clip:{tmp_path / 'clip'}", SIDE)
    assert all("ball" in words for words in own.prompts(4, seed=0).prompts)
    evaluator = own.evaluator(64, 64, tmp_path, 6)
    assert [tuple(part.shape) for part in evaluator.real()] == [(6, 3, 64, 64)]  # type: ignore[attr-defined]
    before = evaluator.key
    Image.new("RGBA", (8, 8), "red").save(sprites / "red ball.png")
    assert own.evaluator(64, 64, tmp_path, 6).key != before
    with pytest.raises(ValueError, match="needs a detector to be measured by: give detector, inception"):
        open_benchmark(f"collages:sprites={sprites}", "scenes", SIDE)


def test_the_reader_is_right_about_real_renders() -> None:
    folder = str(BUNDLED.parent / drawn_collages().reader)
    reader = CompositionReader.from_pretrained(folder, local_files_only=True).float().eval()
    collages = [sample_collage(30_000_000 + k, "test") for k in range(80)]
    for size in (64, 128):
        pictures = torch.from_numpy(np.stack([render(own, size, size) for own in collages])).permute(0, 3, 1, 2)
        right = accuracy(reader.read(pictures), [own.truth for own in collages])
        assert min(right.values()) >= 0.95, right


def test_the_page_has_the_accuracy_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "recipes/bundled"))
    recipe = importlib.import_module("collage_reader")
    assert recipe.with_tables(recipe.PAGE.read_text()) == recipe.PAGE.read_text()
    measured = json.loads(recipe.ACCURACY.read_text())
    for size in recipe.PICTURE_SIZES:
        own = measured[f"collages {size}"]
        assert min(value for name, value in own.items() if name != "all") >= 0.97
