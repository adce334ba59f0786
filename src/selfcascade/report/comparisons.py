"""Compares two rows of a table, caption by caption: how far apart they are, by which test, and in which word.

Axis letters: R repeats, N captions, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

import numpy as np

from selfcascade.evaluation.per_picture import PerPicture
from selfcascade.metrics.paired import (
    Comparison,
    Word,
    paired_distances,
    paired_means,
    paired_shares,
    spread_of_distance,
    spread_of_mean,
    verdict,
)
from selfcascade.report.results import Row

COMPOSITION, REPETITION, REAL, ENLARGED = "composition", "repetition", "real", "lanczos"
KERNELS = {"kid": "KID", "patch_kid": "patch KID", "kid_b": "KID to base samples", "kvd": "KVD"}
TRUTHS = {
    "psnr": "PSNR", "ssim": "SSIM", "detector_distance": "detector distance", "octave_error_1": "error of octave 1",
    "octave_error_2": "error of octave 2", "octave_error_3": "error of octave 3",
}  # fmt: skip
NAMES = {COMPOSITION: "composition", REPETITION: "repetition", **KERNELS, **TRUTHS}
HIGHER_IS_BETTER = (COMPOSITION, "psnr", "ssim")


class Told(NamedTuple):
    """What may be said of a first row against a second, on the captions that both have.

    Attributes:
        figure: Name of the figure in results.
        comparison: Difference, interval, p and number of captions.
        spread: Spread of as many real samples. A smaller difference counts as level.
        word: Word for the first row.
    """

    figure: str
    comparison: Comparison
    spread: float
    word: Word

    @property
    def test(self) -> str:
        """The name of the test."""
        return "exact McNemar" if self.figure == COMPOSITION else "paired bootstrap"


@dataclass(frozen=True)
class Rows:
    """The records of one table.

    Attributes:
        records: The records of each row by its method, one for each seed.
        distances: Of each row, its kernel distances by their names, means over the seeds.
        sizes: Of each row whose results tell it, height and width of the samples.
    """

    records: dict[str, list[PerPicture]]
    distances: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    @classmethod
    def of(cls, rows: list[Row]) -> Rows:
        """Reads the records of those rows that have one for every result."""
        held = {row.method: row.records for row in rows}
        distances = {
            row.method: {name: mean(row.values(lambda result, name=name: result[name][0])) for name in KERNELS
                         if row.values(lambda result, name=name: result[name][0])}
            for row in rows
        }  # fmt: skip
        sizes = {row.method: row.size for row in rows if all(row.size)}
        return cls({method: own for method, own in held.items() if own}, distances, sizes)

    def missing(self, *methods: str) -> list[str]:
        """Those of the methods that have no records."""
        return [method for method in methods if method not in self.records]

    def beside(self, method: str, floor: str) -> str:
        """The row of real or enlarged samples that a method is compared with: of its own sampling, or of its size."""
        own = ", ".join([floor, *method.split(", ")[1:2]])
        floors = [own, floor, *(name for name in self.records if name.partition(", ")[0] == floor)]
        floors = [name for name in floors if name in self.records]
        of_its_size = (name for name in floors if self.sizes.get(name) == self.sizes.get(method))
        return next(of_its_size, floors[0] if floors else floor)

    def told(self, first: str, second: str, figure: str) -> Told | None:
        """Compares the first row with the second.

        None if a record or figure is missing, the samples have different sizes, or no captions are shared.
        """
        floor = self.beside(first, REAL)
        if self.missing(first, second, floor) or not _has(self.records, (first, second, floor), figure):
            return None
        if len({self.sizes[name] for name in (first, second, floor) if name in self.sizes}) > 1:
            return None
        own, other, real = (self.records[name] for name in (first, second, floor))
        if self.beside(second, REAL) != floor or not _numbers(own) & _numbers(other):
            return None
        if figure in KERNELS:
            points, others = _points(figure, own, other)
            least = _points(figure, real, own, other)[0]
            if not least:
                return None
            comparison, spread = paired_distances(points, others), spread_of_distance(least)
        elif figure == COMPOSITION:
            values = _by_caption(own, lambda record: record.all_right)
            comparison = paired_shares(values, _by_caption(other, lambda record: record.all_right))
            spread = _spread(lambda record: record.all_right, real, own, other)
        else:
            values = _by_caption(own, lambda record: record.values[figure])
            comparison = paired_means(values, _by_caption(other, lambda record: record.values[figure]))
            # For the others real samples are the truth itself.
            spread = _spread(lambda record: record.values[figure], real, own, other) if figure == REPETITION else 0.0
        word = verdict(comparison, spread, figure not in HIGHER_IS_BETTER)
        if figure in KERNELS and self._is_close(first, second, figure, comparison.difference, spread):
            word = "level"
        return Told(figure, comparison, spread, word)

    def _is_close(self, first: str, second: str, figure: str, difference: float, spread: float) -> bool:
        """Whether the distances themselves are nearer than the spread, or in the other order than by their points.

        Distances of different captions are not compared.
        """
        sets = [{(record.first, len(record)) for record in self.records[name]} for name in (first, second)]
        if sets[0] != sets[1]:
            return False
        own, other = (self.distances.get(name, {}).get(figure) for name in (first, second))
        return own is not None and other is not None and (abs(own - other) <= spread or (own - other) * difference < 0)


def signed(value: float) -> str:
    """A difference with its sign, to three digits."""
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def p_of(comparison: Comparison) -> str:
    """The p-value as text, "< 0.001" if it is that small."""
    return "< 0.001" if comparison.p < 0.001 else f"{comparison.p:.3f}"


def _has(records: dict[str, list[PerPicture]], methods: tuple[str, ...], figure: str) -> bool:
    def has(record: PerPicture) -> bool:
        if figure == COMPOSITION:
            return bool(record.attributes)
        return figure in (record.points if figure in KERNELS else record.values)

    if not all(has(record) for method in methods for record in records[method]):
        return False
    real = {record.real.get(figure) for method in methods for record in records[method]}
    return len(real) == 1 or figure not in KERNELS


def _spread(
    values: Callable[[PerPicture], np.ndarray], real: list[PerPicture], own: list[PerPicture], other: list[PerPicture]
) -> float:
    """The spread of the real samples' mean, on the captions that both rows have."""
    both, floor = _numbers(own) & _numbers(other), _by_caption(real, values)
    return spread_of_mean({number: value for number, value in floor.items() if number in both} or floor)


def _by_caption(records: list[PerPicture], values: Callable[[PerPicture], np.ndarray]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for record in records:
        for number, value in zip(record.numbers, values(record).tolist(), strict=True):
            found.setdefault(number, []).append(float(value))
    return found


def _numbers(records: list[PerPicture]) -> set[int]:
    return {number for record in records for number in record.numbers}


def _points(name: str, *methods: list[PerPicture]) -> list[list[np.ndarray]]:
    """Of each method, points (R, N, D) of each set of captions, for the captions that all of them have."""
    shared = sorted(set.intersection(*({record.first for record in records} for records in methods)))
    count = min((len(record) for records in methods for record in records), default=0)

    def stacked(records: list[PerPicture], start: int) -> np.ndarray:
        own = [record.points[name][:count].astype(np.float64) for record in records if record.first == start]
        width = max(points.shape[1] for points in own)
        return np.stack([np.pad(points, ((0, 0), (0, width - points.shape[1]))) for points in own])

    return [[stacked(records, start) for start in shared] for records in methods]
