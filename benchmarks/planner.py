"""What `selfcascade plan` says beforehand against what a run takes: seconds and memory, on one thread of the CPU.

    python benchmarks/planner.py [--only CASE ...] [--output DIR]

writes planner.json beside this file and, from it, the table of docs/memory.md. Every figure comes from a process of its
own, which builds a mid-size model with random weights. Seconds are CPU seconds of that process, so that other work on
the machine counts little. Memory is the peak of the resident set during the call, minus the resident set before it
(Linux), when a tiny call has loaded the kernels: once with a malloc that hands back what is freed, as the plan has it,
and once with its defaults, which keep freed blocks under 32 MiB for later.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from seconds import cpu

from selfcascade import SelfCascade
from selfcascade.cost import timing
from selfcascade.cost.plan import estimate
from selfcascade.media.whole_files import write_whole

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "memory.md"
START, END = "<!-- table: benchmarks/planner.py -->", "<!-- end of table -->"
library: Any = diffusers  # its annotations say `tuple[int]` and classes where longer tuples and None are meant
TOKENS = 77


def autoencoder(channels: int) -> Any:
    """A VAE of Stable Diffusion's layout, half as wide."""
    return library.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 128, 256, 256),
        latent_channels=channels,
        shift_factor=0.0,
    )


def unet() -> tuple[Any, dict[str, Any]]:
    """A Stable Diffusion pipeline of 256 pixels, and the embeddings that stand for its prompt."""
    network = library.UNet2DConditionModel(
        sample_size=32, block_out_channels=(128, 256, 512, 512), cross_attention_dim=768, attention_head_dim=8
    )
    pipe = library.StableDiffusionPipeline(
        autoencoder(4), *(None, None), network, library.DDIMScheduler(), *(None, None), requires_safety_checker=False
    )  # fmt: skip
    return pipe, embeddings(768)


def transformer() -> tuple[Any, dict[str, Any]]:
    """A Stable Diffusion 3 pipeline of 256 pixels, and the embeddings that stand for its prompt."""
    network = library.SD3Transformer2DModel(
        sample_size=32, num_layers=8, num_attention_heads=12, caption_projection_dim=768, joint_attention_dim=1024,
        pos_embed_max_size=64, out_channels=16, pooled_projection_dim=768,
    )  # fmt: skip
    pipe = library.StableDiffusion3Pipeline(
        network, library.FlowMatchEulerDiscreteScheduler(), autoencoder(16), *(None,) * 6
    )  # fmt: skip
    return pipe, {**embeddings(1024), **embeddings(768, "pooled_", pooled=True)}


def embeddings(width: int, what: str = "", pooled: bool = False) -> dict[str, Any]:
    """Of a prompt and of no prompt."""
    shape = (1, width) if pooled else (1, TOKENS, width)
    return {f"{kind}{what}prompt_embeds": torch.zeros(shape) for kind in ("", "negative_")}


@dataclass(frozen=True)
class Case:
    """A call whose cost is told beforehand, and taken.

    Attributes:
        build: Makes the pipeline.
        side: Pixels of the result's sides.
        arguments: Of the call.
    """

    build: Callable[[], tuple[Any, dict[str, Any]]]
    side: int
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


STEPS = {"num_inference_steps": 2, "guidance_scale": 5.0, "pivot_step": 600}
CASES = {
    "U-Net, paper": Case(unet, 384, {"preset": "paper", **STEPS}),
    "U-Net, rgb": Case(unet, 384, {"preset": "rgb", **STEPS}),
    "transformer, paper": Case(transformer, 384, {"preset": "paper", **STEPS}),
    "transformer, local": Case(transformer, 384, {"preset": "rgb", "attention": "local", **STEPS}),
}


def planned(case: Case) -> dict[str, Any]:
    """Seconds of each stage, and bytes of activations, that the plan says."""
    pipe, words = case.build()
    cascade = SelfCascade(pipe)
    timing.clock = time.process_time
    stages = cascade.plan(case.side, case.side, **case.arguments)
    began = time.process_time()
    costs = estimate(
        pipe, stages, upsampling=case.arguments["preset"].replace("paper", "latent-bilinear"),
        attention=case.arguments.get("attention", "full"), native=cascade.native_size, arguments=words,
    )  # fmt: skip
    weights = sum(parameter.nbytes for part in (cascade.family.denoiser, pipe.vae) for parameter in part.parameters())
    return {
        "seconds": [cost.seconds for cost in costs],
        "memory": max(cost.peak_bytes or 0 for cost in costs) - weights,
        "planning": time.process_time() - began,
    }


def taken(case: Case) -> dict[str, Any]:
    """Seconds of each stage, and bytes beyond those before it, that the call takes."""
    pipe, words = case.build()
    pipe.set_progress_bar_config(disable=True)
    cascade, ends = SelfCascade(pipe), dict[int, float]()

    def told(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        ends[values["stage"].index] = time.process_time()
        return {}

    SelfCascade(pipe, native_size=(64, 64))(
        height=64, width=64, num_inference_steps=1, output_type="pt", **words
    )  # loads the kernels
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, began = resident("VmRSS"), time.process_time()
    cascade(height=case.side, width=case.side, output_type="pt", generator=torch.Generator().manual_seed(0),
            callback_on_step_end=told, **case.arguments, **words)  # fmt: skip
    peak, ended = resident("VmHWM"), time.process_time()
    return {"seconds": [ends[0] - began, ended - ends[0]], "memory": peak - before, "decoding": ended - ends[1]}


def resident(name: str) -> int:
    """A figure of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


PARTS = {"plan": planned, "run": taken, "run, malloc as it is": taken}
HANDED_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def measure(names: list[str]) -> dict[str, Any]:
    """All figures, each from a process of its own on one thread."""
    rows: dict[str, Any] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in names:
        for part in PARTS:
            malloc = HANDED_BACK if part == "run" else {}
            command = [sys.executable, __file__, "--case", name, "--part", part]
            done = subprocess.run(command, env=environment | malloc, check=True, capture_output=True, text=True)
            rows.setdefault(name, {})[part] = json.loads(done.stdout.splitlines()[-1])
        print(name, rows[name], flush=True)
    return {"cpu": cpu(), "torch": torch.__version__, "diffusers": library.__version__, "cases": rows}


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"torch {results['torch']}, diffusers {results['diffusers']}, {results['cpu']}, one thread.",
        "",
        "| call | seconds planned | taken | ratio | MiB planned | taken | ratio | malloc's defaults | planning, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in results["cases"].items():
        plan, run = row["plan"], row["run"]
        other = row["run, malloc as it is"]
        told, real = sum(plan["seconds"]), min(sum(run["seconds"]), sum(other["seconds"]))
        seconds = [f"{told:.1f}", f"{real:.1f}", f"{told / real:.2f}"]
        memory = [f"{one['memory'] / 2**20:.0f}" for one in (plan, run)] + [f"{plan['memory'] / run['memory']:.2f}"]
        memory.append(f"{other['memory'] / 2**20:.0f}")
        lines.append(f"| {' | '.join([name, *seconds, *memory, format(plan['planning'], '.1f')])} |")
    return "\n".join(lines)


def with_table(page: str, text: str) -> str:
    """The page with this text between its two marks."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Writes both; as a process of `measure`'s, prints one figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of planner.json")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(PARTS[given.part](CASES[given.case])))
        return
    results = measure(given.only)
    write_whole(given.output / "planner.json", lambda aside: aside.write_text(json.dumps(results, indent=1) + "\n"))
    if given.only == list(CASES) and given.output == HERE:
        text = with_table(PAGE.read_text(), table(results))
        write_whole(PAGE, lambda aside: aside.write_text(text))


if __name__ == "__main__":
    main()
