"""The report of clips: the paper's Table 3 beside ours, curves over training, and clips that move on the page."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from selfcascade.evaluation import PromptSet
from selfcascade.experiments.sheets import CLIP_BYTES, write_sheet
from selfcascade.report import write_report
from selfcascade.report.pictures import shown
from selfcascade.report.results import read_config, read_tables

FRAMES, FPS, SIDE = 6, 8.0, 32
PROMPTS = PromptSet(("a red ball rises", "a blue fish swims to the left"), 0, frames=FRAMES)


def write_result(root: Path, name: str, fvd: float, step: int = 0, side: int = SIDE) -> Path:
    figures = ("kvd", "frame_fid", "frame_patch_fid", "change", "patch_change", "flicker", "objects", "composition")
    result: dict[str, Any] = {"experiment": name, "seed": 0, "step": step, "trained_parameters": 7 if step else 0}
    result |= {"sampling": {"name": "table3", "height": side, "width": side}, "seconds_per_picture": 2.0}
    result |= {"clips": 2, "frames": FRAMES, "fps": FPS, "motion": [0.5, 0.25, 1.0], "fvd": [fvd, fvd - 1, fvd + 1]}
    path = root / f"table3/results/{name}/seed-0/table3-step{step:06d}-n2.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | {figure: [1.5, 1.0, 2.0] for figure in figures}))
    clips = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0)).repeat(1, FRAMES, 1, 1, 1)
    clips *= torch.linspace(0.2, 1, FRAMES)[:, None, None, None]
    write_sheet(path.with_name(f"table3-step{step:06d}.webp"), clips, PROMPTS, FPS)
    return path


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    root = tmp_path / "experiments"
    for name, fvd in (("self-cascade-rgb", 5.0), ("direct", 9.0)):
        write_result(root, name, fvd)
    write_result(root, "base", 4.0, side=SIDE // 2)
    for step in (100, 200):
        write_result(root, "full-ft", 8 - step / 100, step)
    return root


def test_table_3_has_the_papers_figures_under_ours_and_curves(experiments: Path, tmp_path: Path) -> None:
    costs = tmp_path / "methods.json"  # of pictures of the same size, which cost less
    row = {"size": [SIDE, SIDE], "pixels": 4, "method": "direct", "trained_parameters": 0, "peak_bytes": 1}
    costs.write_text(json.dumps({"rows": [{**row, "tflops": 1.0, "seconds": [9.0]}], "steps": 1, "guidance_scale": 1}))
    names = {path.name for path in write_report(experiments, tmp_path / "out", costs)}
    text = (tmp_path / "out/README.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    table = {cells[0]: cells for cells in reversed(lines)}
    assert [cells[0] for cells in lines[:5]] == ["method", "base", "direct", "self-cascade-rgb", "full-ft"]
    assert lines[0][3:6] == ["clips", "FVD_r", "KVD_r"] and "motion right, %" in lines[0]
    assert table["direct"][3:6] == ["2 x 1", "9.00<br>*688.07*", "1.50<br>*67.17*"]
    assert table["full-ft"][2:5] == ["200<br>*10k, 50k*", "2 x 1", "6.00<br>*721.32, 531.57*"]
    assert table["direct"][8:10] == ["2 s (1.00x)", "50.0"]
    assert "| direct | 0 | 2 | 50 (9 to 91) | 9.00 (8.00 to 10.00) |" in text
    grids = {f"table3-{SIDE}x{SIDE}-clip{number}.webp" for number in (1, 2)}
    assert names == {"README.md", "index.html", "table3-training.webp", *grids}
    assert all(f"]({name})" in text for name in names - {"README.md", "index.html"})


def test_the_page_holds_every_clip_once_with_all_its_frames(experiments: Path, tmp_path: Path) -> None:
    write_report(experiments, tmp_path / "out")
    found = re.search(r'id="data">(.*?)</script>', (tmp_path / "out/index.html").read_text(), re.DOTALL)
    assert found is not None
    (section,) = json.loads(found[1])["sections"]  # the base clips' own size compares with nothing
    assert section["captions"] == list(PROMPTS.prompts) and section["hardest"] is None
    assert [method["name"] for method in section["methods"]] == ["direct", "self-cascade-rgb", "full-ft"]
    assert section["methods"][0]["figures"] == ["motion right 50 %", "FVD_r 9.0", "frame pFID_r 1.5"]
    for method in section["methods"]:
        sheet = Image.open(io.BytesIO(base64.b64decode(method["sheet"])))
        assert (sheet.size, sheet.n_frames) == ((2 * SIDE, SIDE), FRAMES)  # type: ignore[attr-defined]
        assert method["across"] == 2 and method["pictures"] == []


def test_frames_that_are_equal_come_back_as_so_many(tmp_path: Path) -> None:
    path = write_result(tmp_path, "direct", 9.0)
    greys = torch.tensor([0.2, 0.2, 0.2, 0.8, 0.8, 0.5])[None, :, None, None, None]
    write_sheet(path.with_name("table3-step000000.webp"), greys.expand(2, FRAMES, 3, SIDE, SIDE), PROMPTS, FPS)
    (row,) = shown(read_tables(tmp_path, read_config(tmp_path))["table3"])
    assert row.clips is not None
    for clip in row.clips:
        found = [np.asarray(frame).mean() / 255 for frame in clip]
        assert found == pytest.approx(greys.flatten().tolist(), abs=0.02)


def test_sheets_of_clips_stay_small_and_keep_their_rate(tmp_path: Path) -> None:
    coarse = torch.rand(2, 3, FRAMES, 24, 24, generator=torch.Generator().manual_seed(0))
    noise = interpolate(coarse, (FRAMES, 192, 384), mode="nearest").transpose(1, 2)
    write_sheet(tmp_path / "noise.webp", noise, PROMPTS, FPS)
    assert CLIP_BYTES / 4 < (tmp_path / "noise.webp").stat().st_size <= 2 * CLIP_BYTES
    sheet: Any = Image.open(tmp_path / "noise.webp")
    assert sheet.size == (2 * 256, 128) and sheet.n_frames == FRAMES
    sheet.load()
    assert sheet.info["duration"] == 1000 / FPS
