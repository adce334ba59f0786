"""Step 6: measures the bundled models on held-out captions, and writes docs/bundled.json and its tables.

Each method's pictures are made in numbered groups whose readings are kept, so an interrupted measurement goes on.
Usage: evaluate.py [part parts]   measure (several processes share the groups)
       evaluate.py report         write the tables from what is there
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import selfcascade
from common import HERE, RUNS, write_json
from selfcascade.data.scenes import Scene, caption, render, sample_scene
from selfcascade.metrics.composition import CompositionReader, accuracy

STEPS, GUIDANCE, GROUP = 25, 3.0, 20
FIRST_SEED = 50_000_000
OUT = RUNS / "evaluation"
# name: (pixels a side, pictures, pivot step, upsampling); a pivot step of None is the direct method
RUNS_TO_MAKE: dict[str, tuple[int, int, int | None, str]] = {
    "base 64": (64, 500, None, ""),
    "direct 128": (128, 200, None, ""),
    "tuning-free 128 K=700 bilinear": (128, 500, 700, "latent-bilinear"),
    "tuning-free 128 K=700 rgb": (128, 500, 700, "rgb"),
    "tuning-free 128 K=600 rgb": (128, 200, 600, "rgb"),
    "direct 256": (256, 20, None, ""),
    "tuning-free 256 K=700 rgb": (256, 100, 700, "rgb"),
    "tuning-free 256 K=700 bilinear": (256, 60, 700, "latent-bilinear"),
}


def scene(index: int) -> Scene:
    """The index-th held-out scene of the measurement."""
    return sample_scene(FIRST_SEED + index, held_out=True)


def make(name: str, group: int, pipe: StableDiffusionPipeline, reader: CompositionReader) -> None:
    """Makes and reads one group of a method's pictures, if that is not done."""
    side, _, pivot_step, upsampling = RUNS_TO_MAKE[name]
    path = OUT / name.replace(" ", "_") / f"{group:03d}.json"
    if path.exists():
        return
    began, readings = time.time(), []
    for start in range(group * GROUP, (group + 1) * GROUP, GROUP if side < 256 else 4):
        indices = list(range(start, min(start + (GROUP if side < 256 else 4), (group + 1) * GROUP)))
        prompts = [caption(scene(k), k) for k in indices]
        settings = {
            "height": side,
            "width": side,
            "num_inference_steps": STEPS,
            "guidance_scale": GUIDANCE,
            "generator": [torch.Generator().manual_seed(k) for k in indices],
            "output_type": "pt",
        }
        if pivot_step is None:
            out = selfcascade.METHODS["direct"](pipe, prompts, **settings)
        else:
            out = selfcascade.SelfCascade(pipe)(prompts, pivot_step=pivot_step, upsampling=upsampling, **settings)
        readings += reader.read(out.images)
        if group == 0:
            folder = path.parent / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            for index, image in zip(indices, out.images, strict=True):
                array = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                Image.fromarray(array).save(folder / f"{index:04d}.png")
    rows = {"readings": readings, "truths": [scene(k).truth for k in range(group * GROUP, (group + 1) * GROUP)]}
    write_json(path, {**rows, "seconds": time.time() - began})
    score = accuracy(readings, rows["truths"])
    print(f"{name} group {group}: all {score['all']:.2f}, count {score['count']:.2f}", flush=True)


@torch.no_grad()
def autoencoder_error(pipe: StableDiffusionPipeline, count: int = 100) -> dict[int, float]:
    """Mean PSNR in dB of the autoencoder's round trip on held-out renders, at each size."""
    result = {}
    for side in (64, 128, 256):
        values = []
        for k in range(count if side < 256 else count // 4):
            x = torch.from_numpy(render(scene(k), side, side)).permute(2, 0, 1)[None]
            y = pipe.vae.decode(pipe.vae.encode(x * 2 - 1).latent_dist.mode()).sample.clamp(-1, 1) / 2 + 0.5
            values.append(-10 * math.log10(float(torch.mean((x - y) ** 2))))
        result[side] = float(np.mean(values))
    return result


def measure(part: int = 0, parts: int = 1) -> None:
    """Makes every group that is missing, the small methods first."""
    torch.set_num_threads(1)
    pipe = selfcascade.load_bundled()
    pipe.set_progress_bar_config(disable=True)
    reader = CompositionReader.from_pretrained(selfcascade.__path__[0] + "/bundled/reader").float().eval()
    jobs = [(name, group) for name, (_, n, *_rest) in RUNS_TO_MAKE.items() for group in range(n // GROUP)]
    for name, group in jobs[part::parts]:
        make(name, group, pipe, reader)


def report() -> None:
    """Writes docs/bundled.json from the groups that exist."""
    result: dict = {"steps": STEPS, "guidance_scale": GUIDANCE, "methods": {}}
    for name in RUNS_TO_MAKE:
        groups = [json.loads(path.read_text()) for path in sorted((OUT / name.replace(" ", "_")).glob("*.json"))]
        if not groups:
            continue
        readings = [row for group in groups for row in group["readings"]]
        truths = [row for group in groups for row in group["truths"]]
        score = accuracy(readings, truths)
        error = math.sqrt(score["all"] * (1 - score["all"]) / len(truths))
        result["methods"][name] = {"pictures": len(truths), "standard_error": error, **score}
        for objects in (1, 2):
            kept = [k for k, truth in enumerate(truths) if truth["count"] == objects]
            part = accuracy([readings[k] for k in kept], [truths[k] for k in kept])
            result["methods"][name][f"all_with_{objects}"] = part["all"]
    result["autoencoder_psnr"] = autoencoder_error(selfcascade.load_bundled())
    result["reader"] = json.loads((RUNS / "reader/accuracy.json").read_text())
    write_json(HERE.parents[1] / "docs/bundled.json", result)
    for name, row in result["methods"].items():
        print(f"{name:34} n {row['pictures']:4}  all {row['all']:.3f}  count {row['count']:.3f}")
    print(result["autoencoder_psnr"])


if __name__ == "__main__":
    if sys.argv[1:] == ["report"]:
        report()
    else:
        measure(*(int(word) for word in sys.argv[1:]))
