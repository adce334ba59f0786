"""The paper's figures, and the order and names of results in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selfcascade.metrics.registry import CLIP_METRICS, IMAGE_METRICS, Metric


def distance_columns(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Columns of distances, by their names in result files."""
    return {name: metric.column for name, metric in metrics.items() if metric.is_distance}


# In the paper's order; it has the first two distances of clips.
DISTANCES, CLIP_DISTANCES = distance_columns(IMAGE_METRICS), distance_columns(CLIP_METRICS)


@dataclass(frozen=True)
class PaperRow:
    """A row of a table of the paper (Guo et al. 2024): Stable Diffusion 2.1 on LAION-5B; in Table 3 LVDM on WebVid-10M.

    Attributes:
        distances: Distances that the paper gives, by the names in `DISTANCES` and `CLIP_DISTANCES`; two values if it
            gives them for two numbers of steps.
        time: Time as a multiple of direct inference's; None if not given.
        steps: Training steps; None without training.
    """

    distances: Mapping[str, float | str]
    time: float | None = None
    steps: str | None = None


def _table1(time: float, steps: str | None, *distances: float) -> PaperRow:
    return PaperRow(dict(zip(DISTANCES, distances, strict=False)), time, steps)


def _table2(steps: str | None, *distances: float) -> PaperRow:
    return PaperRow(dict(zip(("fid", "kid", "fid_b", "kid_b"), distances, strict=True)), None, steps)


def _table3(steps: str | None, fvd: float | str, kvd: float | str) -> PaperRow:
    return PaperRow({"fvd": fvd, "kvd": kvd}, None, steps)


PAPER: dict[str, dict[str, PaperRow]] = {
    "table1": {
        "direct": _table1(1, None, 29.89, 0.010, 20.88, 0.0070, 24.21, 0.007),
        "attn-sf": _table1(1, None, 29.95, 0.010, 21.07, 0.0072, 22.75, 0.007),
        "scalecrafter": _table1(1, None, 20.88, 0.008, 21.00, 0.0071, 16.67, 0.005),
        "self-cascade-paper": _table1(1.04, None, 12.25, 0.004, 19.59, 0.0071, 6.09, 0.001),
        "full-ft": _table1(1, "18k", 21.88, 0.007, 19.33, 0.0077, 17.14, 0.005),
        "lora-r32": _table1(1.22, "18k", 17.02, 0.005, 18.65, 0.0076, 11.33, 0.003),
        "lora-r4": _table1(1.20, "18k", 14.74, 0.005, 18.06, 0.0074, 9.47, 0.002),
        "sr": _table1(5, "1.25M", 12.59, 0.005, 17.21, 0.0053),
        "tuned-micro": _table1(1.06, "4k", 12.40, 0.004, 15.35, 0.0058, 3.15, 0.0005),
    },
    "table2": {
        "direct": _table2(None, 104.70, 0.043, 104.10, 0.040),
        "attn-sf": _table2(None, 104.34, 0.043, 103.61, 0.041),
        "scalecrafter": _table2(None, 59.40, 0.021, 57.26, 0.018),
        "self-cascade-paper": _table2(None, 38.99, 0.015, 34.73, 0.013),
        "full-ft": _table2("20k", 43.55, 0.014, 41.58, 0.012),
        "lora-r4": _table2("20k", 50.72, 0.020, 51.99, 0.019),
        "tuned-micro": _table2("10k", 18.46, 0.005, 8.99, 0.001),
    },
    "table3": {
        "direct": _table3(None, 688.07, 67.17),
        "scalecrafter": _table3(None, 562.00, 44.52),
        "self-cascade-paper": _table3(None, 553.85, 33.83),
        "full-ft": _table3("10k, 50k", "721.32, 531.57", "94.57, 33.61"),
        "lora-r32": _table3("10k, 50k", "959.68, 615.75", "113.07, 76.99"),
        "lora-r4": _table3("10k, 50k", "1221.46, 623.72", "263.62, 74.13"),
        "tuned-clips": _table3("10k", 494.19, 31.55),
    },
}
# Methods without training first, as in the paper's tables; other names are sorted by their prefix in this list.
ORDER = (
    *("real", "base", "direct", "attn-sf", "scalecrafter", "hidiffusion", "restart-late"),
    *("self-cascade-paper", "self-cascade-rgb", "self-cascade", "lanczos"),
    *("sr", "full-ft", "lora-r32", "lora-r4", "tuned-micro", "tuned-full", "tuned-clips", "tuned"),
)
TITLES = {
    "table1": "4x the pixels (the paper's Table 1)",
    "table2": "16x the pixels (the paper's Table 2)",
    "table3": "Clips of 16 frames at 4x the pixels (the paper's Table 3)",
    "ratios": "2:1 and 1:2 at 4x the pixels",
    "training-curves": "Quality over training steps (the paper's Figure 5)",
    "ablation": "Ablations: K, the pivot, the number of steps",
    "tuning-free": "Pivots and K without training",
    "levers": "What was tried at 16x and at 4x the pixels, without training",
    "micro-designs": "Designs of `micro`",
    "full-designs": "Designs of `full`",
}


def place(method: str) -> tuple[int, str]:
    """Sort key of a row."""
    name = method.split(",")[0]
    if name in ORDER:
        return ORDER.index(name), method
    return next((index for index, known in enumerate(ORDER) if name.startswith(known)), len(ORDER)), method


def by_title(suites: list[str]) -> list[str]:
    """The suites in the report's order, `table1-more` after `table1`."""
    known = list(TITLES)

    def order(suite: str) -> tuple[int, str]:
        return next((index for index, name in enumerate(known) if _of(suite, name)), len(known)), suite

    return sorted(suites, key=order)


def paper_rows(suite: str) -> dict[str, PaperRow]:
    """The paper's rows for a suite's table; empty for most."""
    return next((rows for name, rows in PAPER.items() if _of(suite, name)), {})


def _of(suite: str, name: str) -> bool:
    return suite == name or suite.startswith(f"{name}-")
