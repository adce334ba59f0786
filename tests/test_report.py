"""The report: tables, pictures read for what is wrong, plots and the page, from result files alone."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run
from report_files import SIDE, cells, write_result, write_sheet
from selfcascade.report import write_report
from selfcascade.report.comparisons import Rows
from selfcascade.report.pictures import LABEL, grid, hardest, shown
from selfcascade.report.results import (
    ReportConfig,
    Row,
    decimals_of,
    read_config,
    read_result,
    read_splits,
    read_tables,
)
from selfcascade.report.tables import wilson

COMMITTED = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """Two methods of Table 1 with pictures, and a training that lends it a row."""
    root = tmp_path / "experiments"
    fid_b = {"fid_b": [3.0, 2.0, 4.0], "repetition": {"share_over_real": 0.5}, "detail": [0.9]}
    write_sheet(write_result(root / "table1/results/direct/seed-0", "table1", 0.1, **fid_b), [1, 2, 0])
    write_result(root / "table1/results/direct/seed-1", "table1", 0.3, **fid_b)
    paper = write_result(root / "table1/results/self-cascade-paper/seed-0", "table1", 0.5, seconds_per_picture=1.0)
    write_sheet(paper, [0, 1, 2])
    for seed, more in ((0, {}), (1, fid_b)):
        for step in (100, 400):
            write_result(
                root / f"training-curves/results/full-ft/seed-{seed}", "direct", 0.2 + 0.1 * seed, step, **more
            )
    borrowed = {"suite": "training-curves", "experiment": "full-ft", "sampling": "direct", "step": 400, "pictures": 100}
    absent = {**borrowed, "experiment": "lora-r4"}
    borrowed = {
        "table1": {"full-ft": borrowed, "lora-r4": absent},
        "table1-equal-steps": {"full-ft": {**borrowed, "step": 100}},
    }
    (root / "report.json").write_text(json.dumps({"borrowed": borrowed, "titles": {"table1-equal-steps": "Equal"}}))
    return root


def test_rows_stand_in_the_papers_order_with_its_figures_under_ours(experiments: Path, tmp_path: Path) -> None:
    (experiments / "findings.md").write_text("## Findings\n\nDirect inference *repeats*.\n")
    write_report(experiments, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "## Findings\n\nDirect inference *repeats*.\n" in text
    assert "## Equal\n" in text and text.index("Table 1)") < text.index("## Equal") < text.index("Figure 5)")
    assert cells(text[text.index("## Equal") :], "full-ft")[2] == "100<br>*18k*"
    names = [row.method for row in read_tables(experiments, read_config(experiments))["table1"]]
    assert names == ["direct", "self-cascade-paper", "full-ft"]
    direct, ours, trained = (cells(text, name) for name in names)
    assert direct[:5] == ["direct", "-", "-", "100 x 2", "4.00 ± 0.00<br>*29.89*"]
    assert direct[5:8] == ["0.0012 ± 0.0000<br>*0.01*", "12.3 ± 0.0<br>*20.88*", "0.100 ± 0.000<br>*0.007*"]
    assert direct[8:11] == ["3.00 ± 0.00<br>*24.21*", "-<br>*0.007*", "2 s (1.00x)<br>*1x*"]
    assert direct[11:] == ["20.0 ± 14.1", "50.0 ± 0.0", "0.900 ± 0.000"]
    assert ours[8] == "-<br>*6.09*" and ours[10:] == ["1 s (0.50x)<br>*1.04x*", "50.0", "-", "-"]
    assert trained[:4] == ["full-ft", "7", "400<br>*18k*", "100 x 2"]
    assert trained[8] == "3.00 (1 of 2 seeds)<br>*17.14*" and trained[10] == "2 s<br>*1x*"
    assert "| direct | 1 | 100 | 30 (22 to 40) | 4.00 (3.00 to 5.00) |" in text


def test_rows_of_fewer_pictures_are_pointed_out(experiments: Path, tmp_path: Path) -> None:
    write_report(experiments, tmp_path / "out")
    assert "pictures a seed:" not in (tmp_path / "out/README.md").read_text()
    write_result(experiments / "table1/results/lanczos/seed-0", "table1", 0.2, pictures=60)
    write_report(experiments, tmp_path / "out")
    assert "60 and 100 pictures a seed: Fréchet" in (tmp_path / "out/README.md").read_text()


def test_seeds_that_trained_unequally_long_are_not_averaged(experiments: Path) -> None:
    folder = experiments / "training-curves/results/full-ft"
    write_result(folder / "seed-0", "direct", 0.9, 1000)
    write_result(folder / "seed-2", "direct", 0.6, 100)
    (row,) = read_tables(experiments, read_config(experiments))["training-curves"]
    assert (row.steps, [result["seed"] for result in row.results]) == (100, [0, 1, 2])
    assert {result["step"] for result in row.results} == {100}
    write_result(folder / "seed-2", "direct", 0.6, 400)
    (row,) = read_tables(experiments, read_config(experiments))["training-curves"]
    assert row.steps == 400 and {result["step"] for result in row.results} == {400}


def test_earlier_steps_have_rows_of_their_own_on_sets_of_captions(experiments: Path) -> None:
    for seed, steps in ((0, (0, 400, 1000)), (1, (400, 1000))):
        for step in steps:
            write_result(experiments / f"table1/test/full-ft/seed-{seed}", "4x", step / 2000, step)
    write_result(experiments / "table1/test/full-ft/seed-0", "4x", 0.9, 400, pictures=40)
    rows = read_splits(experiments, ReportConfig())["table1/test"]
    found = {row.method: (row.steps, [result["composition"]["all"] for result in row.results]) for row in rows}
    assert found == {
        "full-ft": (1000, [0.5, 0.5]), "full-ft, 400 steps": (400, [0.2, 0.2]), "full-ft, 0 steps": (0, [0.0]),
    }  # fmt: skip


def test_a_row_cannot_be_borrowed_twice_nor_from_nowhere(experiments: Path) -> None:
    write_result(experiments / "table1/results/full-ft/seed-0", "table1", 0.2, 400)
    with pytest.raises(ValueError, match=r"'full-ft' of table1 has results of its own"):
        read_tables(experiments, read_config(experiments))
    path = experiments / "report.json"
    path.write_text(path.read_text().replace("training-curves", "nowhere"))
    with pytest.raises(ValueError, match=r"suite 'nowhere', which is not in"):
        read_tables(experiments, read_config(experiments))
    path.write_text('{"borrowd": {}}')
    with pytest.raises(ValueError, match="borrowd"):
        read_config(experiments)
    assert "hold no results" in run("report", str(experiments / "table1"), "--output", str(experiments / "out")).stderr


def test_every_committed_result_and_setting_is_read() -> None:
    found = [read_result(path) for path in COMMITTED.glob("*/*/*/seed-*/*.json")]
    assert len(found) >= 150 and all(result["pictures"] > 0 for result in found)
    rows = [row for table in read_tables(COMMITTED, read_config(COMMITTED)).values() for row in table]
    assert all(row.results for row in rows)


def test_the_committed_statements_are_of_rows_that_are_there() -> None:
    settings = read_config(COMMITTED)
    tables = {name: Rows.of(rows) for name, rows in read_splits(COMMITTED, settings).items()}
    assert len(settings.statements) >= 10
    for one in settings.statements:
        rows = tables[one.table]
        assert not rows.missing(one.first, one.second, rows.beside(one.first, "real")), one
    for suite in settings.page:
        assert (COMMITTED / suite).is_dir()


def test_pictures_are_read_for_what_is_wrong_in_them(experiments: Path) -> None:
    moved, right = shown(read_tables(experiments, read_config(experiments))["table1"][:2])
    assert right.wrong == [[], [], []]
    assert moved.wrong is not None and all(moved.wrong)
    assert any(" for " in words for words in moved.wrong[0])
    assert [picture.size for picture in moved.pictures] == [(SIDE, SIDE)] * 3
    order = hardest([moved, right])
    counts = [len(moved.wrong[index]) for index in order]
    assert sorted(order) == [0, 1, 2] and counts == sorted(counts, reverse=True)
    drawn = np.asarray(grid([moved, right], [2, 0]))
    tile = np.asarray(right.pictures[2])
    places = [x for x in range(drawn.shape[1] - SIDE) if np.array_equal(drawn[-SIDE - 20 : -20, x : x + SIDE], tile)]
    assert places == [LABEL]  # the second method's third caption, in its own pixels, in the first column


@pytest.mark.parametrize("suite", ["table1", "table2"])
def test_pictures_of_a_set_of_captions_are_read_too(suite: str) -> None:
    rows = read_splits(COMMITTED, read_config(COMMITTED))[f"{suite}/test"]
    (quality,) = shown([row for row in rows if row.method == "self-cascade-quality"])
    (direct,) = shown([row for row in rows if row.method == "direct"])
    assert quality.wrong is not None and direct.wrong is not None
    assert sum(map(bool, quality.wrong)) < sum(map(bool, direct.wrong))


def test_the_report_says_which_model_and_data_it_is_about(experiments: Path, tmp_path: Path) -> None:
    write_report(experiments, tmp_path / "ours")
    assert "Ours are for the bundled model on procedural scenes." in (tmp_path / "ours/README.md").read_text()
    for path in experiments.glob("*/results/*/*/*.json"):
        result = json.loads(path.read_text())
        settings = {**result.get("settings", {}), "model": "owner/other", "data": "photographs"}
        path.write_text(json.dumps({**result, "settings": settings}))
    write_report(experiments, tmp_path / "theirs")
    assert "Ours are for owner/other on photographs." in (tmp_path / "theirs/README.md").read_text()


def test_other_captions_than_those_of_scenes_are_not_judged(experiments: Path) -> None:
    (sheet,) = experiments.glob("table1/results/direct/seed-0/*.txt")
    sheet.write_text("a dog\na cat\na cow\n")
    assert shown([Row("direct", sheet=sheet.with_suffix(".webp"))])[0].wrong is None


def test_the_page_holds_every_picture_and_asks_for_nothing(experiments: Path, tmp_path: Path) -> None:
    write_report(experiments, tmp_path / "out")
    text = (tmp_path / "out/index.html").read_text()
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", text.split("<script type", 1)[0])
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    (section,) = json.loads(found[1])["sections"]
    assert [method["name"] for method in section["methods"]] == ["direct", "self-cascade-paper"]
    assert len(section["captions"]) == 3 and len(section["hardest"]) == 3
    direct = section["methods"][0]
    assert direct["figures"] == ["all right 20 %", "pFID_r 12", "FID_b 3.0"]
    for method in section["methods"]:
        for picture in method["pictures"]:
            assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (SIDE, SIDE)


def test_the_same_files_make_the_same_report(experiments: Path, tmp_path: Path) -> None:
    costs = tmp_path / "methods.json"
    row = {"size": [128, 128], "pixels": 4, "trained_parameters": 0, "peak_bytes": 2**20, "unet_passes": {"128": 25}}
    rows = [{**row, "method": "direct", "tflops": 2.0, "seconds": [4.0, 3.0, 9.0]}]
    rows += [{**row, "method": "self-cascade-paper", "tflops": 1.0, "seconds": [2.0]}]
    costs.write_text(json.dumps({"rows": rows, "steps": 25, "guidance_scale": 3.0}))
    names = [[path.name for path in write_report(experiments, tmp_path / out, costs)] for out in ("one", "two")]
    assert names[0] == names[1] and {"training-curves.webp", "quality-against-cost.webp"} <= set(names[0])
    for name in names[0]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one/README.md").read_text()
    assert cells(text, "self-cascade-paper")[10] == "2 s (0.50x)<br>*1.04x*"  # the benchmark's, not the results'
    assert "| self-cascade-paper | - | 128: 25 | 1 | 0.50x | 1 | 2.00 | 0.50x |" in text
    assert all(f"]({name})" in text for name in names[0] if name.endswith(".webp"))
    with pytest.raises(ValueError, match="is not a file"):
        write_report(experiments, tmp_path / "one", tmp_path / "absent.json")


def test_numbers_show_as_many_digits_as_they_mean() -> None:
    assert [decimals_of(value) for value in (0, 123.4, 12.34, 1.234, -0.1234, 0.00001)] == [0, 0, 1, 2, 3, 4]
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
