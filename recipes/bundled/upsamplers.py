"""Step 7: trains the feature upsamplers of the bundled base at 2x a side, and puts them into the package.

Usage: upsamplers.py [NAME ...]    "micro", "full" (default: all); each is resumed if it was interrupted
"""

from __future__ import annotations

import shutil
import sys

import selfcascade
from common import CONFIG, HERE, RUNS, strip_paths
from selfcascade.training import TrainingConfig, run_training

SETTINGS = CONFIG["upsamplers"]
SHIPPED = HERE.parents[1] / "src/selfcascade/bundled/upsamplers"


def train(name: str) -> None:
    """Trains one preset on scenes, and writes it in half precision."""
    folder = RUNS / "upsamplers" / name
    settings = {**SETTINGS["shared"], **SETTINGS[name]}
    given = {**settings, "output_dir": str(folder), "resume_from_checkpoint": "latest"}
    run_training(TrainingConfig(method="upsamplers", preset=name, model="bundled", train_data="scenes", **given))
    upsamplers = selfcascade.FeatureUpsamplers.from_pretrained(str(folder))
    shutil.rmtree(SHIPPED / name, ignore_errors=True)
    upsamplers.half().save_pretrained(SHIPPED / name)
    strip_paths(SHIPPED / name)
    print(f"{name}: {upsamplers.num_parameters()} parameters", flush=True)


def main() -> None:
    """Trains the named upsamplers."""
    for name in sys.argv[1:] or ["micro", "full"]:
        train(name)


if __name__ == "__main__":
    main()
