"""Rows that the harness adds to every suite: real samples, and base samples that are only enlarged.

The distance between two sets of real samples is the floor of its estimator. A difference smaller than its spread is not
reported. A method must beat the enlarged base samples to have done anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfcascade.evaluation.make_samples import REAL

# What the experiments of a suite have in common, wherever it is said.
OF_A_SUITE = (
    "model", "dtype", "frames", "fps", "data", "detector", "split", "real_pictures", "base_pictures", "shared",
)  # fmt: skip
SAMPLES, SAMPLES_AT_LAST = (100,), (100, 300)  # of an experiment that says nothing
FLOORS = {"real": REAL, "lanczos": "lanczos"}  # names of the rows, and their methods


def floor_settings(name: str, suite: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of one of these rows: at every size of a suite, for all its captions.

    Args:
        name: Name in `FLOORS`.
        suite: The settings of the suite's own experiments, with defaults.
    """
    samplings, seeds, counts, pivots = dict[Any, tuple[str, dict[str, Any]]](), set[int](), set[int](), "sampled"
    most = dict[str, int]()  # pictures of each set of captions
    for one in suite:
        for sampling, own in one["samplings"].items():
            size = {key: own[key] for key in ("scale", "height", "width") if own.get(key) is not None}
            samplings.setdefault(str(sorted(size.items())), (sampling, size))
        trained = one.get("training") is not None
        seeds |= {0} if trained else {*one.get("seeds", (0,)), *one.get("more_seeds", ())}
        counts |= {*one.get("samples", ()), *one.get("samples_at_last", ())}
        pivots = one.get("pivots", pivots)
        most |= {split: max(count, most.get(split, 0)) for split, count in one.get("samples_of", {}).items()}
    found = dict[str, dict[str, Any]]()
    for sampling, size in samplings.values():
        label = sampling if sampling not in found else f"{sampling}-{len(found)}"
        found[label] = {"method": FLOORS[name], "upsampling": None, **size}
    own = {key: value for one in suite for key, value in one.items() if key in OF_A_SUITE}
    settings: dict[str, Any] = {**own, "samplings": found, "seeds": sorted(seeds), "at_steps": [0], "pivots": pivots}
    settings["samples_of"] = _of_the_most(most, suite)
    return settings | ({"samples": sorted(counts), "samples_at_last": sorted(counts)} if counts else {})


def _of_the_most(most: Mapping[str, int], suite: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """As many pictures of each set of captions as any row of the suite has."""
    found = {}
    for split, count in most.items():
        others = [one for one in suite if split not in one.get("samples_of", {})]
        usual = [(*one.get("samples", SAMPLES), *one.get("samples_at_last", SAMPLES_AT_LAST)) for one in others]
        found[split] = max([count, *map(max, usual)])
    return found
