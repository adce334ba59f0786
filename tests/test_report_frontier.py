"""The report's plot of quality beside cost: whose cost is known, and which methods none beats."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_files import write_result
from selfcascade.report.frontier import Point, frontier, points_of, quality_beside_cost
from selfcascade.report.results import ReportConfig, read_tables
from selfcascade.report.tables import Costs

VALUES = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=12))
def test_the_frontier_is_of_those_that_none_beats(pairs: list[tuple[float, float]]) -> None:
    points = [Point(str(number), *pair) for number, pair in enumerate(pairs)]
    best = frontier(points)

    def beats(one: Point, other: Point) -> bool:
        no_worse = one.tflops <= other.tflops and one.patch_kid <= other.patch_kid
        return no_worse and (one.tflops, one.patch_kid) != (other.tflops, other.patch_kid)

    expected = {(p.tflops, p.patch_kid) for p in points if not any(beats(other, p) for other in points)}
    assert [(p.tflops, p.patch_kid) for p in best] == sorted(expected)


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    """Four methods: two state their cost, one has a cost counted apart, one was sampled with other steps."""
    place = tmp_path / "suite" / "results"
    size = {"height": 128, "width": 128}
    for name, kid, more in (
        ("a", 0.5, {"tflops_per_sample": 1.0}),
        ("b", 0.2, {"tflops_per_sample": 3.0}),
        ("c", 0.4, {"tflops_per_sample": None}),
        ("d", 0.1, {}),
    ):
        steps = 50 if name == "d" else 25
        write_result(
            place / name / "seed-0", "4x", 0.9, sampling={**size, "num_inference_steps": steps}, patch_kid=[kid], **more
        )
    return read_tables(tmp_path, ReportConfig())


COUNTED = {
    "steps": 25,
    "guidance_scale": 3.0,
    "rows": [
        {"size": [128, 128], "pixels": 4, "method": name, "trained_parameters": 0, "tflops": 2.0} for name in "abcd"
    ],
}


def test_a_stated_cost_comes_first_and_a_counted_one_is_of_as_many_steps(tables: Any, tmp_path: Path) -> None:
    found = points_of(tables, Costs(COUNTED))
    assert found == {"suite, 128x128": [Point("a", 1.0, 0.5), Point("b", 3.0, 0.2), Point("c", 2.0, 0.4)]}
    lines = quality_beside_cost(tables, Costs(COUNTED), tmp_path / "plot.webp")
    assert "| suite, 128x128 | `a`, `c`, `b` |" in lines[3] and (tmp_path / "plot.webp").is_file()


def test_without_enough_methods_there_is_no_section(tables: Any, tmp_path: Path) -> None:
    assert quality_beside_cost(tables, None, tmp_path / "plot.webp") == []
    assert not (tmp_path / "plot.webp").exists()
