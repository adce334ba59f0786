"""Seconds and peak memory of every method as shares of direct inference, on a mid-size U-Net with random weights.

    python benchmarks/turns.py [--rounds N] [--methods NAME ...] [--sizes 4x|16x ...] [--output DIR]

writes turns.json and, from it, turns.md beside this file. All methods take turns on one thread of the CPU, in rounds of
a process each, every round in another order. Seconds are those of the process, so that other work on the machine counts
little. Memory is the peak of the resident set during a call, minus what was resident before (Linux), with a malloc that
hands back what is freed. `tomesd` is measured where it is installed, and else keeps its earlier figures.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pipelines import NOISE, library
from planner import HANDED_BACK, embeddings, resident
from seconds import cpu
from unet_methods import merging

from selfcascade import METHODS, PRESETS, FeatureUpsamplers, Size
from selfcascade.media.whole_files import write_whole

HERE = Path(__file__).parent
STEPS, NATIVE = 8, 128
WARM_UP_STEPS = 5  # with fewer, none lies below the lowest K that a method starts from
SIZES = {"4x": Size(2 * NATIVE, 2 * NATIVE), "16x": Size(4 * NATIVE, 4 * NATIVE)}
WIDTH = 768  # of the prompt's embeddings
ATTENTION = ("full", "local")
SAMPLING = "quality"  # as training makes feature upsamplers
AT_TARGET = ("direct", "hidiffusion", "scalecrafter", "tomesd")
CASCADES = ("restart-late", *PRESETS, "tuned micro", "tuned full")


def pipeline() -> Any:
    """A Stable Diffusion pipeline with a quarter of the widths, which takes seconds a picture."""
    unet = library.UNet2DConditionModel(
        sample_size=NATIVE // 8, block_out_channels=(64, 128, 256, 256), cross_attention_dim=WIDTH, attention_head_dim=8
    )
    vae = library.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        latent_channels=4,
    )
    parts = vae, None, None, unet, library.DDIMScheduler(**NOISE), None, None
    pipe = library.StableDiffusionPipeline(*parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def names() -> list[tuple[str, str]]:
    """All methods with their attention."""
    return [(name, "full") for name in AT_TARGET] + [(name, kind) for kind in ATTENTION for name in CASCADES]


def call(pipe: Any, method: str, attention: str, size: Size, steps: int) -> None:
    """One picture."""
    given: dict[str, Any] = {**size._asdict(), "num_inference_steps": steps, "guidance_scale": 5.0, "output_type": "pt"}
    given |= {**embeddings(WIDTH), "generator": torch.Generator().manual_seed(0)}
    if method in AT_TARGET:
        with merging(pipe) if method == "tomesd" else contextlib.nullcontext():
            METHODS["direct" if method == "tomesd" else method](pipe, None, **given)
        return
    given["attention"] = attention
    if method in PRESETS:
        METHODS["self-cascade"](pipe, None, preset=method, **given)
    elif method.startswith("tuned "):
        settings = {"upsampling": "rgb", "sampling_preset": SAMPLING}
        upsamplers = FeatureUpsamplers.from_unet(pipe.unet, method.removeprefix("tuned "), **settings)
        METHODS["self-cascade-tuned"](pipe, None, upsamplers=upsamplers, **given)
    else:
        METHODS[method](pipe, None, **given)


def take_turns(number: int, chosen: list[str], sizes: list[str]) -> list[dict[str, Any]]:
    """One round: each method at each size once."""
    torch.manual_seed(0)
    pipe, rows = pipeline(), list[dict[str, Any]]()
    turns = [(size, *name) for size in sizes for name in names() if name[0] in chosen]
    random.Random(number).shuffle(turns)
    with torch.no_grad():
        for method in dict.fromkeys(method for _, method, _ in turns):  # loads the kernels
            call(pipe, method, "local", SIZES["4x"], WARM_UP_STEPS)
        for size, method, attention in turns:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
            before, began = resident("VmRSS"), time.process_time()
            call(pipe, method, attention, SIZES[size], STEPS)
            taken = {"seconds": time.process_time() - began, "peak": resident("VmHWM") - before}
            rows.append({"size": size, "method": method, "attention": attention, **taken})
    return rows


def measure(rounds: int, chosen: list[str], sizes: list[str], held: dict[str, Any]) -> dict[str, Any]:
    """All figures; those of methods and sizes that are not measured now are those held."""
    environment = {**os.environ, **HANDED_BACK, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        command = [sys.executable, __file__, "--round", str(number), "--methods", *chosen, "--sizes", *sizes]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found += json.loads(done.stdout.splitlines()[-1])
        print(f"round {number + 1} of {rounds}", flush=True)
    earlier = {(row["size"], row["method"], row["attention"]): row for row in held.get("rows", [])}
    rows = []
    for size in SIZES:
        for method, attention in names():
            own = [row for row in found if (row["size"], row["method"], row["attention"]) == (size, method, attention)]
            if own:
                taken = {figure: [row[figure] for row in own] for figure in ("seconds", "peak")}
                rows.append({"size": size, "method": method, "attention": attention, **taken})
            elif (size, method, attention) in earlier:
                rows.append(earlier[size, method, attention])
    presets = {name: preset.attention for name, preset in PRESETS.items()}
    presets |= {name: PRESETS[SAMPLING].attention for name in CASCADES if name.startswith("tuned ")}
    return {"cpu": cpu(), "torch": torch.__version__, "steps": STEPS, "presets": presets, "rows": rows}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Seconds and peak memory of each method",
        "",
        "Written by `python benchmarks/turns.py`: one picture of a mid-size U-Net with random weights, native size",
        f"{NATIVE}, {results['steps']} steps with guidance, from embeddings to pixels; one thread, {results['cpu']},",
        f"torch {results['torch']}. All methods in turns; medians of the process's own seconds, and of the peak of the",
        "resident set above the weights. In bold: the attention that a preset has of itself; tuned rows have the",
        f"settings of `{SAMPLING}`. Maps are smaller than those of published models, whose shares are in",
        "[costs.md](costs.md).",
        "",
    ]
    held = {(row["size"], row["method"], row["attention"]): row for row in results["rows"]}
    sizes = [size for size in SIZES if (size, "direct", "full") in held]
    heads = [f"{size} the pixels, {figure}" for figure in ("seconds", "memory") for size in sizes]
    lines += [f"| method | attention | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for method, attention in dict.fromkeys((row["method"], row["attention"]) for row in results["rows"]):
        cells = []
        for figure, unit in (("seconds", "s"), ("peak", "MiB")):
            for size in sizes:
                own, base = held.get((size, method, attention)), median(held[size, "direct", "full"][figure])
                value = median(own[figure]) if own else None
                if method == "direct":
                    cells.append(f"{base:.1f} {unit}" if unit == "s" else f"{base / 2**20:.0f} {unit}")
                else:
                    cells.append("-" if value is None else f"{value / base:.2f}")
        bold = f"**{attention}**" if results["presets"].get(method) == attention else attention
        lines.append(f"| {method} | {bold} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Writes both files; as a process of `measure`'s, prints the rows of a round."""
    known = list(dict.fromkeys(name for name, _ in names() if name != "tomesd" or find_spec("tomesd")))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--output", type=Path, default=HERE, help="folder of turns.json and turns.md")
    parser.add_argument("--round", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.round is not None:
        print(json.dumps(take_turns(given.round, given.methods, given.sizes)))
        return
    path = given.output / "turns.json"
    results = measure(given.rounds, given.methods, given.sizes, json.loads(path.read_text()) if path.exists() else {})
    write_whole(path, lambda aside: aside.write_text(json.dumps(results, indent=1) + "\n"))
    write_whole(given.output / "turns.md", lambda aside: aside.write_text(report(json.loads(path.read_text()))))


if __name__ == "__main__":
    main()
