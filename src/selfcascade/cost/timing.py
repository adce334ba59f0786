"""Estimates seconds of forward passes: a few are timed, and the others follow from their FLOPs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

import torch

Shape = tuple[int, int, int]  # (B, h, w) of latents
# A network. A second size may take ten times as long once: one alone is mostly overhead where it is small.
TIMING_SECONDS = 0.6
clock = time.perf_counter  # of all timed passes


class PassTimes:
    """Measured seconds of passes at some shapes, and expected seconds at others.

    A pass takes a constant overhead, and a time in proportion to its FLOPs.

    Args:
        run: Runs a pass at a shape, and returns how many seconds it took.
        flops: FLOPs of a pass at a shape.
        timed: Seconds of the shapes measured so far; more are added.
    """

    def __init__(
        self, run: Callable[[Shape], float], flops: Callable[[Shape], int], timed: dict[Shape, float] | None = None
    ) -> None:
        self.run, self.flops, self.timed = run, flops, {} if timed is None else timed

    def seconds(self, wanted: Iterable[Shape]) -> dict[Shape, float]:
        """Seconds for each shape: timed from small to large for `TIMING_SECONDS`, the rest estimated.

        Raises:
            torch.OutOfMemoryError: The smallest pass does not fit into memory.
        """
        shapes = sorted(set(wanted), key=self.flops)
        batch, h, w = shapes[0]
        first = (
            [] if self.timed else [(batch, 8 * math.ceil(h / part), 8 * math.ceil(w / part)) for part in (64, 32, 16)]
        )
        unlike = {self.flops(shape): shape for shape in (*first, *shapes)}  # mirrored shapes cost the same
        known = {self.flops(done) for done in self.timed}
        self._time([unlike[flops] for flops in sorted(unlike.keys() - known)])
        return {shape: self.foretold(shape) for shape in shapes}

    def foretold(self, shape: Shape) -> float:
        """Seconds measured at these FLOPs, or from the line through the largest measured pass and one half as large.

        They are proportional to the FLOPs if there is no such other pass, or if the larger one was faster by chance.
        """
        seconds = {self.flops(done): taken for done, taken in self.timed.items()}
        wanted, largest = self.flops(shape), max(seconds)
        if wanted in seconds:
            return seconds[wanted]
        proportional = seconds[largest] * wanted / largest
        half = max((flops for flops in seconds if 2 * flops <= largest), default=None)
        if half is None or seconds[largest] <= seconds[half]:
            return proportional
        line = seconds[largest] + (seconds[largest] - seconds[half]) / (largest - half) * (wanted - largest)
        return line if wanted > largest else max(line, proportional)

    def _time(self, shapes: Sequence[Shape]) -> None:
        """Runs passes of growing FLOPs, each twice: the first run at a shape chooses its kernels."""
        if not self.timed and shapes:
            self.run(shapes[0])  # a network's first run loads kernels, and would use up the time
        left = TIMING_SECONDS
        for shape in (shape for shape in shapes for _ in range(2)):
            second = len(self.timed) == 1 and shape not in self.timed
            if self.timed and self.foretold(shape) > (10 * TIMING_SECONDS if second else left):
                if shape in self.timed:
                    continue
                return
            try:
                seconds = self.run(shape)
            except torch.OutOfMemoryError:
                if not self.timed:
                    raise
                return  # the rest is estimated, so that the caller learns how much it would take
            self.timed[shape] = min(seconds, self.timed.get(shape, math.inf))
            left -= seconds
