"""Quality beside cost: patch KID over TFLOPs in every table that has both, and the methods that none beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from selfcascade.media.whole_files import write_whole
from selfcascade.report.plots import pyplot
from selfcascade.report.results import Row
from selfcascade.report.tables import Costs, markdown

FEWEST, COLUMNS = 3, 3  # points that make a plot, and plots side by side
WIDE = 3  # ratio of values from which an axis is logarithmic
WORDS = """Patch KID, which has no bias of small numbers, over the TFLOPs of a picture, base sample included. The line
is the frontier: methods that no other one beats in both.
"""


@dataclass(frozen=True)
class Point:
    """A method's cost and quality.

    Attributes:
        method: Its name.
        tflops: TFLOPs a picture.
        patch_kid: Mean over the seeds; lower is better.
    """

    method: str
    tflops: float
    patch_kid: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points than which no other is both cheaper and better, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.tflops, point.patch_kid)):
        if not found or point.patch_kid < found[-1].patch_kid:
            found.append(point)
    return found


def points_of(tables: Mapping[str, Sequence[Row]], costs: Costs | None) -> dict[str, list[Point]]:
    """The points of every table and size with at least three, by a title.

    Args:
        tables: Rows by the table's name; rows of clips and of other metrics have no points.
        costs: Costs counted apart, for results that do not state theirs.
    """
    found: dict[str, list[Point]] = {}
    for name, rows in tables.items():
        for row in rows:
            tflops, quality = tflops_of(row, costs), row.values(lambda result: result["patch_kid"][0])
            if tflops is not None and quality:
                height, width = row.size
                found.setdefault(f"{name}, {width}x{height}", []).append(Point(row.method, tflops, mean(quality)))
    return {title: points for title, points in found.items() if len(points) >= FEWEST}


def tflops_of(row: Row, costs: Costs | None) -> float | None:
    """TFLOPs a picture that a row's results state, else those counted apart with as many steps; None without either."""
    stated = row.values(_stated)
    if stated:
        return mean(stated)
    steps = {str(result["sampling"].get("num_inference_steps")) for result in row.results}
    return costs.tflops(row) if costs is not None and steps == {str(costs.measured["steps"])} else None


def _stated(result: dict[str, Any]) -> float:
    value = result["tflops_per_sample"]
    if value is None:
        raise KeyError("tflops_per_sample")
    return float(value)


def quality_beside_cost(tables: Mapping[str, Sequence[Row]], costs: Costs | None, path: Path) -> list[str]:
    """The section of the report; empty if no table has enough methods with both figures.

    Args:
        tables, costs: See `points_of`.
        path: Path of the plot, a WebP.
    """
    drawn = points_of(tables, costs)
    if not drawn:
        return []
    _plot(drawn, path)
    rows = [[title, ", ".join(f"`{point.method}`" for point in frontier(points))] for title, points in drawn.items()]
    picture = f"![Patch KID over TFLOPs of a picture, with the frontier]({path.name})\n"
    return ["## Quality beside cost\n", WORDS, picture, markdown(["table", "frontier, cheapest first"], rows), ""]


def _plot(drawn: Mapping[str, Sequence[Point]], path: Path) -> None:
    plt = pyplot()
    wide = min(COLUMNS, len(drawn))
    high = -(-len(drawn) // wide)
    figure, axes = plt.subplots(high, wide, figsize=(4.6 * wide, 3.6 * high), squeeze=False, layout="constrained")
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (title, points) in zip(axes.flat, drawn.items(), strict=False):
        best = frontier(points)
        axis.step([p.tflops for p in best], [p.patch_kid for p in best], where="post", color="0.6", lw=1, zorder=1)
        for point in points:
            on_it = point in best
            axis.plot(point.tflops, point.patch_kid, "o", ms=5, color="C0" if on_it else "C7", zorder=2)
            place = {"xytext": (4, 4), "textcoords": "offset points"}
            axis.annotate(point.method, (point.tflops, point.patch_kid), fontsize=6, color="0.2", **place)
        _scale(axis.set_xscale, axis.xaxis, [point.tflops for point in points])
        _scale(axis.set_yscale, axis.yaxis, [point.patch_kid for point in points])
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("TFLOP a picture")
        axis.set_ylabel("patch KID")
    write_whole(path, lambda aside: figure.savefig(aside, format="webp", dpi=110))
    plt.close(figure)


def _scale(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """Makes an axis logarithmic where its values are of different orders, with ticks at 1, 2 and 5."""
    if min(values) <= 0 or max(values) < WIDE * min(values):
        return
    from matplotlib.ticker import LogLocator, NullFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
