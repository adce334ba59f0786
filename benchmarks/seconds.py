"""Seconds of direct inference, the self-cascade and plain Lanczos enlargement, on the bundled model, in one run.

    python benchmarks/seconds.py [--model DIR] [--steps N] [--repeats N]

writes seconds.json and, from it, seconds.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from selfcascade import METHODS, SelfCascade, Stage, load_model
from selfcascade.cost.plan import estimate

HERE = Path(__file__).parent
PROMPT = "a large red house on the left at night"
SCALE_FACTORS = (2, 4)  # a side; 4x and 16x the pixels
PAPER_TIME = 1.04  # of direct inference's, at 4x the pixels (Guo et al. 2024, Table 1)
WARM_UP_STEPS = 2

Way = Callable[[int, int, int], object]  # height, width, steps


def ways(pipe: Any, native: tuple[int, int]) -> dict[str, Way]:
    """What is compared, each from the prompt to the finished picture."""

    def run(method: str, height: int, width: int, steps: int) -> Image.Image:
        generator = torch.Generator().manual_seed(0)
        size = {"height": height, "width": width, "num_inference_steps": steps}
        made = METHODS[method](pipe, PROMPT, **size, preset="paper", generator=generator)
        return made.images[0]

    def lanczos(height: int, width: int, steps: int) -> Image.Image:
        return run("direct", *native, steps).resize((width, height), Image.Resampling.LANCZOS)

    return {
        "direct": lambda *size_and_steps: run("direct", *size_and_steps),
        "self-cascade": lambda *size_and_steps: run("self-cascade", *size_and_steps),
        "base sample + Lanczos": lanczos,
    }


def estimated(pipe: Any, height: int, width: int, steps: int) -> dict[str, float | None]:
    """What `selfcascade plan` says beforehand."""
    cascade = SelfCascade(pipe)
    native = cascade.native_size
    plans = {
        "direct": SelfCascade(pipe, native_size=(height, width)).plan(height, width, steps),
        "self-cascade": cascade.plan(height, width, steps, preset="paper"),
        "base sample + Lanczos": (Stage(0, 1, native, steps),),
    }
    totals: dict[str, float | None] = {}
    for name, stages in plans.items():
        seconds = [cost.seconds for cost in estimate(pipe, stages)]
        totals[name] = None if None in seconds else sum(value for value in seconds if value is not None)
    return totals


def run(model: str, steps: int, repeats: int) -> dict[str, Any]:
    """All timings. The ways take turns, so that a change of the machine's load meets them all."""
    load = os.getloadavg()[0]
    pipe = load_model(model, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    native = SelfCascade(pipe).native_size
    sizes = {factor**2: (native.height * factor, native.width * factor) for factor in SCALE_FACTORS}
    compared = ways(pipe, native)
    seconds: dict[tuple[int, str], list[float]] = {(pixels, name): [] for pixels in sizes for name in compared}
    forecasts = {pixels: estimated(pipe, *size, steps) for pixels, size in sizes.items()}
    for pixels, name in seconds:
        compared[name](*sizes[pixels], WARM_UP_STEPS)
    for _ in range(repeats):
        for pixels, name in seconds:
            began = time.perf_counter()
            compared[name](*sizes[pixels], steps)
            seconds[pixels, name].append(time.perf_counter() - began)
    rows = [
        {
            "pixels": pixels,
            "size": list(sizes[pixels]),
            "method": name,
            "seconds": values,
            "median": median(values),
            "ratio": median(values) / median(seconds[pixels, "direct"]),
            "estimated": forecasts[pixels][name],
        }
        for (pixels, name), values in seconds.items()
    ]
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": load}
    asked = {"model": Path(model).name, "native": list(native), "steps": steps, "repeats": repeats}
    return {**asked, **machine, "torch": torch.__version__, "paper_time": PAPER_TIME, "rows": rows}


def cpu() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    height, width = results["native"]
    lines = [
        "# Seconds of direct inference, the self-cascade and plain enlargement",
        "",
        f"Written by `python benchmarks/seconds.py`: model {results['model']}, native size {height}x{width}, "
        f"{results['steps']} steps, from prompt to picture;",
        f"median of {results['repeats']} interleaved repeats after a warm-up. torch {results['torch']} on the CPU,",
        f"threads: {results['threads']} of {results['cores']} cores, {results['cpu']}; load average "
        f"{results['load']:.1f} before the start.",
        "The last column is what `selfcascade plan` says beforehand.",
        "",
        "| pixels | size | method | seconds | least to most | ratio to direct | estimated |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        spread = f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f}"
        forecast = "-" if row["estimated"] is None else f"{row['estimated']:.2f}"
        place = f"{row['pixels']}x | {row['size'][0]}x{row['size'][1]} | {row['method']}"
        lines.append(f"| {place} | {row['median']:.2f} | {spread} | {row['ratio']:.2f}x | {forecast} |")
    return "\n".join([*lines, "", _against_paper(results), ""])


def _against_paper(results: dict[str, Any]) -> str:
    row = next(row for row in results["rows"] if row["method"] == "self-cascade")
    order = "less" if row["ratio"] < results["paper_time"] else "more"
    return (
        f"At {row['pixels']}x the pixels the self-cascade takes {row['ratio']:.2f}x the time of direct inference, "
        f"{order} than the {results['paper_time']}x that the paper reports for SD 2.1."
    )


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="bundled", help="bundled, or a folder in diffusers' format")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE, help="folder of seconds.json and seconds.md")
    given = parser.parse_args()
    results = run(given.model, given.steps, given.repeats)
    (given.output / "seconds.json").write_text(json.dumps(results, indent=1) + "\n")
    (given.output / "seconds.md").write_text(report(results))


if __name__ == "__main__":
    main()
