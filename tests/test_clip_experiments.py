"""Experiments on clips, with a tiny AnimateDiff pipeline: the same harness as pictures', and what clips add to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from command_line import run, succeed
from selfcascade.cascade import Size
from selfcascade.evaluation import Pivots, Sampling, answer, open_world
from selfcascade.evaluation.moving_scenes import moving_questions
from tiny import TINY

FRAMES = 4
FREE: dict[str, dict[str, Any]] = {
    "base": {"method": "lanczos", "scale": 1},
    "direct": {"method": "direct"},
    "lanczos": {"method": "lanczos"},
    "scalecrafter": {"method": "scalecrafter"},
    "self-cascade-rgb": {"preset": "rgb"},
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Methods that train nothing, on 2 clips of 4 frames."""
    folder = tmp_path / "experiments/table3"
    folder.mkdir(parents=True)
    settings = {"model": str(tmp_path / "video"), "data": "moving-scenes", "frames": FRAMES, "real_pictures": 3}
    settings |= {"questions": [2], "questions_at_last": [2], "shared": {"num_inference_steps": 2, "guidance_scale": 3}}
    (folder.parent / "defaults.json").write_text(json.dumps(settings))
    for name, sampling in FREE.items():
        (folder / f"{name}.json").write_text(json.dumps({"samplings": {"table3": sampling}}))
    return folder


def without_seconds(path: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads(path.read_text()).items() if "second" not in name}


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
    assert found["direct"]["fvd"] != found["lanczos"]["fvd"]
    (base,) = runs.glob("pivots-*")  # one set for all rows
    assert len(list(base.iterdir())) == 2  # a part a clip
    sheet = Image.open(paths["direct"].with_name("table3-step000000.webp"))
    assert (sheet.size, sheet.n_frames) == ((256, 128), FRAMES)  # type: ignore[attr-defined]

    before = without_seconds(paths["self-cascade-rgb"])
    paths["self-cascade-rgb"].unlink()
    (base / "00001.safetensors").unlink()
    left = (base / "00000.safetensors").stat().st_mtime_ns
    succeed("evaluate", str(suite), "--runs", str(runs))
    assert without_seconds(paths["self-cascade-rgb"]) == before
    assert (base / "00000.safetensors").stat().st_mtime_ns == left
