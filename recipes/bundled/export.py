"""Step 5: puts the trained models into the package, in fp16 safetensors, and says how large they are."""

from __future__ import annotations

import shutil

import torch
from diffusers import StableDiffusionPipeline

from common import HERE, RUNS, strip_paths
from selfcascade.metrics.composition import CompositionReader
from selfcascade.metrics.detectors import PatchDetector

BUNDLED = HERE.parents[1] / "src/selfcascade/bundled"
LIMITS = {"image": 24, "reader": 2, "detector": 1}


def main() -> None:
    """Copies the pipeline, the reader and the detector; refuses what is over its size."""
    pipe = StableDiffusionPipeline.from_pretrained(RUNS / "model", dtype=torch.float16, local_files_only=True)
    reader = CompositionReader.from_pretrained(RUNS / "reader/model").half()
    detector = PatchDetector.from_pretrained(RUNS / "detector/model").half()
    for name, model in (("image", pipe), ("reader", reader), ("detector", detector)):
        folder, aside = BUNDLED / name, RUNS / "export" / name
        shutil.rmtree(aside, ignore_errors=True)
        model.save_pretrained(aside, safe_serialization=True)
        strip_paths(aside)
        size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file()) / 1e6
        print(f"{folder.name}: {size:.2f} MB")
        if size > LIMITS[name]:
            raise SystemExit(f"{name} weighs {size:.1f} MB, and {LIMITS[name]} are allowed")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(aside, folder)


if __name__ == "__main__":
    main()
