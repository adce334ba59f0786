"""Peak memory of turning a clip's latents into frames: all at once, as pipelines do, against a few frames at a time.

    python benchmarks/clip_decoding.py

writes clip_decoding.json and, from it, clip_decoding.md beside this file. The VAE is the bundled one, in an
AnimateDiffPipeline, in float32 on the CPU; each case runs in a process of its own, whose largest resident size counts.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import (  # pyright: ignore[reportPrivateImportUsage]
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    UNetMotionModel,
)
from seconds import cpu

from selfcascade.base_models import family_of
from selfcascade.base_models.decoding import decode_latents
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.request import Request
from selfcascade.cascade import Size
from selfcascade.models import BUNDLED

HERE = Path(__file__).parent
SIDES, FRAMES = (128,), (16, 64)
WAYS = {
    "at once": "the pipeline's `decode_latents` with all frames as one chunk, then `postprocess_video`",
    "in parts": "`SelfCascade`'s own: a megapixel at a time",
    "pivot in parts": "the RGB pivot from half the side: decoded, enlarged, encoded, a megapixel at a time",
}
MIB = 2**20


def animatediff() -> Any:
    """An AnimateDiffPipeline with the bundled VAE; its U-Net, which is not run here, is a small one."""
    vae = AutoencoderKL.from_pretrained(BUNDLED, subfolder="vae", torch_dtype=torch.float32)
    unet = UNetMotionModel(
        block_out_channels=(32, 32),
        down_block_types=("DownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "UpBlockMotion"),
        layers_per_block=1,
    )
    parts: dict[str, Any] = dict(text_encoder=None, tokenizer=None, motion_adapter=None, scheduler=DDIMScheduler())
    return AnimateDiffPipeline(vae=vae, unet=unet, **parts)


def peak() -> float:
    """Largest resident size of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


@torch.no_grad()
def measure(way: str, side: int, frames: int) -> dict[str, float]:
    """MiB above what one decoded frame takes, and seconds of the processor."""
    pipe = animatediff()
    base = PipelineBaseModel(family_of(pipe), Request(), PivotSettings("rgb"))
    latent = side // base.family.factor // (2 if way == "pivot in parts" else 1)
    z = torch.randn(1, pipe.vae.config.latent_channels, frames, latent, latent)
    pipe.vae.decode(z[:, :, 0])
    before, began = peak(), time.process_time()
    if way == "at once":
        pipe.video_processor.postprocess_video(pipe.decode_latents(z, decode_chunk_size=frames), output_type="pil")
    elif way == "in parts":
        decode_latents(base.family, z, "pil")
    else:
        base.upsample(PipelineSample(z), Size(side, side))
    return {"mebibytes": round(peak() - before), "seconds": round(time.process_time() - began, 2)}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Memory of decoding clips", ""]
    lines += [f"MiB above a single decoded frame (seconds), float32 on {results['cpu']}, one thread.", ""]
    lines += [
        "| way | " + " | ".join(f"{side} x {side}, {frames} frames" for side in SIDES for frames in FRAMES) + " |"
    ]
    lines += ["|---" * (1 + len(SIDES) * len(FRAMES)) + "|"]
    for way, text in WAYS.items():
        cases = [results["cases"][f"{way}, {side}, {frames}"] for side in SIDES for frames in FRAMES]
        cells = [f"{case['mebibytes']:.0f} ({case['seconds']:.1f})" for case in cases]
        lines.append(f"| {way}: {text} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "The frames themselves take 3 bytes a pixel: 3 MiB for 64 of 128 x 128.", ""])


def main() -> None:
    """Measures every case in a process of its own."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {"cpu": cpu(), "torch": torch.__version__, "python": platform.python_version()}
    cases = [(way, side, frames) for way in WAYS for side in SIDES for frames in FRAMES]
    # A fork has this process's imports, and a largest resident size of its own.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        measured = pool.starmap(measure, cases, chunksize=1)
    results["cases"] = {", ".join(map(str, case)): result for case, result in zip(cases, measured, strict=True)}
    (HERE / "clip_decoding.json").write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "clip_decoding.md").write_text(table(results))


if __name__ == "__main__":
    main()
