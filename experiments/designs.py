"""Alternative designs of the feature upsamplers; trains and measures those whose results are missing.

python experiments/designs.py SUITE [NAME ...]      SUITE: micro-designs or full-designs; NAME: default all of it
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, silu

from selfcascade.experiments import runs_of
from selfcascade.upsamplers.levels import DESIGNS, FULL_DESIGNS, FullLevel, MicroLevel, depthwise, enlarged

SUITES = Path(__file__).parent
RUNS = Path("runs/experiments")


class Sum(MicroLevel):
    """x = u + a(t) silu(k1 * u), r = b(t) (k2 * up(x)) + c(t) (k3 * h): weighted sums of both features."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        a, b, c = gains
        x = u + a * silu(depthwise(u, self.kernels[0]))
        return b * depthwise(enlarged(x, h), self.kernels[1]) + c * depthwise(h, self.kernels[2])


class PivotOnly(MicroLevel):
    """r = b(t) (k2 * up(x)): nothing of the stage's own features."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        a, b, _ = gains
        x = u + a * silu(depthwise(u, self.kernels[0]))
        return b * depthwise(enlarged(x, h), self.kernels[1])


class Linear(MicroLevel):
    """r = b(t) (k2 * up(u)) + c(t) (k3 * h): no residual block at the pivot's size."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        _, b, c = gains
        return b * depthwise(enlarged(u, h), self.kernels[1]) + c * depthwise(h, self.kernels[2])


class Constant(Sum):
    """Sum with gains that do not depend on t, for twice as many channel groups."""

    def __init__(self, channels: Sequence[int], groups: int, knots: int, pivot_step: int) -> None:
        super().__init__(channels, groups * 2, 1, pivot_step)


class Deep(Sum):
    """Sum, in levels with a skip of 128 channels or more: the two deepest of the bundled U-Net, alone."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        return super().residual(gains, u, h) * (max(self.channels) >= 128)

    def __init__(self, channels: Sequence[int], groups: int, knots: int, pivot_step: int) -> None:
        super().__init__(channels, groups, knots, pivot_step)
        self.channels = tuple(channels)


class Shallow(Deep):
    """Only the other levels."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        return Sum.residual(self, gains, u, h) * (max(self.channels) < 128)


class Matched(MicroLevel):
    """r = b(t) (v - h) + c(t) (k3 * h): v = k2 * up(x) with the mean and spread that h has in each channel."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        a, b, c = gains
        x = u + a * silu(depthwise(u, self.kernels[0]))
        larger = depthwise(enlarged(x, h), self.kernels[1])
        spread, mean = torch.std_mean(larger, (2, 3), keepdim=True)
        own_spread, own_mean = torch.std_mean(h, (2, 3), keepdim=True)
        v = (larger - mean) / (spread + 1e-5) * own_spread + own_mean
        return b * (v - h) + c * depthwise(h, self.kernels[2])


class BandsMatched(MicroLevel):
    """As `micro`, with the pivot's features given the mean and spread of down(h) in each channel first."""

    def residual(self, gains: Sequence[Tensor], u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        a, b, c = gains
        low = interpolate(h, size=u.shape[-2:], mode="area")
        spread, mean = torch.std_mean(u, (2, 3), keepdim=True)
        own_spread, own_mean = torch.std_mean(low, (2, 3), keepdim=True)
        d = (u - mean) / (spread + 1e-5) * own_spread + own_mean - low
        d = d + a * silu(depthwise(d, self.kernels[0]))
        return b * enlarged(depthwise(d, self.kernels[1]), h) + c * depthwise(h - enlarged(low, h), self.kernels[2])


class FullAtStage(FullLevel):
    """As `full`, in the paper's order: the pivot's features are enlarged first, and the blocks see the stage's size."""

    def prepared(self, pivot: Sequence[Tensor], timestep: Tensor, temb: Tensor) -> Tensor:
        """See the class."""
        self.temb = temb  # the stage's size is first known in `one`
        return self.joined(pivot)

    def one(self, made: Tensor, index: int, u: Tensor, h: Tensor) -> Tensor:
        """See the class."""
        return self.outs[index](self.through_blocks(enlarged(made, h), self.temb))


TRIED = {
    "micro-sum": Sum,
    "micro-pivot-only": PivotOnly,
    "micro-linear": Linear,
    "micro-constant": Constant,
    "micro-deep": Deep,
    "micro-shallow": Shallow,
    "micro-matched": Matched,
    "micro-bands-matched": BandsMatched,
}


def main() -> None:
    """Makes the missing results."""
    DESIGNS.update(TRIED)
    FULL_DESIGNS["full-at-stage"] = FullAtStage
    if not sys.argv[1:]:
        sys.exit("a suite must be given: micro-designs or full-designs")
    suite, *names = sys.argv[1:]
    for run in runs_of(SUITES / suite, names, RUNS):
        run.make()


if __name__ == "__main__":
    main()
