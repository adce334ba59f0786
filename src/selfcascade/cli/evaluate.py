"""`evaluate`: makes an experiment suite's missing results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfcascade.cli.console import Debug, note
from selfcascade.cli.flags import with_options
from selfcascade.options import Options
from selfcascade.options.addresses import refusal

Suite = Annotated[Path, typer.Argument(help="Directory of experiments, such as experiments/training-curves.")]
Names = Annotated[list[str] | None, typer.Argument(help="Experiments in it (default: all).")]
Runs = Annotated[Path, typer.Option(help="Folder for weights and base samples.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Only runs with this seed.")]
Data = Annotated[str | None, typer.Option(help="Data instead of the scenes, as for `selfcascade train`.")]
TrainData = Annotated[str | None, typer.Option(help="Data to train methods on, in the same form; must be other files.")]
Detector = Annotated[
    str | None,
    typer.Option(
        help="For that data: inception:FILE.safetensors, clip:FOLDER_OR_HUB_ID; for clips i3d:FILE.safetensors."
    ),
]
Split = Annotated[
    str | None, typer.Option(help="Set of captions and seeds: tuning, validation, or test, which is for tables.")
]
Pictures = Annotated[int | None, typer.Option(min=2, help="Pictures or clips per result (default: the suite's).")]
RealPictures = Annotated[int | None, typer.Option(min=2, help="Real pictures or clips (default: the suite's).")]
Output = Annotated[Path | None, typer.Option(help="Results go to OUTPUT/SUITE; needed with any setting but --split.")]
DryRun = Annotated[bool, typer.Option(help="Only list what is missing.")]


@with_options("evaluate", unless="the suite's")
def evaluate(
    given: dict[str, Any],
    suite: Suite,
    names: Names = None,
    runs: Runs = Path("runs/experiments"),
    seed: Seed = None,
    data: Data = None,
    train_data: TrainData = None,
    detector: Detector = None,
    split: Split = None,
    pictures: Pictures = None,
    real_pictures: RealPictures = None,
    output: Output = None,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Make an experiment suite's missing results: train, sample, measure. An interrupted run is continued.

    `accelerate launch -m selfcascade.cli evaluate ...` shares the sampling between processes.
    """
    from selfcascade.experiments import check_test, runs_of
    from selfcascade.making import quiet_libraries
    from selfcascade.processes import join

    quiet_libraries()
    for name, value in {"data": data, "train_data": train_data, "detector": detector}.items():
        words = refusal(name, (value or "").removeprefix("inception:").removeprefix("clip:").removeprefix("i3d:"))
        if words is not None:
            raise ValueError(words)
    Options(**given)
    own = {"data": data, "train_data": train_data, "detector": detector, "real_pictures": real_pictures}
    changes = _changes(given, suite, pictures) | {name: value for name, value in own.items() if value is not None}
    if changes and output is None:
        raise ValueError("output must be given where settings are not the suite's own, whose results would be mixed up")
    asked = {**changes, "split": split} if split is not None else changes
    found = list(runs_of(suite, names or [], runs, asked, output=output))
    check_test(found, bool(names or changes or seed is not None))
    if seed is not None and all(run.seed != seed for run in found):
        seeds = ", ".join(map(str, sorted({run.seed for run in found})))
        raise ValueError(f"--seed must be one of the experiments' own, {seeds}, not {seed}")
    processes = join()
    for run in found:
        if seed is not None and run.seed != seed:
            continue
        missing = processes.of_main(run.missing)
        if processes.is_main_process:
            note(f"{run.name} seed {run.seed}: {sum(map(len, missing.values()))} results missing")
        if not dry_run:
            run.make(processes)
    processes.end()


def _changes(given: dict[str, Any], suite: Path, pictures: int | None) -> dict[str, Any]:
    """Settings that replace the suite's own, from options that other commands have too."""
    from selfcascade.experiments import read_shared

    changes = {"model": given["model"]} if "model" in given else {}
    if {"model", "dtype"} & set(given):
        changes["dtype"] = given.get("dtype", "auto")
    if pictures is not None:
        changes |= {"samples": (pictures,), "samples_at_last": (pictures,), "samples_of": {}, "base_pictures": pictures}
    shared = {name: given[name] for name in ("num_inference_steps", "guidance_scale") if name in given}
    if shared:
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in shared.items()}
        changes["shared"] = {**read_shared(suite), **listed}
    return changes
