"""Plots: quality against cost, and quality against training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from selfcascade.media.whole_files import write_whole
from selfcascade.options.optional import install
from selfcascade.report.paper import DISTANCES
from selfcascade.report.results import Figure, Row
from selfcascade.report.tables import BESIDE, Costs

LINES = {"cascade": "-", "direct": "--"}
MARKERS = "osD^vP*X"
TRAINED = ("micro", "full", "lora-r4", "lora-r32", "full-ft")
QUALITY: dict[str, Figure] = {
    "all right, %": BESIDE["all right, %"],
    "pFID_r (log)": lambda result: result["patch_fid"][0],
    "FID_b (log)": lambda result: result["fid_b"][0],
}
OVER_TRAINING: dict[str, Figure] = {
    "all right, %": BESIDE["all right, %"],
    DISTANCES["patch_fid"]: lambda result: result["patch_fid"][0],
}
CLIP_QUALITY = {"fvd": "FVD_r", "frame_patch_fid": "frame pFID_r", "motion": "share with motion right"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def pyplot() -> Any:
    """Imports and sets up matplotlib.

    Raises:
        ValueError: Matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ValueError(f"the report's plots need matplotlib: {install('matplotlib')}") from error
    mpl.use("agg")
    mpl.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    return plt


def quality_against_cost(tables: Mapping[str, Sequence[Row]], costs: Costs, path: Path) -> bool:
    """Plots composition, pFID_r and FID_b over TFLOPs per picture, one column per table; returns if there was any.

    Args:
        tables: Rows by the column's title; rows without a counted cost are left out.
        costs: Costs of the methods.
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


def quality_against_training(found: Sequence[dict[str, Any]], free: Sequence[dict[str, Any]], path: Path) -> bool:
    """Plots composition and patch FID over steps and seconds of training, averaged over seeds (the paper's Figure 5).

    Only results with the usual number of pictures are used, since distances of fewer are larger.

    Args:
        found: Results of trainings.
        free: Results of the tuning-free cascade; the first with as many pictures is a horizontal line.
        path: Path of the WebP.

    Returns:
        Whether any method has several steps; otherwise nothing is plotted.
    """
    drawn = [row for row in found if row["sampling"]["name"] in LINES]
    counts = Counter(row["pictures"] for row in drawn)
    count = max(counts, key=lambda pictures: (counts[pictures], pictures), default=0)
    drawn = [row for row in drawn if row["pictures"] == count]
    curves: dict[tuple[str, str], dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in drawn:
        curves[row["experiment"], row["sampling"]["name"]][row["step"]].append(row)
    known = {name: reading for name, reading in OVER_TRAINING.items() if _in_all(drawn, reading)}
    if not known or all(len(points) < 2 for points in curves.values()):
        return False
    figure, axes = pyplot().subplots(
        len(known), 2, figsize=(9, 3 * len(known)), sharey="row", squeeze=False, layout="constrained"
    )
    for (name, sampling), points in sorted(curves.items()):
        colour = TRAINED.index(name) if name in TRAINED else len(TRAINED)
        style = {"color": f"C{colour}", "marker": "o", "ms": 3, "ls": LINES[sampling]}
        _curve(axes, known.values(), points, f"{name}, {sampling}", style)
    across = [row for row in free if row["pictures"] == count and _in_all([row], *known.values())][:1]
    for (quality, reading), line in zip(known.items(), axes, strict=True):
        line[0].set_ylabel(quality)
        for axis, row in product(line, across):
            axis.axhline(reading(row), color="black", lw=0.8, ls=":", label=_free_label(row["sampling"]))
    axes[-1, 0].set_xlabel(_step_label(drawn))
    axes[-1, 1].set_xlabel("training seconds")
    figure.legend(*axes[-1, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    _save(figure, path)
    return True


def _in_all(results: Sequence[dict[str, Any]], *readings: Figure) -> bool:
    return all(len(Row("", list(results)).values(reading)) == len(results) for reading in readings)


def _free_label(how: Mapping[str, Any]) -> str:
    """Label of the tuning-free cascade, with its sampling's K and upsampling."""
    steps = how.get("pivot_step")
    words = None if steps is None else ", ".join(map(str, steps if isinstance(steps, list) else [steps]))
    return ", ".join(["tuning-free", *([f"K = {words}"] if words else []), *filter(None, [how.get("upsampling")])])


def _step_label(results: Sequence[dict[str, Any]]) -> str:
    """Label of the steps' axis, with the number of pictures per step if it is the same in all results."""
    trainings = [(row.get("settings") or {}).get("training") or {} for row in results if row["step"]]
    sizes = {training.get("train_batch_size") for training in trainings}
    passes = {training.get("gradient_accumulation_steps", 1) for training in trainings}
    if len(sizes) != 1 or len(passes) != 1 or None in sizes:
        return "training steps"
    return f"training steps of {sizes.pop() * passes.pop()} pictures"


def _curve(
    axes: Any, readings: Iterable[Figure], points: Mapping[int, list[dict[str, Any]]], label: str, style: Any
) -> None:
    steps = sorted(points)
    speeds = [row.get("seconds_per_training_step") for rows in points.values() for row in rows]
    known = [speed for speed in speeds if speed is not None]
    for line, reading in zip(axes, readings, strict=True):
        values = [mean(map(reading, points[step])) for step in steps]
        line[0].plot(steps, values, label=label, **style)
        if known:
            line[1].plot([step * median(known) for step in steps], values, **style)


def clips_against_training(found: Sequence[dict[str, Any]], free: Row | None, path: Path) -> bool:
    """Plots figures of clips over training steps, averaged over seeds; returns whether any method has several steps.

    Args:
        found: Results of clips.
        free: The tuning-free cascade's row, a horizontal line.
        path: Path of the WebP.
    """
    curves: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in found:
        curves[result["experiment"]][result["step"]].append(result)
    curves = {name: points for name, points in sorted(curves.items()) if len(points) > 1}
    known = [name for name in CLIP_QUALITY if all(name in result for result in found)]
    if not curves or not known:
        return False
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
