"""Reads result files into rows: a method of a suite with each seed's result; some are borrowed from other suites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor, log10
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from selfcascade.evaluation.per_picture import PerPicture, read_record, record_of
from selfcascade.options.json_files import read_object
from selfcascade.report.paper import by_title, paper_rows, place

Figure = Callable[[dict[str, Any]], float]  # one number of a result; raises KeyError if it was not measured
Reached = tuple[int, int]  # a training step, and how many pictures were measured there

MOST_DECIMALS = 4
NEEDED = {"experiment": str, "sampling": dict, "step": int, "pictures": int, "trained_parameters": int}


class Borrowed(BaseModel):
    """A row of a table that another suite measured.

    Raises:
        ValueError: A setting is unknown or of the wrong type (pydantic's `ValidationError` is one).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    experiment: str
    sampling: str
    step: int
    pictures: int


class Statement(BaseModel):
    """Two rows that the report's first page compares.

    Raises:
        ValueError: As in `Borrowed`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str  # "SUITE/SPLIT"
    first: str
    second: str
    figure: str  # by its name in results


class ReportConfig(BaseModel):
    """The report's settings, `report.json` next to the suites: what the results themselves do not tell.

    Raises:
        ValueError: A setting is unknown or of the wrong type (pydantic's `ValidationError` is one).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    borrowed: dict[str, dict[str, Borrowed]] = {}  # table: name of the row in it: where its results are
    titles: dict[str, str] = {}  # of tables that no suite has
    training_steps: dict[str, int] = {}  # of weights that ship with the package, by row
    statements: tuple[Statement, ...] = ()
    worlds: dict[str, str] = {}  # suite: the suite that has the same rows in another world
    page: tuple[str, ...] = ()  # suites whose pictures are shown; all unless given


@dataclass
class Row:
    """One method in one table.

    Attributes:
        method: Name in the results. If an experiment is sampled in several ways, theirs follow after a comma, unless it
            is the one that most of the suite's experiments have.
        results: One a seed.
        sheet: The first pictures, or clips, of the first seed side by side, a WebP with a text file of captions.
        steps: Steps of the training; 0: none.
        borrowed: Whether another suite measured it.
        records: What is kept of each sample, as many as results; none where any of them has none.
    """

    method: str
    results: list[dict[str, Any]] = field(default_factory=list)
    sheet: Path | None = None
    steps: int = 0
    borrowed: bool = False
    records: list[PerPicture] = field(default_factory=list)

    def values(self, reading: Figure) -> list[float]:
        """The figure of each seed that has it."""
        found = []
        for result in self.results:
            try:
                found.append(float(reading(result)))
            except KeyError:  # measured before the figure existed
                continue
        return found

    def figure(self, reading: Figure, digits: int = 3) -> str:
        """Mean over the seeds, with the standard deviation if there are several; "-" if no seed has the figure."""
        values = self.values(reading)
        if not values:
            return "-"
        decimals = decimals_of(mean(values), digits)
        spread = f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else ""
        missing = f" ({len(values)} of {len(self.results)} seeds)" if len(values) < len(self.results) else ""
        return f"{mean(values):.{decimals}f}{spread}{missing}"

    @property
    def clips(self) -> bool:
        """Whether the samples are clips."""
        return bool(self.results) and "clips" in self.results[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures; zeros if the results do not tell."""
        sampling = self.results[0]["sampling"]
        return sampling.get("height") or 0, sampling.get("width") or 0


def decimals_of(value: float, digits: int = 3) -> int:
    """Decimal places that show this many digits of a value, at most four."""
    return min(MOST_DECIMALS, max(0, digits - 1 - floor(log10(abs(value))))) if value else 0


def read_config(experiments: Path) -> ReportConfig:
    """Reads the settings from `report.json` in the folder of suites; defaults if there is none.

    Raises:
        ValueError: The file cannot be read, or pairs suites that do not exist.
    """
    path = experiments / "report.json"
    try:
        settings = ReportConfig(**read_object(path, "settings")) if path.is_file() else ReportConfig()
    except (ValidationError, TypeError) as error:
        raise ValueError(f"settings {path} cannot be read: {error}") from error
    unknown = [suite for pair in settings.worlds.items() for suite in pair if not (experiments / suite).is_dir()]
    if unknown:
        raise ValueError(f"worlds in {path} must pair suites in {experiments}, and has {', '.join(unknown)}")
    return settings


def read_tables(experiments: Path, settings: ReportConfig, may_lack: bool = False) -> dict[str, list[Row]]:
    """The rows of every table with results, tables and rows in the order in which they are shown.

    A table has a suite's rows and rows borrowed from others, or only borrowed ones. The rows of the paper's tables are
    those on test captions, if there are any.

    Args:
        experiments, settings: The folder of suites, and its settings.
        may_lack: Whether there may be none.

    Raises:
        ValueError: There are no results, a result cannot be read, or a borrowed row has an unknown suite or the name of
            an existing row.
    """
    suites = {path.parent.name for path in experiments.glob("*/results")}
    tables = {suite: _own_rows(experiments / suite, settings) for suite in suites}
    tested = {path.parent for path in experiments.glob("*/test") if _is_shown(path.parent.name, settings)}
    tables |= {suite.name: rows for suite in tested if (rows := _own_rows(suite, settings, "test"))}
    for table, borrowed in settings.borrowed.items():
        rows = tables.setdefault(table, [])
        for name, source in borrowed.items():
            row = _borrowed_row(experiments, name, source)
            if row is None:
                continue
            if name in {own.method for own in rows}:
                raise ValueError(f"row {name!r} of {table} has results of its own; take it out of report.json")
            rows.append(row)
    shown = {table: tables[table] for table in by_title(list(tables)) if tables[table]}
    for rows in shown.values():
        rows.sort(key=lambda row: place(row.method))
    if not shown and not may_lack:
        raise ValueError(f"experiments {str(experiments)!r} hold no results; make them with `selfcascade evaluate`")
    return shown


def _is_shown(suite: str, settings: ReportConfig) -> bool:
    """Whether results on test captions stand among the tables too, with their pictures."""
    return bool(paper_rows(suite)) or suite in settings.page


def read_splits(experiments: Path, settings: ReportConfig) -> dict[str, list[Row]]:
    """The rows of every suite on each set of captions, by "SUITE/SPLIT".

    Raises:
        ValueError: A result or record cannot be read.
    """
    found: dict[str, list[Row]] = {}
    for split in ("test", "validation", "tuning"):
        for suite in by_title([path.parent.name for path in experiments.glob(f"*/{split}") if path.is_dir()]):
            rows = _own_rows(experiments / suite, settings, split)
            if rows:
                found[f"{suite}/{split}"] = sorted(rows, key=lambda row: place(row.method))
    return found


def _own_rows(suite: Path, settings: ReportConfig, place: str = "results") -> list[Row]:
    """Each experiment's and sampling's results after as many training steps, of as many pictures, as most seeds have.

    Those that most seeds have are chosen, then the last step, then the most pictures. So a mean never joins seeds that
    trained unequally long. On a set of captions, other steps have rows of their own.
    """
    found: dict[tuple[str, str], dict[Reached, list[tuple[Path, dict[str, Any]]]]] = {}
    for path in sorted((suite / place).glob("*/seed-*/*.json")):
        result = read_result(path)
        own = found.setdefault((path.parts[-3], result["sampling"]["name"]), {})
        own.setdefault((result["step"], result["pictures"]), []).append((path, result))
    samplings = Counter(experiment for experiment, _ in found)
    alone = Counter(name for experiment, name in found if samplings[experiment] == 1)
    usual = max(alone, key=lambda name: (alone[name], name), default=None)
    rows = []
    for (experiment, name), own in found.items():
        method = experiment if samplings[experiment] == 1 or name == usual else f"{experiment}, {name}"
        last, *others = _shown_steps(own)
        rows.append(_row_of(method, own[last]))
        rows[-1].steps = last[0] or settings.training_steps.get(experiment, 0)
        if place != "results":
            rows += [_row_of(f"{method}, {reached[0]} steps", own[reached]) for reached in others]
    return rows


def _shown_steps(measured: dict[Reached, list[Any]]) -> list[Reached]:
    """What most seeds have measured at each step; first the step that most have, and the last of these."""
    shown: dict[int, Reached] = {}
    for reached in sorted(measured, key=lambda reached: (len(measured[reached]), *reached), reverse=True):
        shown.setdefault(reached[0], reached)
    return list(shown.values())


def _row_of(method: str, measured: list[tuple[Path, dict[str, Any]]]) -> Row:
    """The row of a method with these results, one a seed."""
    row = Row(method)
    for path, result in measured:
        row.results.append(result)
        row.steps = result["step"]
        row.sheet = row.sheet or _sheet(path.parent, result["sampling"]["name"], result["step"])
    kept = [record_of(path) for path, _ in measured]
    if all(path.is_file() for path in kept):
        row.records = [read_record(path) for path in kept]
    return row


def _borrowed_row(experiments: Path, name: str, source: Borrowed) -> Row | None:
    """The row; None if it has no results yet."""
    if not (experiments / source.suite).is_dir():
        raise ValueError(f"row {name!r} is borrowed from suite {source.suite!r}, which is not in {experiments}")
    folders = (experiments / source.suite / "results" / source.experiment).glob("seed-*")
    row = Row(name, steps=source.step, borrowed=True)
    for folder in sorted(folders):
        path = folder / f"{source.sampling}-step{source.step:06d}-n{source.pictures}.json"
        if path.exists():
            row.results.append(read_result(path))
            row.sheet = row.sheet or _sheet(folder, source.sampling, source.step)
    return row if row.results else None


def read_result(path: Path) -> dict[str, Any]:
    """Reads a result; the number of clips is under "pictures" too.

    Raises:
        ValueError: The file is damaged, or is not a result.
    """
    found = read_object(path, "result")
    result = {"pictures": found.get("clips"), **found}
    if "of_them_for_the_base_sample" in found:  # its name up to version 0.1
        result["seconds_per_base_sample"] = result.pop("of_them_for_the_base_sample")
    lacking = [name for name, kind in NEEDED.items() if not isinstance(result.get(name), kind)]
    if lacking or "name" not in result["sampling"]:
        raise ValueError(f"result {path} has no usable {', '.join(lacking or ['name in sampling'])}; make it again")
    return result


def _sheet(folder: Path, name: str, step: int) -> Path | None:
    path = folder / f"{name}-step{step:06d}.webp"
    return path if path.exists() and path.with_suffix(".txt").exists() else None


def seed_of(sheet: Path) -> int:
    """The seed in the name of a sheet's folder."""
    found = re.fullmatch(r"seed-(\d+)", sheet.parent.name)
    return int(found[1]) if found else 0
