"""Makes Markdown tables of rows: ours next to the paper's, each seed with its interval, and each method's cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from selfcascade.methods import METHODS
from selfcascade.metrics.registry import CLIP_METRICS, IMAGE_METRICS, Metric
from selfcascade.options.json_files import read_object
from selfcascade.report.paper import PaperRow, distance_columns, paper_rows
from selfcascade.report.results import Figure, Row, decimals_of


def _beside(metrics: Mapping[str, Metric]) -> dict[str, Figure]:
    """Figures in the tables other than distances, by column."""
    return {
        metric.column: lambda result, name=name, value=metric.value: value(result[name])
        for name, metric in metrics.items()
        if metric.column and not metric.is_distance
    }


BESIDE, CLIPS_BESIDE = _beside(IMAGE_METRICS), _beside(CLIP_METRICS)
Z = 1.96  # of a 95 % interval
OF_ALL_COSTS, OF_EACH_COST = ("rows", "steps", "guidance_scale"), ("size", "pixels", "method", "trained_parameters")


class Columns(NamedTuple):
    """Columns of tables for pictures or clips: distances by their names in results, and other figures."""

    unit: str
    distances: dict[str, str]
    beside: dict[str, Figure]


def columns_of(clips: bool) -> Columns:
    """The columns for clips or for pictures: all metrics that have one."""
    metrics = CLIP_METRICS if clips else IMAGE_METRICS
    return Columns("clips" if clips else "pictures", distance_columns(metrics), _beside(metrics))


def table(suite: str, rows: Sequence[Row], costs: Costs | None = None) -> str:
    """A table with the paper's columns and ours; the paper's figures are in italics below ours."""
    paper, columns = paper_rows(suite), columns_of(rows[0].clips)
    head = ["method", "trained parameters", "training steps", columns.unit, *columns.distances.values()]
    head += ["time", *columns.beside]
    direct = next((row for row in rows if row.method == "direct"), None)
    text = markdown(head, [_cells(row, paper.get(row.method), direct, costs) for row in rows])
    counts = sorted({result["pictures"] for row in rows for result in row.results})
    if len(counts) == 1:
        return text
    words = " and ".join(map(str, counts))
    return (
        f"{text}\n\n{words} {columns.unit} a seed: Fréchet distances of fewer are larger, so compare those of as many."
    )


def seeds_table(rows: Sequence[Row]) -> str:
    """A table of each seed: the share that is all right, or moves right, and each distance, with 95 % intervals."""
    columns = columns_of(rows[0].clips)
    head = ["method", "seed", columns.unit, next(iter(columns.beside)), *columns.distances.values()]
    lines = []
    for row in rows:
        for result in sorted(row.results, key=lambda result: result.get("seed", 0)):
            cells = [row.method, str(result.get("seed", 0)), str(result["pictures"]), _right(result)]
            lines.append(cells + [_interval(result.get(name)) for name in columns.distances])
    return markdown(head, lines)


class Costs:
    """The methods' costs on the bundled model, measured by `benchmarks/methods.py`.

    Args:
        measured: The JSON that it wrote.

    Raises:
        ValueError: The JSON lacks a required entry.
    """

    def __init__(self, measured: dict[str, Any]) -> None:
        lacking = [name for name in OF_ALL_COSTS if name not in measured]
        lacking += [name for name in OF_EACH_COST if any(name not in row for row in measured.get("rows", []))]
        if lacking:
            raise ValueError(f"costs have no {', '.join(lacking)}")
        self.measured = measured
        self.rows = {(tuple(row["size"]), row["method"]): row for row in measured["rows"]}

    def tflops(self, row: Row) -> float | None:
        """TFLOPs per picture; None if not counted for this method and size."""
        return self._of(row).get("tflops")

    def seconds(self, row: Row) -> float | None:
        """Median seconds per picture; None if not measured."""
        found = self._of(row).get("seconds")
        return median(found) if found else None

    def ratio(self, method: str, other: str, pixels: int) -> float | None:
        """Median seconds of a method over another's at this multiple of the native pixels; None where not measured."""
        held = {row["method"]: row.get("seconds") for row in self.measured["rows"] if row["pixels"] == pixels}
        own, base = held.get(method), held.get(other)
        return median(own) / median(base) if own and base else None

    def _of(self, row: Row) -> dict[str, Any]:
        return {} if row.clips else self.rows.get((row.size, row.method), {})

    def table(self, pixels: int) -> str:
        """A table of all costs at this multiple of the native pixels."""
        rows = [row for row in self.measured["rows"] if row["pixels"] == pixels]
        direct = next((row for row in rows if row["method"] == "direct"), {})
        head = ["method", "trained parameters", "U-Net passes, by side", "TFLOP", "to direct", "peak memory, MiB"]
        return markdown([*head, "seconds", "to direct"], [_cost_cells(row, direct) for row in rows])

    @property
    def pixels(self) -> list[int]:
        """The measured sizes, as multiples of the native pixels."""
        return sorted({row["pixels"] for row in self.measured["rows"]})


def read_costs(path: Path) -> Costs:
    """Reads the costs from a file.

    Raises:
        ValueError: The file does not exist or cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"costs {str(path)!r} is not a file; `python benchmarks/methods.py` writes it")
    held = read_object(path, "costs")
    try:
        return Costs(held)
    except (ValueError, TypeError) as error:
        raise ValueError(f"costs {path} cannot be read: {error}") from error


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % score interval for a share of `count` samples (Wilson 1927)."""
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _cells(row: Row, paper: PaperRow | None, direct: Row | None, costs: Costs | None) -> list[str]:
    parameters = row.results[0]["trained_parameters"]
    counts = [result["pictures"] for result in row.results]
    pictures = f"{counts[0]} x {len(counts)}" if len(set(counts)) == 1 else " + ".join(map(str, counts))
    theirs, columns = paper or PaperRow({}), columns_of(row.clips)
    cells = [
        row.method,
        f"{parameters:,}" if parameters else "-",
        _ours_and_theirs(f"{row.steps:,}" if row.steps else "-", theirs.steps),
    ]
    cells.append(pictures)
    for name in columns.distances:
        cells.append(_ours_and_theirs(row.figure(_first(name)), theirs.distances.get(name)))
    cells.append(_ours_and_theirs(_time(row, direct, costs), None if theirs.time is None else f"{theirs.time}x"))
    return cells + [row.figure(reading) for reading in columns.beside.values()]


def _first(name: str) -> Figure:
    return lambda result: result[name][0]


def _ours_and_theirs(ours: str, theirs: object) -> str:
    return ours if theirs is None else f"{ours}<br>*{theirs}*"


def _time(row: Row, direct: Row | None, costs: Costs | None) -> str:
    """Seconds per picture and their ratio to direct inference, from the benchmark or from the results themselves."""
    if costs is not None and direct is not None and costs.seconds(direct) is not None:
        own, base = costs.seconds(row), costs.seconds(direct)
    else:
        own = _sampled(row)
        base = None if direct is None or row.borrowed else _sampled(direct)  # another suite's machine load differs
    if own is None:
        return "-"
    return f"{own:.2g} s" + (f" ({own / base:.2f}x)" if base else "")


def _sampled(row: Row) -> float | None:
    """Seconds per picture, including its base sample; None if no result has them."""
    found = row.values(_seconds)
    return mean(found) if found else None


def _seconds(result: dict[str, Any]) -> float:
    """Seconds per picture, as a `Figure`; missing if they do not include those of the base sample."""
    method = METHODS.get(result["sampling"].get("method", ""))
    if method is not None and method.from_base:
        _ = result["seconds_per_base_sample"]
    return result["seconds_per_picture"]


def _right(result: dict[str, Any]) -> str:
    if "motion" in result:
        share = result["motion"][0]  # of clips in which all objects move as asked
    elif "composition" in result:
        share = result["composition"]["all"]
    else:
        return "-"
    low, high = wilson(share, result["pictures"])
    return f"{100 * share:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _interval(estimate: Sequence[float] | None) -> str:
    if estimate is None:
        return "-"
    decimals = decimals_of(estimate[0])
    value, low, high = (f"{number:.{decimals}f}" for number in estimate)
    return f"{value} ({low} to {high})"


def _cost_cells(row: dict[str, Any], direct: dict[str, Any]) -> list[str]:
    passes = ", ".join(f"{side}: {number}" for side, number in row.get("unet_passes", {}).items())
    cells = [row["method"], f"{row['trained_parameters']:,}" if row["trained_parameters"] else "-", passes or "-"]
    cells.append(f"{row['tflops']:.3g}" if "tflops" in row else "-")
    cells.append(_to_direct(row.get("tflops"), direct.get("tflops")))
    cells.append(f"{row['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in row else "-")
    own, base = (median(one["seconds"]) if one.get("seconds") else None for one in (row, direct))
    return [*cells, "-" if own is None else f"{own:.2f}", _to_direct(own, base)]


def _to_direct(own: float | None, direct: float | None) -> str:
    return f"{own / direct:.2f}x" if own is not None and direct else "-"
