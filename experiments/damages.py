"""Measures what the readers, the distances and `repetition` report for real renders with known damages.

    python experiments/damages.py

writes damages.json beside the script. The report shows it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from selfcascade.cascade import Size
from selfcascade.evaluation import open_benchmark
from selfcascade.media.whole_files import write_whole
from selfcascade.metrics.damages import LADDER

PLACE = Path(__file__).with_suffix(".json")
RUNS = Path(__file__).parents[1] / "runs/experiments"
SIDE, PICTURES, REAL = 128, 100, 300


def measure(side: int = SIDE, pictures: int = PICTURES, real: int = REAL, runs: Path = RUNS) -> dict[str, object]:
    """Returns the figures of the validation captions' own renders under each damage.

    Args:
        side: Side of the renders, in pixels.
        pictures, real: Number of damaged pictures, and of the real ones they are compared with.
        runs: Folder where the features of the real pictures are cached.
    """
    size = Size(side, side)
    benchmark = open_benchmark("scenes", "scenes", size, split="validation")
    prompts = benchmark.prompts(pictures, 0)
    true = benchmark.true_samples(prompts, range(pictures), size)
    evaluator, found = benchmark.evaluator(side, side, runs, real, protocol=2), {}
    for name, damage in LADDER.items():
        judged = evaluator.judge(damage(true).mul(255).round() / 255, prompts)
        figures = judged.figures
        found[name] = {
            "composition": figures["composition"]["all"],
            "share_over_real": figures["repetition"]["share_over_real"],
            "repetition": figures["repetition"]["mean"],
            "kid": figures["kid"][0],
            "patch_kid": figures["patch_kid"][0],
            "detail": figures["detail"],
        }
        print(name, {key: value for key, value in found[name].items() if key != "detail"}, flush=True)
    return {"side": side, "pictures": pictures, "damages": found}


def rounded(value: object) -> object:
    """Rounds all numbers to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(own) for key, own in value.items()}
    if isinstance(value, list):
        return [rounded(own) for own in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    text = json.dumps(rounded(measure()), indent=1) + "\n"
    write_whole(PLACE, lambda aside: aside.write_text(text))
