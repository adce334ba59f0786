"""Step 5: puts the trained models into the package, in fp16 safetensors, and prints their sizes."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline

from common import RUNS, ship
from selfcascade.metrics.composition import CompositionReader
from selfcascade.metrics.detectors import PatchDetector


def main() -> None:
    """Ships the pipeline, the reader and the detector."""
    ship(
        "image", StableDiffusionPipeline.from_pretrained(RUNS / "model", dtype=torch.float16, local_files_only=True), 24
    )
    ship("reader", CompositionReader.from_pretrained(RUNS / "reader/model").half(), 2)
    ship("detector", PatchDetector.from_pretrained(RUNS / "detector/model").half(), 1)


if __name__ == "__main__":
    main()
