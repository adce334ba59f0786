"""`plan`: what a picture or clip will cost, before anything runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from selfcascade.cli import options
from selfcascade.cli.console import Debug, note, show
from selfcascade.cli.making import check_names, load, plan_arguments
from selfcascade.cli.saving import check_of_clips
from selfcascade.cli.settings import check_count

Batch = Annotated[int, typer.Option(help="Pictures or clips made at once.")]


def plan(
    model: options.Model = None,
    height: options.Height = None,
    width: options.Width = None,
    steps: options.Steps = None,
    pivot_step: options.PivotStep = None,
    preset: options.Preset = None,
    upsamplers: options.Upsamplers = None,
    guidance_scale: options.GuidanceScale = None,
    native_size: options.NativeSize = None,
    frames: options.Frames = None,
    batch: Batch = 1,
    device: options.Device = None,
    dtype: options.Dtype = None,
    debug: Debug = False,
) -> None:
    """Show the stages of a picture or clip, and the work, time and memory that each will take."""
    given: dict[str, Any] = dict(model=model, height=height, width=width, num_inference_steps=steps, preset=preset)
    given.update(pivot_step=pivot_step, native_size=native_size, guidance_scale=guidance_scale, upsamplers=upsamplers)
    given["frames"] = frames
    settings, _ = options.gather(None, device=device, dtype=dtype, **given)
    check_count(batch, "batch")
    check_names(settings)
    cascade, settings = load(settings, video=True)
    if not cascade.family.video:
        check_of_clips(settings)
    stages = cascade.plan(**plan_arguments(settings))

    from selfcascade.cost.plan import estimate

    table = Table("stage", "size (HxW)", "pivot step", "steps")
    for column in ("TFLOPs", "seconds", "memory (GiB)"):
        table.add_column(column, justify="right")
    costs = list(estimate(cascade.pipe, stages, batch, frames=settings.frames))
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
    if cascade.upsamplers is not None:
        note("the upsamplers' own share, 0.2 to 2 % of a stage, is not counted (docs/upsamplers.md)")
    if cascade.family.video:
        most = cascade.family.most_frames
        note(f"clips of {settings.frames} frames" + ("" if most is None else f", at most {most}"))
    note(f"native size {cascade.native_size}; sizes are multiples of {cascade.multiple} pixels")


def _total(costs: list[Any], name: str) -> float | None:
    values = [getattr(cost, name) for cost in costs]
    return None if None in values else sum(values)


def _figure(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.3g}"
