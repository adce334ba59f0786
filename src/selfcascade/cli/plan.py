"""`plan`: estimates what a picture or clip will cost, before anything runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from selfcascade.cli.console import Debug, note, show
from selfcascade.cli.files import MAX_COUNT
from selfcascade.cli.flags import with_options
from selfcascade.cli.making import tell_strength
from selfcascade.cli.records import check_method, gather
from selfcascade.cli.saving import check_of_clips
from selfcascade.making import load, steering

Batch = Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Pictures or clips made at once.")]


@with_options("plan")
def plan(given: dict[str, Any], batch: Batch = 1, debug: Debug = False) -> None:
    """Show the stages of a picture or clip, and the FLOPs, time and memory that each will take."""
    options, _ = gather(given)
    check_method(options)
    cascade, options = load(options, video=True)
    if not cascade.family.video:
        check_of_clips(options)
    tell_strength(cascade, options)
    stages = cascade.plan(**options.changed(max_memory=None).keywords("plan"))

    from selfcascade.cost.fitting import fitted
    from selfcascade.cost.plan import estimate_call

    table = Table("stage", "size (HxW)", "pivot step", "steps")
    for column in ("TFLOPs", "seconds", "memory (GiB)"):
        table.add_column(column, justify="right")
    given_too = steering(cascade, options)
    measures = fitted(cascade, stages, options, batch, given_too, tuned=cascade.upsamplers is not None)
    costs = estimate_call(cascade, stages, options, batch, given_too, measures)
    for stage, cost in zip(stages, costs, strict=True):
        pivot = "-" if stage.pivot_step is None else str(stage.pivot_step)
        figures = (_figure(cost.tflops), _figure(cost.seconds), _figure(cost.peak_bytes, 2**30))
        table.add_row(str(stage.index), str(stage.size), pivot, str(cost.steps), *figures)
    totals = (_figure(_total(costs, "tflops")), _figure(_total(costs, "seconds")))
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    table.add_row(
        "all", "", "", str(sum(cost.steps for cost in costs)), *totals, _figure(max(peaks, default=None), 2**30)
    )
    show(table)
    if options.max_memory is not None:
        _tell_saving(cascade, options, measures, costs, estimate_call(cascade, stages, options, batch, given_too))
    if cascade.upsamplers is not None:
        note("the upsamplers' own share, 0.2 to 2 % of a stage, is not counted (docs/upsamplers.md)")
    if cascade.family.video:
        most = cascade.family.most_frames
        note(f"clips of {options.num_frames} frames" + ("" if most is None else f", at most {most}"))
    note(f"native size {cascade.native_size}; sizes are multiples of {cascade.multiple} pixels")


def _tell_saving(cascade: Any, options: Any, measures: Any, costs: list[Any], whole: list[Any]) -> None:
    """Says what is done to stay within the memory, and what that takes."""
    from selfcascade.cost.fitting import told
    from selfcascade.options.memory import in_words

    peaks = [max(cost.peak_bytes for cost in each) for each in (costs, whole)]
    words = f"within {options.max_memory}: {told(measures, cascade.family.factor)}; {in_words(peaks[0])} of memory"
    seconds = [_total(each, "seconds") for each in (costs, whole)]
    if peaks[0] != peaks[1]:
        times = f", {seconds[0] / seconds[1]:.2f}x the time" if seconds[0] and seconds[1] else ""
        words += f" instead of {in_words(peaks[1])}{times}"
    note(words)


def _total(costs: list[Any], name: str) -> float | None:
    values = [getattr(cost, name) for cost in costs]
    return None if None in values else sum(values)


def _figure(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return "-"
    return f"{value / unit:,.0f}" if value / unit >= 1000 else f"{value / unit:.3g}"
