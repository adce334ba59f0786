"""Shows the cost of a run before it starts, as tables under the buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from selfcascade.cost.plan import StageCost
from selfcascade.options.checks import OptionError
from selfcascade.web.desk import BUSY, LIGHT, label, spoken
from selfcascade.web.form import across
from selfcascade.web.jobs import Cancelled

UNTOLD = "-"


def plan_shown(
    tell: Callable[..., str], inputs: list[Any], changes: list[Any], place: Any, runs: Sequence[Any]
) -> None:
    """Shows what the settings will cost.

    Args:
        tell: Returns the text, or raises the errors of a run. The handler is named after it.
        inputs: Fields that are its arguments.
        changes: Events after which the text is updated.
        place: Component that shows it.
        runs: Runs after which the text is updated too, because no plan can be made while the model is at work.
    """

    def told(*values: Any) -> str:
        try:
            return tell(*values)
        except Cancelled:
            return BUSY
        except OptionError as error:
            return f"This cannot be made: {error.told(label)}."
        except ValueError as error:
            return f"This cannot be made: {error}."

    told.__name__ = tell.__name__
    gr.on(changes, spoken(told), inputs, place, trigger_mode="always_last", **LIGHT)
    for run in runs:
        run.then(spoken(told), inputs, place, **LIGHT)


def stage_table(costs: Sequence[StageCost]) -> str:
    """A table of the stages of a plan and their costs."""
    lines = ["| stage | steps | TFLOPs | s | GiB |", "|---|--:|--:|--:|--:|"]
    for cost in costs:
        start = "" if cost.stage.pivot_step is None else f", K = {cost.stage.pivot_step}"
        row = (f"{across(cost.size)}{start}", str(cost.steps), *_figures([cost]))
        lines.append(f"| {' | '.join(row)} |")
    seconds = _sum([cost.seconds for cost in costs])
    total = "" if seconds is None else f"About **{seconds:.0f} s** in all.\n\n"
    return total + "\n".join(lines)


def way_table(plans: Sequence[tuple[str, Sequence[StageCost]]]) -> str:
    """A table of the costs of several ways. Methods without stages get dashes."""
    lines = ["| way | steps | TFLOPs | s | GiB |", "|---|---|--:|--:|--:|"]
    for way, costs in plans:
        steps = " + ".join(str(cost.steps) for cost in costs) or UNTOLD
        lines.append(f"| {' | '.join((way, steps, *_figures(costs)))} |")
    return "\n".join(lines)


def _figures(costs: Sequence[StageCost]) -> tuple[str, str, str]:
    """The sum of TFLOPs, the sum of seconds, and the largest GiB."""
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    flops, seconds = (_sum([getattr(cost, name) for cost in costs]) for name in ("tflops", "seconds"))
    return _figure(flops), _figure(seconds), _figure(max(peaks, default=None), 2**30)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _figure(value: float | None, unit: float = 1.0) -> str:
    return UNTOLD if value is None else f"{value / unit:.2g}" if value < 10 * unit else f"{value / unit:.0f}"
