"""Experiments on clips, with a tiny AnimateDiff pipeline: the same harness as pictures', and what clips add to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_files import write_clip
from command_line import run, succeed
from selfcascade.cascade import Size
from selfcascade.data import DataError
from selfcascade.evaluation import BaseSamples, Sampling, open_benchmark, sample
from selfcascade.evaluation.moving_scenes_benchmark import moving_scene_prompts
from selfcascade.experiments.experiment import names_of, read_experiment
from selfcascade.metrics.i3d import I3D
from selfcascade.report.paper import paper_rows
from tiny import TINY

FRAMES = 4
FREE: dict[str, dict[str, Any]] = {
    "base": {"method": "lanczos", "scale": 1},
    "scalecrafter": {"method": "scalecrafter"},
    "self-cascade-rgb": {"preset": "rgb"},
}


@pytest.fixture
def suite(tmp_path: Path, models: Path) -> Path:
    """Methods that train nothing, on 2 clips of 4 frames."""
    folder = tmp_path / "experiments/table3"
    folder.mkdir(parents=True)
    own = {"model": str(models / "video"), "data": "moving-scenes", "frames": FRAMES, "real_pictures": 12}
    own |= {"samples": [2], "samples_at_last": [2]}
    settings = {"shared": {"num_inference_steps": 2, "guidance_scale": 3}, "suites": {"table3": own}}
    (folder.parent / "defaults.json").write_text(json.dumps(settings))
    for name, sampling in FREE.items():
        (folder / f"{name}.json").write_text(json.dumps({"samplings": {"table3": sampling}}))
    return folder


def without_seconds(path: Path) -> dict[str, Any]:
    result = json.loads(path.read_text())
    return {name: value for name, value in result.items() if "second" not in name and "base" not in name}


def test_a_suite_of_clips_is_made_goes_on_where_it_was_cut_and_is_reported(suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    succeed("evaluate", str(suite), "--runs", str(runs))
    paths = {name: suite / f"results/{name}/seed-0/table3-step000000-n2.json" for name in FREE}
    found = {name: json.loads(path.read_text()) for name, path in paths.items()}
    for name, result in found.items():
        assert (result["clips"], result["frames"], result["fps"]) == (2, FRAMES, 8.0)
        assert result["sampling"]["height"] == (64 if name == "base" else 128)
        for figure in ("fvd", "kvd", "frame_fid", "frame_patch_fid", "motion", "composition", "change", "flicker"):
            value, low, high = result[figure]
            assert low <= value <= high
    assert found["scalecrafter"]["fvd"] != found["self-cascade-rgb"]["fvd"]
    (base,) = runs.glob("pivots-*")  # one set for all rows
    assert len(list(base.iterdir())) == 2  # a part a clip
    sheet = Image.open(paths["scalecrafter"].with_name("table3-step000000.webp"))
    assert (sheet.size, sheet.n_frames) == ((256, 128), FRAMES)  # type: ignore[attr-defined]

    before = without_seconds(paths["self-cascade-rgb"])
    paths["self-cascade-rgb"].unlink()
    (base / "00001.safetensors").unlink()
    left = (base / "00000.safetensors").stat().st_mtime_ns
    succeed("evaluate", str(suite), "--runs", str(runs))
    assert without_seconds(paths["self-cascade-rgb"]) == before
    assert (base / "00000.safetensors").stat().st_mtime_ns == left


def test_clips_are_the_same_whatever_the_part_and_base_clips_are_their_own_pixels(tmp_path: Path) -> None:
    pipe: Any = TINY["animatediff"].build()
    prompts = moving_scene_prompts(2, frames=FRAMES)
    sampling = Sampling(num_inference_steps=2, preset="rgb")
    pivots = BaseSamples(pipe, prompts, Size(64, 64), sampling, tmp_path)
    together = sample(pipe, prompts, sampling, pivots, indices=range(2))
    alone = sample(pipe, prompts, sampling, pivots)
    assert alone.shape == (2, FRAMES, 3, 128, 128)
    assert (alone - together).abs().max() <= 1 / 255  # kernels share a batch out by its length
    assert not torch.equal(alone[0], alone[1])
    base = sample(pipe, prompts, Sampling(method="lanczos", scale=1), pivots)
    family_pixels = torch.cat(list(pivots.pictures(pipe))).transpose(1, 2)
    assert (base - family_pixels).abs().max() <= 0.5 / 255 + 1e-6


def test_the_committed_rows_share_base_clips_and_are_trained_equally_long() -> None:
    folder = Path(__file__).parents[1] / "experiments/table3"
    rows = {name: read_experiment(folder, name) for name in names_of(folder)}
    trained = {name for name, row in rows.items() if row.training is not None}
    assert trained == {"tuned-clips", "tuned-clips-temporal", "full-ft", "lora-r4", "lora-r32"}
    assert len({max(rows[name].at_steps) for name in trained}) == 1
    assert {str(row.sampling("table3").of_base) for row in rows.values()} == {str(Sampling().of_base)}
    assert {(row.model, row.frames, row.fps, row.samples) for row in rows.values()} == {("bundled-video", 16, 8, (20,))}
    assert not {name for name, row in paper_rows("table3").items() if row.distances} - set(rows)


def test_what_is_trained_on_clips_is_measured_on_the_way(suite: Path, tmp_path: Path) -> None:
    training = {"method": "upsamplers", "train_batch_size": 1, "learning_rate": 0.1}
    settings = {"training": training, "samplings": {"table3": {"preset": "rgb"}}, "at_steps": [1, 2]}
    (suite / "tuned-clips.json").write_text(json.dumps(settings))
    succeed("evaluate", str(suite), "tuned-clips", "self-cascade-rgb", "--runs", str(tmp_path / "runs"))
    folder = suite / "results/tuned-clips/seed-0"
    first, last = (json.loads((folder / f"table3-step00000{step}-n2.json").read_text()) for step in (1, 2))
    assert first["trained_parameters"] > 0 and first["fvd"] != last["fvd"]
    assert (last["step"], last["clips"], last["frames"]) == (2, 2, FRAMES)
    assert (folder / "table3-step000002.webp").exists()


def test_clips_and_pictures_are_not_mixed_up(suite: Path, tmp_path: Path) -> None:
    results = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    assert (
        "frames must be left out for model 'bundled'"
        in run("evaluate", str(suite), "--model", "bundled", *results).stderr
    )
    path = suite.parent / "defaults.json"
    path.write_text(path.read_text().replace('"frames": 4, ', ""))
    assert "frames must be given for model" in run("evaluate", str(suite), *results).stderr
    size = Size(64, 64)
    for data, frames, words in (("scenes", 4, "must be 'moving-scenes'"), ("moving-scenes", None, "must be 'scenes'")):
        with pytest.raises(ValueError, match=words):
            open_benchmark(data, "scenes", size, frames)
    with pytest.raises(ValueError, match="detector of clips must be 'i3d:FILE"):
        open_benchmark(str(tmp_path), "clip:x", size, 4)


def test_own_clips_are_measured_with_i3d(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "i3d.safetensors"
    save_file(I3D(classes=3).state_dict(), weights)
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(3):
        write_clip(folder / f"{number}.mp4", frames=9 + number, size=(72, 64 + 8 * number))
        (folder / f"{number}.txt").write_text(f"number {number}")
    write_clip(folder / "small.mp4", frames=9, size=(32, 32))
    (folder / "small.txt").write_text("small")
    benchmark = open_benchmark(str(folder), f"i3d:{weights}", Size(64, 64), frames=9)
    asked = benchmark.prompts(2, seed=0)
    assert asked.frames == 9 and set(asked.prompts) < {f"number {number}" for number in range(3)}
    assert benchmark.base_prompts(2) is None
    clips = torch.rand(2, 9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    figures = benchmark.evaluator(64, 64, tmp_path / "cache", 3).evaluate(clips, asked)
    assert set(figures) == {"clips", "fvd", "kvd", "flicker"} and figures["flicker"][0] > 1
    with pytest.raises(DataError, match="fewer than 4 usable samples"):
        benchmark.prompts(4, seed=0)
