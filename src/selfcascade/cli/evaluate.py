"""`evaluate`: makes the missing results of an experiment suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfcascade.cli.console import Debug, note


def evaluate(
    suite: Annotated[Path, typer.Argument(help="Directory of experiments, such as experiments/training-curves.")],
    names: Annotated[list[str] | None, typer.Argument(help="Experiments in it; all unless named.")] = None,
    runs: Annotated[Path, typer.Option(help="Weights and base samples go there.")] = Path("runs/experiments"),
    seed: Annotated[int | None, typer.Option(min=0, help="Only the runs of this seed.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only list what is missing.")] = False,
    debug: Debug = False,
) -> None:
    """Make the results of an experiment suite that are missing: train, sample, measure. It goes on where it was cut."""
    from selfcascade.experiments import runs_of

    for run in runs_of(suite, names or [], runs):
        if seed is not None and run.seed != seed:
            continue
        missing = run.missing()
        note(f"{run.name} seed {run.seed}: {sum(map(len, missing.values()))} results missing")
        if missing and not dry_run:
            run.make()
