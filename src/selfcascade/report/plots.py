"""Plots: quality against cost, and quality against training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from selfcascade.files import write_whole
from selfcascade.report.paper import DISTANCES
from selfcascade.report.results import Reading, Row
from selfcascade.report.tables import BESIDE, Costs

LINES = {"cascade": "-", "direct": "--"}
MARKERS = "osD^vP*X"
TRAINED = ("micro", "full", "lora-r4", "lora-r32", "full-ft")
QUALITY: dict[str, Reading] = {
    "all right, %": BESIDE["all right, %"],
    "pFID_r (log)": lambda result: result["patch_fid"][0],
    "FID_b (log)": lambda result: result["fid_b"][0],
}
CLIP_QUALITY = {"fvd": "FVD_r", "frame_patch_fid": "frame pFID_r", "motion": "share with motion right"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def pyplot() -> Any:
    """Matplotlib, set up.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ValueError("the report's plots need matplotlib: pip install 'selfcascade[eval]'") from error
    mpl.use("agg")
    mpl.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    return plt


def quality_against_cost(tables: Mapping[str, Sequence[Row]], costs: Costs, path: Path) -> bool:
    """Composition, pFID_r and FID_b over TFLOPs of one picture, a column a table; returns whether there was any.

    Args:
        tables: Rows by the column's title; those whose cost was not counted are left out.
        costs: Of the methods.
        path: A WebP.
    """
    drawn = {title: [row for row in rows if costs.tflops(row) is not None] for title, rows in tables.items()}
    drawn = {title: rows for title, rows in drawn.items() if rows}
    if not drawn:
        return False
    plt = pyplot()
    figure, axes = plt.subplots(
        len(QUALITY), len(drawn), figsize=(3 + 3.6 * len(drawn), 8), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(row.method for rows in drawn.values() for row in rows))
    for column, (title, rows) in enumerate(drawn.items()):
        for axis, (quality, reading) in zip(axes[:, column], QUALITY.items(), strict=True):
            for row in rows:
                _point(axis, costs.tflops(row), row.values(reading), names.index(row.method), row.method)
            if "log" in quality:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter("{x:g}")
                axis.tick_params(axis="y", which="minor", labelsize=7)
            axis.set_xlim(left=0)
            axis.set_ylabel(quality if column == 0 else "")
        axes[0, column].set_title(title, fontsize=9)
        axes[-1, column].set_xlabel("TFLOP a picture")
    found = {}
    for axis in axes[0]:
        found |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        [found[name] for name in names if name in found],
        [n for n in names if n in found],
        loc="outside right upper",
        frameon=False,
    )
    _save(figure, path)
    return True


def _point(axis: Any, cost: float | None, values: list[float], number: int, label: str) -> None:
    if not values:
        return
    marker = MARKERS[(number // 10 + 2 * (number % 3)) % len(MARKERS)]
    style: dict[str, Any] = {"color": f"C{number % 10}", "marker": marker, "ms": 5}
    spread = stdev(values) if len(values) > 1 else None
    axis.errorbar([cost], [mean(values)], yerr=spread, ls="none", capsize=2, lw=1, label=label, **style)


def quality_against_training(found: Sequence[dict[str, Any]], free: dict[str, Any] | None, path: Path) -> None:
    """Composition and patch FID over steps and over seconds of training, seeds averaged (the paper's Figure 5).

    Args:
        found: Results of trainings.
        free: That of the tuning-free cascade, a line across.
        path: A WebP.
    """
    figure, axes = pyplot().subplots(2, 2, figsize=(9, 6), sharey="row", layout="constrained")
    curves: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        if row["pictures"] == 100 and row["sampling"]["name"] in LINES:
            curves[row["experiment"], row["sampling"]["name"]][row["step"]].append(row)
    for (name, sampling), points in sorted(curves.items()):
        colour = TRAINED.index(name) if name in TRAINED else len(TRAINED)
        _curve(
            axes, points, f"{name}, {sampling}", {"color": f"C{colour}", "marker": "o", "ms": 3, "ls": LINES[sampling]}
        )
    if free is not None:
        for axis in axes[0]:
            axis.axhline(100 * free["composition"]["all"], color="black", lw=0.8, ls=":")
        for axis in axes[1]:
            axis.axhline(free["patch_fid"][0], color="black", lw=0.8, ls=":", label="tuning-free, K = 600, RGB")
    for axis, (below, beside) in {
        axes[0, 0]: ("", "all right, %"),
        axes[1, 0]: ("training steps of 8 pictures", DISTANCES["patch_fid"]),
        axes[1, 1]: ("training seconds, one core", ""),
    }.items():
        axis.set_xlabel(below)
        axis.set_ylabel(beside)
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)


def _curve(axes: Any, points: Mapping[int, list[dict[str, Any]]], label: str, style: dict[str, Any]) -> None:
    steps = sorted(points)
    speeds = [row["seconds_per_training_step"] for rows in points.values() for row in rows]
    speed = median([second for second in speeds if second is not None] or [0.0])
    for line, reading in enumerate((BESIDE["all right, %"], lambda row: row["patch_fid"][0])):
        values = [mean(map(reading, points[step])) for step in steps]
        axes[line, 0].plot(steps, values, label=label, **style)
        axes[line, 1].plot([step * speed for step in steps], values, **style)


def clips_against_training(found: Sequence[dict[str, Any]], free: Row | None, path: Path) -> bool:
    """Figures of clips over training steps, seeds averaged; returns whether any method has several steps.

    Args:
        found: Results of clips.
        free: The tuning-free cascade, a line across.
        path: A WebP.
    """
    curves: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in found:
        curves[result["experiment"]][result["step"]].append(result)
    curves = {name: points for name, points in sorted(curves.items()) if len(points) > 1}
    if not curves:
        return False
    known = [name for name in CLIP_QUALITY if all(name in result for result in found)]
    size = (2 + 3 * len(known), 3)
    figure, axes = pyplot().subplots(1, len(known), figsize=size, squeeze=False, layout="constrained")
    for axis, quality in zip(axes[0], known, strict=True):
        for name, points in curves.items():
            steps = sorted(points)
            axis.plot(steps, [_mean(points[step], quality) for step in steps], marker="o", ms=3, label=name)
        if free is not None:
            axis.axhline(_mean(free.results, quality), color="black", lw=0.8, ls=":", label=free.method)
        axis.set_xlabel("training steps")
        axis.set_ylabel(CLIP_QUALITY[quality])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)
    return True


def _mean(results: Sequence[dict[str, Any]], name: str) -> float:
    return mean(result[name][0] for result in results)


def _save(figure: Any, path: Path) -> None:
    settings = {"quality": 85, "method": 6}
    write_whole(path, lambda aside: figure.savefig(aside, dpi=130, format="webp", pil_kwargs=settings))
    pyplot().close(figure)
