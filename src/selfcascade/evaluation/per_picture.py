"""The record of each picture or clip of a result: small, but enough to compare two methods caption by caption.

NAME.json          a result's figures
NAME.safetensors   its record: for each sample what was read right, its kernel points, other values, seconds

Axis letters: N samples, A attributes, d dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from selfcascade.evaluation.evaluator import Evaluator, Judged
from selfcascade.evaluation.feature_files import Features
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.media.whole_files import write_whole
from selfcascade.metrics.kernels import centred_points


@dataclass(frozen=True)
class PerPicture:
    """A result's samples one by one.

    Attributes:
        first: Number of the first caption, which is also the seed of its sample. The others follow in steps of one.
        attributes: Names of what the captions ask for. Empty if nothing was read.
        right, known: Whether each attribute was read as asked, and whether the caption names it, (N, A) bool.
        points: For each kernel distance, by its name in results, the samples as `centred_points`, (N, d).
        real: Name of the real samples that the points are centred on, by the same names. Only points of the same ones
            can be compared.
        values: Other values of each sample, by name, (N,).
    """

    first: int
    attributes: tuple[str, ...]
    right: np.ndarray
    known: np.ndarray
    points: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    real: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def __len__(self) -> int:
        return len(self.right)

    @property
    def numbers(self) -> range:
        """The captions' numbers."""
        return range(self.first, self.first + len(self))

    @property
    def all_right(self) -> np.ndarray:
        """Whether each sample shows everything that its caption asks for, (N,) bool."""
        return np.all(self.right | ~self.known, axis=1)

    def head(self, count: int) -> PerPicture:
        """The first `count` samples."""
        points, values = ({name: x[:count] for name, x in own.items()} for own in (self.points, self.values))
        own = (self.right[:count], self.known[:count])
        return PerPicture(self.first, self.attributes, *own, points, self.real, values)


def per_picture(
    judged: Judged,
    prompts: PromptSet,
    evaluator: Evaluator,
    base: Features | None,
    values: Mapping[str, Tensor],
) -> PerPicture:
    """Makes the record of judged samples.

    Args:
        judged: Features and readings of the samples.
        prompts: Their prompts.
        evaluator: Holds the real samples.
        base: Features of the base samples that FID_b and KID_b are measured from.
        values: Further values by name, (N,) each.
    """
    kernels = {
        name: metric.feature
        for name, metric in evaluator.metrics.items()
        if metric.is_kernel and metric.feature in judged.features
    }
    real = {**evaluator.reference(judged.features), **({} if base is None else {"base_size": base})}
    points, names = {}, {}
    for name, feature in kernels.items():
        points[name] = centred_points(judged.features[feature][:], real[feature][:]).numpy().astype(np.float16)
        names[name] = evaluator.cache.stem if base is None or feature != "base_size" else f"base samples {len(base)}"
    count = len(next(iter(judged.features.values())))
    attributes, right, known = _read(judged.readings, prompts.truths[:count], count)
    held = {name: value.numpy().astype(np.float32) for name, value in values.items()}
    if "repetition" in judged.features:
        held["repetition"] = judged.features["repetition"][:].numpy().astype(np.float32)
    return PerPicture(prompts.first_seed, attributes, right, known, points, names, held)


def record_of(result: Path) -> Path:
    """The file of a result's record."""
    return result.with_suffix(".safetensors")


def write_record(path: Path, record: PerPicture) -> None:
    """Writes a record: readings as bits, points in half precision, values in single precision."""
    tensors = {"right": np.packbits(record.right), "known": np.packbits(record.known)}
    for kind, own in (("points", record.points), ("values", record.values)):
        tensors |= {f"{kind}.{name}": value for name, value in own.items()}
    says = {"first": record.first, "count": len(record), "attributes": record.attributes, "real": record.real}
    write_whole(path, lambda aside: save_file(tensors, aside, {"record": json.dumps(says, sort_keys=True)}))


def read_record(path: Path) -> PerPicture:
    """Reads what `write_record` wrote.

    Raises:
        ValueError: The file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            says = json.loads(file.metadata()["record"])
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
        shape = (says["count"], len(says["attributes"]))
        right, known = (
            np.unpackbits(held[name], count=shape[0] * shape[1]).reshape(shape).astype(bool)
            for name in ("right", "known")
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"record {path} cannot be read; make its result again: {error!r}") from error
    own = [
        {name.removeprefix(f"{kind}."): held[name] for name in held if name.startswith(f"{kind}.")}
        for kind in ("points", "values")
    ]
    return PerPicture(says["first"], tuple(says["attributes"]), right, known, own[0], says["real"], own[1])


def _read(
    readings: Sequence[Any], truths: Sequence[Mapping[str, Any]], count: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Attributes, which of them are read as asked, and which are asked for."""
    if not readings or not truths:
        return (), np.zeros((count, 0), bool), np.zeros((count, 0), bool)
    whole = [
        reading[0] if isinstance(reading, tuple) else reading for reading in readings
    ]  # of a clip, then its frames
    names = tuple(sorted({name for truth in truths for name in truth} & set(whole[0])))
    known = np.array([[name in truth for name in names] for truth in truths], bool)
    right = [
        [name in truth and str(reading[name]) == str(truth[name]) for name in names]
        for reading, truth in zip(whole, truths, strict=True)
    ]
    return names, np.array(right, bool), known
