"""The report of results and costs that are damaged, incomplete, or older than what they are to tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from report_files import cells, write_result
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.evaluation.provenance import weight_files
from selfcascade.experiments.sheets import write_sheet
from selfcascade.report import write_report
from selfcascade.report.pictures import grid, shown, shown_size
from selfcascade.report.results import Row, read_config, read_result, read_tables
from selfcascade.report.tables import Costs, seeds_table, table

COST = {"size": [128, 128], "pixels": 4, "trained_parameters": 0}
BENCHMARK: dict[str, Any] = {"rows": [], "steps": 25, "guidance_scale": 3.0}


def rows_of(root: Path) -> list[Row]:
    return read_tables(root, read_config(root))["table1"]


def test_a_time_without_the_base_samples_is_not_shown_beside_times_with_it(tmp_path: Path) -> None:
    results = tmp_path / "table1/results"
    write_result(results / "direct/seed-0", "table1", 0.1, sampling={"method": "direct"})
    own = {"sampling": {"method": "self-cascade"}, "seconds_per_picture": 3.0}
    write_result(results / "self-cascade-paper/seed-0", "table1", 0.1, **own, seconds_per_base_sample=1.0)
    write_result(results / "self-cascade-rgb/seed-0", "table1", 0.1, **own)
    text = table("table1", rows_of(tmp_path))
    times = {name: cells(text, name)[10] for name in ("direct", "self-cascade-paper", "self-cascade-rgb")}
    assert times == {
        "direct": "2 s (1.00x)<br>*1x*",
        "self-cascade-paper": "3 s (1.50x)<br>*1.04x*",
        "self-cascade-rgb": "-",
    }
    write_result(results / "self-cascade-rgb/seed-1", "table1", 0.1, **own, seconds_per_base_sample=1.0)
    assert cells(table("table1", rows_of(tmp_path)), "self-cascade-rgb")[10] == "3 s (1.50x)"


def test_the_base_samples_seconds_of_older_results_are_read_by_their_old_name(tmp_path: Path) -> None:
    own = {"sampling": {"method": "self-cascade"}, "seconds_per_picture": 3.0, "of_them_for_the_base_sample": 1.0}
    result = read_result(write_result(tmp_path / "direct/seed-0", "table1", 0.1, **own))
    assert result["seconds_per_base_sample"] == 1.0 and "of_them_for_the_base_sample" not in result


def test_a_result_without_seconds_has_a_dash(tmp_path: Path) -> None:
    path = write_result(tmp_path / "table1/results/direct/seed-0", "table1", 0.1)
    held = json.loads(path.read_text())
    del held["seconds_per_picture"]
    path.write_text(json.dumps(held))
    assert cells(table("table1", rows_of(tmp_path)), "direct")[10] == "-<br>*1x*"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"experiment": ', "cannot be read: Expecting value"),
        ("[]", "must hold a JSON object, not a list"),
        ("{}", "has no usable experiment, sampling, step, pictures, trained_parameters"),
        (
            '{"experiment": "direct", "sampling": {}, "step": 0, "clips": 4, "trained_parameters": 0}',
            "has no usable name in sampling",
        ),
    ],
)
def test_a_damaged_result_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = write_result(tmp_path / "training-curves/results/full-ft/seed-0", "direct", 0.1)
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_tables(tmp_path, read_config(tmp_path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("[]", "must hold a JSON object, not a list"),
        ("{}", "cannot be read: costs have no rows, steps, guidance_scale"),
        (json.dumps({**BENCHMARK, "rows": [COST]}), "cannot be read: costs have no method"),
    ],
)
def test_damaged_costs_are_named(text: str, message: str, tmp_path: Path) -> None:
    write_result(tmp_path / "table1/results/direct/seed-0", "table1", 0.1)
    path = tmp_path / "methods.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        write_report(tmp_path, tmp_path / "out", path)
    assert str(path) in str(caught.value)


def test_costs_without_those_of_direct_inference_are_shown_alone() -> None:
    own = {**COST, "method": "lanczos", "tflops": 2.0, "peak_bytes": 2**20, "seconds": [3.0]}
    text = Costs({**BENCHMARK, "rows": [own]}).table(4)
    assert text.splitlines()[-1] == "| lanczos | - | - | 2 | - | 1 | 3.00 | - |"


def test_a_share_of_all_or_no_clips_has_an_interval() -> None:
    result = {"sampling": {}, "pictures": 20, "clips": 20, "motion": [1.0, 1.0, 1.0]}
    none = {**result, "seed": 1, "motion": [0.0, 0.0, 0.0]}
    lines = seeds_table([Row("direct", [result, none])]).splitlines()
    assert lines[-2].startswith("| direct | 0 | 20 | 100 (84 to 100) |")
    assert lines[-1].startswith("| direct | 1 | 20 | 0 (0 to 16) |")


def test_worlds_pair_suites_that_exist(tmp_path: Path) -> None:
    (tmp_path / "table1").mkdir()
    (tmp_path / "report.json").write_text(json.dumps({"worlds": {"table1": "colages-4x"}}))
    with pytest.raises(ValueError, match=r"worlds in .*report\.json must pair suites in .*, and has colages-4x"):
        read_config(tmp_path)
    (tmp_path / "colages-4x").mkdir()
    assert read_config(tmp_path).worlds == {"table1": "colages-4x"}


def test_large_pictures_are_made_to_fit_into_sheets_and_grids(tmp_path: Path) -> None:
    prompts = PromptSet(tuple(f"a cat\nnumber\u2028{number}" for number in range(12)), 0)
    made = torch.linspace(0, 1, 12)[:, None, None, None].expand(12, 3, 8, 1400)
    write_sheet(tmp_path / "sheet.webp", made, prompts, 8.0)
    row = Row("direct", [{"sampling": {}, "pictures": 12}], tmp_path / "sheet.webp")
    (found,) = shown([row])
    assert found.captions == [f"a cat number {number}" for number in range(12)]
    assert {picture.size for picture in found.pictures} == {(1365, 7)}
    levels = [np.asarray(picture).mean() / 255 for picture in found.pictures]
    assert levels == pytest.approx(np.linspace(0, 1, 12), abs=0.02)
    assert shown_size(found) == (512, 3)
    assert grid([found] * 3, range(4)).width == 150 + 4 * (512 + 4)
    (tmp_path / "sheet.txt").write_text("one\n" * 11)
    with pytest.raises(ValueError, match="is 16380 pixels wide, no multiple of its 11 captions"):
        shown([row])


def test_a_result_that_names_no_model_has_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange.safetensors").write_bytes(b"no weights")
    monkeypatch.chdir(tmp_path)
    assert weight_files("", None, None) == weight_files("", "", "", "") == {}
