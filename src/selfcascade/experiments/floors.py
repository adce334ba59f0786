"""Rows that the harness makes itself in every suite: real samples, and base samples that are only enlarged.

A distance of real samples from others is its estimator's floor, whose spread no difference is told below. Enlarged base
samples are what a method must beat to have done anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selfcascade.evaluation.make_samples import REAL

FLOORS = {"real": REAL, "lanczos": "lanczos"}  # names of the rows, and their methods


def floor_settings(name: str, suite: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of one of these rows: at every size of a suite, for all its captions.

    Args:
        name: Of `FLOORS`.
        suite: The settings of its own experiments, defaults included.
    """
    samplings, seeds, counts, pivots = dict[Any, tuple[str, dict[str, Any]]](), set[int](), set[int](), "sampled"
    for one in suite:
        for sampling, own in one["samplings"].items():
            size = {key: own[key] for key in ("scale", "height", "width") if own.get(key) is not None}
            samplings.setdefault(str(sorted(size.items())), (sampling, size))
        trained = one.get("training") is not None
        seeds |= {0} if trained else {*one.get("seeds", (0,)), *one.get("more_seeds", ())}
        counts |= {*one.get("samples", ()), *one.get("samples_at_last", ())}
        pivots = one.get("pivots", pivots)
    found = dict[str, dict[str, Any]]()
    for sampling, size in samplings.values():
        label = sampling if sampling not in found else f"{sampling}-{len(found)}"
        found[label] = {"method": FLOORS[name], "upsampling": None, **size}
    settings: dict[str, Any] = {"samplings": found, "seeds": sorted(seeds), "at_steps": [0], "pivots": pivots}
    return settings | ({"samples": sorted(counts), "samples_at_last": sorted(counts)} if counts else {})
