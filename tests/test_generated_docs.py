"""What scripts write into the documentation from committed results is what they would write now."""

import importlib
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from selfcascade import SelfCascade
from selfcascade.base_models import FAMILIES, UNSERVED

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("attention", "seams", "flops", "costs", "turns", "seconds", "training", "methods")


def script(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module(name)


def test_the_tables_of_feature_upsamplers_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = script("experiments", "curves", monkeypatch)
    page, blocks = (ROOT / "docs/upsamplers.md").read_text(), curves.blocks()
    assert len(blocks) == page.count("<!-- /") == 6
    stale = [mark for mark, text in blocks.items() if curves.between(page, mark, text) != page]
    assert not stale, "docs/upsamplers.md: run python experiments/curves.py"


def test_the_tables_of_levers_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch, bundled_pipe: Any) -> None:
    levers = script("experiments", "levers", monkeypatch)
    page = (ROOT / "docs/presets.md").read_text()
    assert levers.written(page, SelfCascade(bundled_pipe)) == page, "docs/presets.md: run python experiments/levers.py"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_pages_of_benchmarks_are_those_of_their_measurements(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = json.loads((ROOT / f"benchmarks/{name}.json").read_text())
    written = script("benchmarks", name, monkeypatch).report(measured)
    assert written == (ROOT / f"benchmarks/{name}.md").read_text(), f"run python benchmarks/{name}.py"


def test_the_reference_of_options_is_that_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    written = script("docs", "write_options", monkeypatch).page()
    assert written == (ROOT / "docs/options.md").read_text(), "run python docs/write_options.py"


def test_the_table_of_rooms_is_that_of_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    written = script("docs", "architecture", monkeypatch).with_table(page)
    assert written == page, "docs/architecture.md: run python docs/architecture.py"


def test_the_table_of_pipelines_is_that_of_the_families(monkeypatch: pytest.MonkeyPatch) -> None:
    written = script("docs", "families", monkeypatch).page()
    assert written == (ROOT / "docs/families.md").read_text(), "docs/families.md: run python docs/families.py"


def test_every_pipeline_of_prompts_is_served_or_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    families = script("docs", "families", monkeypatch)
    served = {name for family in FAMILIES for name in family.classes}
    assert not served & UNSERVED.keys()
    assert {*families.IMAGES, *families.CLIPS} <= served | UNSERVED.keys()
    assert all("; use " in why for why in UNSERVED.values())


def test_each_family_with_a_table_of_positions_says_how_far_it_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    families = script("docs", "families", monkeypatch)
    assert {family.__name__ for family in FAMILIES if families.reads_positions(family)} == families.POSITIONS.keys()


@pytest.mark.slow
def test_the_list_of_pipelines_that_make_clips_is_that_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    families = script("docs", "families", monkeypatch)
    assert families.text_to_video() == families.CLIPS


def test_an_unserved_pipeline_is_refused_with_its_reason() -> None:
    pipe = object.__new__(diffusers.IFPipeline)
    with pytest.raises(ValueError, match=r"IFPipeline is not supported as a base model: it works on pixels"):
        SelfCascade(pipe)


def test_the_table_of_plans_and_runs_is_that_of_the_results_and_plans_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = script("benchmarks", "planner", monkeypatch)
    page, results = planner.PAGE.read_text(), json.loads((ROOT / "benchmarks/planner.json").read_text())
    assert list(results["cases"]) == list(planner.CASES)
    assert planner.with_table(page, planner.table(results)) == page, "docs/memory.md: run python benchmarks/planner.py"
    for row in results["cases"].values():
        plan, run, other = (row[part] for part in planner.PARTS)
        taken = min(sum(run["seconds"]), sum(other["seconds"]))
        assert sum(plan["seconds"]) == pytest.approx(taken, rel=0.3)
        assert plan["memory"] == pytest.approx(run["memory"], rel=0.15)
