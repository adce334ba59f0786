"""The measuring process's memory for thousands of pictures at SD's size, with features that are drawn.

    python benchmarks/evaluation_memory.py [--pictures 30000] [--width 2048] [--draws 1] [--metrics fid ...]

adds a row to evaluation_memory.json beside this file. Pictures are there part by part, as from disk; of each, features
of the whole, of three patches and of the base model's size are drawn instead of seen by a network.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcascade.evaluation.image_evaluator import ImageEvaluator
from selfcascade.evaluation.prompts import PromptSet
from selfcascade.metrics.registry import IMAGE_METRICS

RESULTS = Path(__file__).with_suffix(".json")
SIDE, PATCH, PART = 512, 16, 20


class Drawn(ImageEvaluator):
    """Draws features from a normal distribution.

    Args:
        folder: Folder of the cached features.
        count: Number of real pictures.
        width: Number of values in a feature.
        draws: Number of bootstrap draws.
    """

    def __init__(self, folder: Path, count: int, width: int, draws: int) -> None:
        super().__init__(SIDE, SIDE, folder, count, PATCH, draws=draws)
        self.width, self.generator = width, torch.Generator().manual_seed(0)

    @property
    def key(self) -> str:
        """A name."""
        return "drawn"

    def real(self) -> Iterator[Tensor]:
        """Pictures, as those that are measured."""
        return parts(self.real_count)

    def whole(self, pictures: Tensor) -> Tensor:
        """Features of whole pictures."""
        return torch.randn(len(pictures), self.width, generator=self.generator)

    patch = whole


def parts(count: int) -> Iterator[Tensor]:
    """Pictures (n, 3, H, W) in [0, 1], one part of them in memory."""
    part = torch.full((PART, 3, SIDE, SIDE), 0.5)
    for first in range(0, count, PART):
        yield part[: count - first]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", default=["fid", "patch_fid", "fid_b"], choices=list(IMAGE_METRICS))
    given = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.process_time()
    prompts = PromptSet(("a red apple",) * given.pictures, 0)
    with tempfile.TemporaryDirectory() as place:
        evaluator = Drawn(Path(place), given.pictures, given.width, given.draws)
        evaluator.metrics = {name: IMAGE_METRICS[name] for name in given.metrics}
        base = evaluator.base_reference(torch.zeros(PART, 3, 8, 8) for _ in range(given.pictures // PART))
        found = evaluator.evaluate(parts(given.pictures), prompts, base)
        kept = sum(path.stat().st_size for path in Path(place).iterdir())
    row: dict[str, Any] = {**vars(given), "figures": {name: found[name][0] for name in given.metrics}}
    row |= {"libraries_bytes": before, "kept_bytes": kept, "seconds": time.process_time() - began}
    row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
