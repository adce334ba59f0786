"""The runs of a suite, and the rule for when test captions may be sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfcascade.experiments.experiment import names_of, read_experiment
from selfcascade.experiments.floors import FLOORS
from selfcascade.experiments.runs import Run


def runs_of(
    suite: Path,
    names: list[str],
    runs: Path,
    changes: dict[str, Any] | None = None,
    results: Path | None = None,
    output: Path | None = None,
) -> Iterator[Run]:
    """The runs of the named experiments, ordered by seed.

    If none is named, these are all of the suite. With a named set of captions, `FLOORS` are added.

    Args:
        suite, names, runs, changes, results: See `Run`.
        output: Folder of results to use instead of `results`. Each suite gets a folder of its name in it.

    Raises:
        ValueError: The suite or an experiment does not exist.
    """
    if not suite.is_dir():
        raise ValueError(f"suite {suite} is not a folder")
    if not names_of(suite):
        raise ValueError(f"suite {suite} holds no experiment, a NAME.json")
    chosen = names or names_of(suite)
    split = read_experiment(suite, chosen[0], changes).split
    if output is not None:
        results = output / suite.name / (split or "results")
    if not names and split is not None:
        chosen = [*chosen, *(name for name in FLOORS if name not in chosen)]
    experiments = {name: read_experiment(suite, name, changes) for name in chosen}
    seeds = {name: (*experiment.seeds, *experiment.more_seeds) for name, experiment in experiments.items()}
    for seed in sorted({seed for own in seeds.values() for seed in own}):
        yield from (Run(suite, name, seed, runs, changes, results) for name in chosen if seed in seeds[name])


def check_test(runs: Sequence[Run], partly: bool) -> None:
    """Raises ValueError if only a part would be sampled on test captions, or validation was not measured before.

    Args:
        runs: The runs to be made.
        partly: Whether experiments, a seed or other settings are named.
    """
    tested = [run for run in runs if run.experiment.split == "test"]
    if tested and partly:
        raise ValueError("split test is for whole suites as they are; leave out names, --seed and all other settings")
    for run in tested:
        place = run.results.with_name("validation")
        before = Run(run.suite, run.name, run.seed, run.runs, {"split": "validation"}, place)
        if before.missing():
            words = f"{run.name} seed {run.seed} of {run.suite.name} has results missing in {place}"
            raise ValueError(f"split test comes after validation, on which all is chosen: {words}")
