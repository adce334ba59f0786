"""The plots of quality over training: of which results, with which labels, and none where there is no curve."""

import json
from pathlib import Path
from typing import Any

import pytest

from report_files import write_result
from selfcascade.report import plots, write_report


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The plots that are drawn, none of them written."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.append(figure))
    return drawn


def trained(folder: Path, counts: tuple[int, ...], steps: tuple[int, ...] = (100, 400), **more: Any) -> list[Any]:
    paths = [
        write_result(folder / "full-ft/seed-0", "direct", 0.2, step, pictures=count, **more)
        for step in steps
        for count in counts
    ]
    return [json.loads(path.read_text()) for path in paths]


def test_the_curve_is_of_as_many_pictures_as_most_results_have(tmp_path: Path, figures: list[Any]) -> None:
    found = trained(tmp_path, (60,)) + trained(tmp_path, (300,), (400,))
    how = {"pivot_step": [700, 400], "upsampling": "latent-bilinear"}
    free = [
        json.loads(write_result(tmp_path / "free/seed-0", "K", right, 0, how, pictures=count).read_text())
        for count, right in ((100, 0.9), (60, 0.4))
    ]
    assert plots.quality_against_training(found, free, tmp_path / "plot.webp")
    axes = figures[0].axes
    curve, across = axes[0].lines
    assert list(curve.get_xdata()) == [100, 400] and list(across.get_ydata()) == [40.0, 40.0]
    assert list(axes[1].lines[0].get_xdata()) == [50.0, 200.0]
    words = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert words == ["full-ft, direct", "tuning-free, K = 700, 400, latent-bilinear"]
    assert [axis.get_xlabel() for axis in axes] == ["", "", "training steps", "training seconds"]


def test_the_curve_says_how_many_pictures_a_step_has_where_results_do(tmp_path: Path, figures: list[Any]) -> None:
    def label(*batches: dict[str, Any]) -> str:
        found: list[Any] = []
        for number, training in enumerate(batches):
            found += trained(tmp_path / str(number), (60,), settings={"training": training})
        assert plots.quality_against_training(found, [], tmp_path / "plot.webp")
        return figures[-1].axes[2].get_xlabel()

    assert label({"train_batch_size": 6}) == "training steps of 6 pictures"
    assert label({"train_batch_size": 6, "gradient_accumulation_steps": 2}) == "training steps of 12 pictures"
    assert label({"train_batch_size": 6}, {"train_batch_size": 8}) == "training steps"
    assert label({"train_batch_size": 6}, {}) == "training steps"


def test_results_without_composition_have_a_curve_of_patches_alone(tmp_path: Path, figures: list[Any]) -> None:
    found = [{key: value for key, value in row.items() if key != "composition"} for row in trained(tmp_path, (60,))]
    assert plots.quality_against_training(found, [], tmp_path / "plot.webp")
    assert [axis.get_ylabel() for axis in figures[0].axes] == ["pFID_r", ""]


def test_no_empty_plot_of_training_is_embedded(tmp_path: Path) -> None:
    root = tmp_path / "experiments"
    trained(root / "training-curves/results", (100,), (400,))
    names = {path.name for path in write_report(root, tmp_path / "out")}
    assert names == {"README.md"} and "training-curves.webp" not in (tmp_path / "out/README.md").read_text()
    trained(root / "training-curves/results", (60,))
    names = {path.name for path in write_report(root, tmp_path / "out")}
    assert names == {"README.md", "training-curves.webp"}
