"""Averages of weights whose length is chosen after training (post-hoc EMA; Karras et al. 2024, section 3).

Two averages with power-function profiles are kept while a network trains, and snapshots of them are written. Any
other profile is then a linear combination of the snapshots, found by least squares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfcascade.media.whole_files import write_whole

TRACKED = (0.05, 0.10)
SNAPSHOT = re.compile(r"step-([0-9]+)-width-([0-9.]+)\.safetensors")


def exponent_of(width: float) -> float:
    """The exponent of the profile t^exponent whose standard deviation is `width` of the training's length.

    width^2 = (e + 1) / ((e + 2)^2 (e + 3)) (Karras et al. 2024, equation 123).

    Args:
        width: Width of the profile, in (0, 0.289); a wider one is not a growing power function.

    Raises:
        ValueError: The width lies outside this range.
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"width must be above 0 and below {12**-0.5:.3f}, not {width}")
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(roots.real.max())


class PowerAverage:
    """A running average in which step t of T has weight proportional to t^exponent.

    Args:
        weights: The weights by name; the average starts at them.
        width: Width of the profile; see `exponent_of`.
    """

    def __init__(self, weights: Mapping[str, Tensor], width: float) -> None:
        self.width, self.exponent = width, exponent_of(width)
        self.tensors = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Adds the weights after this step, 1 or more."""
        kept = (1 - 1 / step) ** (self.exponent + 1)
        for name, average in self.tensors.items():
            average.lerp_(weights[name].to(average), 1 - kept)

    def save_snapshot(self, folder: Path, step: int) -> None:
        """Writes the average in half precision, atomically."""
        tensors = {name: value.half().cpu().contiguous() for name, value in self.tensors.items()}
        path = folder / f"step-{step:07d}-width-{self.width:g}.safetensors"
        write_whole(path, lambda aside: save_file(tensors, aside))


def combination(steps: Sequence[int], widths: Sequence[float], wanted_step: int, wanted_width: float) -> list[float]:
    """Factors of snapshots whose sum is nearest to the profile of another width (Karras et al. 2024, appendix C).

    Args:
        steps, widths: Steps and widths of the snapshots.
        wanted_step: Step at which the wanted profile ends.
        wanted_width: Width of the wanted profile.
    """
    exponents = [exponent_of(width) for width in widths]
    wanted = exponent_of(wanted_width)
    gram = [[_overlap(a, b) for b in zip(steps, exponents, strict=True)] for a in zip(steps, exponents, strict=True)]
    right = [_overlap(a, (wanted_step, wanted)) for a in zip(steps, exponents, strict=True)]
    # Neighbouring profiles are almost equal: least squares are stable where an exact solution is not.
    return np.linalg.lstsq(np.array(gram), np.array(right), rcond=1e-12)[0].tolist()


def _overlap(a: tuple[int, float], b: tuple[int, float]) -> float:
    """The integral of the product of two normalised profiles (e + 1) t^e / T^(e + 1), each on [0, T]."""
    (first, e), (second, f) = a, b
    shorter = min(first, second)
    # In logarithms: exponents reach 400, whose powers exceed the range of floats.
    log = (e + f + 1) * np.log(shorter) - (e + 1) * np.log(first) - (f + 1) * np.log(second)
    return float((e + 1) * (f + 1) / (e + f + 1) * np.exp(log))


def averaged_weights(folder: Path, width: float, step: int | None = None) -> dict[str, Tensor]:
    """The average of the weights with any width, computed from the snapshots in a folder.

    Args:
        folder: Folder of the snapshots.
        width: Width of the profile; see `exponent_of`.
        step: Step at which the averaged training ends; None means the last snapshot.

    Raises:
        FileNotFoundError: There are no snapshots up to this step.
    """
    found = [(path, match) for path in sorted(folder.glob("*.safetensors")) if (match := SNAPSHOT.fullmatch(path.name))]
    kept = [(path, int(m[1]), float(m[2])) for path, m in found if step is None or int(m[1]) <= step]
    if not kept:
        raise FileNotFoundError(f"{folder} holds no snapshot{'' if step is None else f' up to step {step}'}")
    paths, steps, widths = zip(*kept, strict=True)
    return _sum(paths, combination(steps, widths, step or max(steps), width))


def _sum(paths: Iterable[Path], factors: Sequence[float]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for path, factor in zip(paths, factors, strict=True):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_tensor(name).double() * factor
                total[name] = total[name] + part if name in total else part
    return {name: value.float() for name, value in total.items()}
