"""What each method costs on the bundled model, at 4x and 16x the pixels: TFLOPs, memory, passes, seconds.

    python benchmarks/methods.py [--methods NAME ...] [--only count|time] [--steps N] [--repeats N]

writes methods.json, which the report of results reads, and from it methods.md, both beside this file. What is counted
does not depend on the machine's load, so `--only time` measures the seconds again and keeps the rest, and the reverse.
With `--methods` the other methods' figures are kept. CPU seconds are then taken in turns with direct inference, and
scaled by the seconds that it took in the earlier run to those it takes now.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from counting import flop_counter
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.utils import logging
from seconds import PROMPT, SCALE_FACTORS, cpu
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from selfcascade import METHODS, Size, load_bundled
from selfcascade.cost.forward import LiveBytes
from selfcascade.media.whole_files import write_whole
from selfcascade.methods.fine_tuned import lora, whole_unet
from selfcascade.models import load_super_resolver, load_upsamplers
from selfcascade.options.presets import PRESETS
from selfcascade.pipeline import SelfCascade
from selfcascade.training import TrainingConfig
from selfcascade.training.trainables import make_trainable

HERE = Path(__file__).parent
GUIDANCE_SCALE = 3.0  # with 25 steps, what experiments/defaults.json samples with
LORA_RANKS = (4, 32)
WARM_UP_STEPS = 5  # with fewer, none lies below the lowest K that a method starts from


@dataclass(frozen=True)
class Case:
    """A row of the tables.

    Attributes:
        method: A name in `METHODS`.
        arguments: The method's own arguments.
        trained: Number of parameters trained for it, without the base model's.
        models: Models whose weights are in memory while it runs.
        weights: Makes a context in which the pipeline has the method's weights, loaded outside the measurement.
    """

    method: str
    trained: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)
    models: tuple[nn.Module, ...] = ()
    weights: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def __call__(self, pipe: Any, size: Size, steps: int) -> None:
        """One picture, from the prompt to pixels."""
        given = {"num_inference_steps": steps, "guidance_scale": GUIDANCE_SCALE, "output_type": "pt", **self.arguments}
        generator = torch.Generator().manual_seed(0)
        METHODS[self.method](pipe, PROMPT, height=size.height, width=size.width, generator=generator, **given)


def cases(pipe: Any, folder: Path) -> dict[str, Case]:
    """The rows of Tables 1 and 2. What a fine-tuned U-Net costs does not depend on what it learnt: untrained ones do.

    Args:
        pipe: The bundled model.
        folder: Their weights go there.
    """
    found = {name: Case(name) for name in ("direct", "attn-sf", "scalecrafter", "hidiffusion")}
    make_trainable(pipe.unet, TrainingConfig(method="full"), 1000).save(folder / "full-ft", pipe)
    pipe.unet.requires_grad_(False).eval()
    size = pipe.unet.num_parameters()
    found["full-ft"] = Case("direct", size, weights=lambda: whole_unet(pipe, folder / "full-ft"))
    for rank in LORA_RANKS:
        found[f"lora-r{rank}"] = lora_case(pipe, rank, folder / f"lora-r{rank}")
    resolver = load_super_resolver("bundled", "cpu", "float32")
    resolver.set_progress_bar_config(disable=True)
    found["lanczos"] = Case("lanczos")
    found["sr"] = Case("sr", resolver.unet.num_parameters(), {"weights": resolver}, _networks(resolver))
    found["restart-late"] = Case("restart-late")
    found |= {f"self-cascade-{name}": Case("self-cascade", 0, {"preset": name}) for name in PRESETS}
    for name in ("micro", "full"):
        upsamplers = load_upsamplers(name)
        given = {"upsamplers": upsamplers}
        found[f"tuned-{name}"] = Case("self-cascade-tuned", upsamplers.num_parameters(), given, (upsamplers,))
    return found


def lora_case(pipe: Any, rank: int, folder: Path) -> Case:
    """Direct inference with a LoRA on all the layers that training adapts."""
    own = UNet2DConditionModel.from_config(pipe.unet.config)
    trainable = make_trainable(own, TrainingConfig(method="lora", rank=rank), 1000)
    trainable.save(folder, pipe)
    return Case(
        "direct", sum(weight.numel() for weight in trainable.trained().values()), weights=lambda: lora(pipe, folder)
    )


def count(pipe: Any, case: Case, size: Size, steps: int) -> dict[str, Any]:
    """TFLOPs, memory and U-Net passes of one picture, counted on the operations of a real run."""
    passes: Counter[int] = Counter()

    def seen(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, UNet2DConditionModel):
            passes[inputs[0].shape[-1]] += 1

    hook = register_module_forward_pre_hook(seen)
    counter = flop_counter()
    try:
        with case.weights(), LiveBytes() as memory, counter:
            weights = sum(_bytes(module) for module in (*_networks(pipe), *case.models))
            case(pipe, size, steps)
    finally:
        hook.remove()
    sides = {str(side * pipe.vae_scale_factor): number for side, number in sorted(passes.items())}
    return {
        "tflops": counter.get_total_flops() / 1e12,
        "peak_bytes": weights + memory.peak,
        "weights_bytes": weights,
        "unet_passes": sides,
    }


def measure(
    steps: int, repeats: int, only: str | None, held: dict[str, Any], methods: Sequence[str] = ()
) -> dict[str, Any]:
    """All figures; those that are not measured now are those held.

    Args:
        steps, repeats, only, methods: As the flags say; no methods: all.
        held: What was measured before.

    Raises:
        ValueError: There is no such method, or nothing measured before that the others' figures would come from.
    """
    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    native = SelfCascade(pipe).native_size
    sizes = {factor**2: Size(native.height * factor, native.width * factor) for factor in SCALE_FACTORS}
    same = held.get("steps") == steps
    measured = {(row["pixels"], row["method"]): row for row in held.get("rows", []) if same}
    results = {"steps": steps, "guidance_scale": GUIDANCE_SCALE, "native": list(native), "torch": torch.__version__}
    results["timing"] = held.get("timing") if same else None
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found = cases(pipe, Path(folder))
        chosen = _chosen(found, methods, measured)
        rows = {(pixels, name): {"pixels": pixels, "size": list(sizes[pixels])} for pixels in sizes for name in found}
        for (pixels, name), row in rows.items():
            row |= {**measured.get((pixels, name), {}), "method": name, "trained_parameters": found[name].trained}
            if only != "time" and name in chosen:
                row |= count(pipe, found[name], sizes[pixels], steps)
                print(f"{pixels}x {name}: {row['tflops']:.3f} TFLOP, {row['peak_bytes'] / 2**20:.0f} MiB", flush=True)
        if only != "count":
            results["timing"] = held["timing"] if methods else _machine(repeats)
            clock = time.process_time if methods else time.perf_counter
            taken = timed(pipe, chosen, sizes, steps, repeats, clock)
            for (pixels, name), seconds in taken.items():
                if not methods:
                    rows[pixels, name]["seconds"] = seconds
                elif name != "direct":
                    scale = median(measured[pixels, "direct"]["seconds"]) / median(taken[pixels, "direct"])
                    rows[pixels, name]["seconds"] = [scale * one for one in seconds]
    return {**results, "rows": list(rows.values())}


def _chosen(found: dict[str, Case], methods: Sequence[str], measured: dict[tuple[int, str], Any]) -> dict[str, Case]:
    """The cases to measure: those methods and direct inference, with which their seconds are compared."""
    unknown = [name for name in methods if name not in found]
    if unknown:
        raise ValueError(f"--methods must be of {', '.join(found)}, not {', '.join(unknown)}")
    before = [row for (_, name), row in measured.items() if name == "direct" and "seconds" in row]
    if methods and not before:
        raise ValueError("--methods needs an earlier run of all methods with these steps")
    return {name: case for name, case in found.items() if not methods or name in (*methods, "direct")}


def timed(
    pipe: Any,
    found: dict[str, Case],
    sizes: dict[int, Size],
    steps: int,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[tuple[int, str], list[float]]:
    """Seconds of every case at every size. All take turns, so that a change of the load meets them all.

    The largest size is run once, the smaller ones `repeats` times.
    """
    seconds: dict[tuple[int, str], list[float]] = {(pixels, name): [] for pixels in sizes for name in found}
    for warm, turn in [(True, 0), *((False, turn) for turn in range(repeats))]:
        for (pixels, name), values in seconds.items():
            if turn > 0 and pixels == max(sizes):
                continue
            with found[name].weights():
                began = clock()
                found[name](pipe, sizes[pixels], WARM_UP_STEPS if warm else steps)
                values += [] if warm else [clock() - began]
    return seconds


def _machine(repeats: int) -> dict[str, Any]:
    threads = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    return {"repeats": repeats, "cpu": cpu(), **threads}


def _networks(pipe: Any) -> tuple[nn.Module, ...]:
    return tuple(part for part in pipe.components.values() if isinstance(part, nn.Module))


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# What each method costs",
        "",
        f"Written by `python benchmarks/methods.py`: one picture of the bundled model, {results['steps']} steps,",
        f"guidance {results['guidance_scale']}, float32, from the prompt to pixels, with text encoder and base sample.",
        "TFLOPs are those of `torch.utils.flop_counter` on the real run (matrix products, convolutions, attention; two",
        "operations a multiply-add). Memory is the weights of all networks used and the most bytes of tensors alive at",
        "once, without a kernel's workspace. A U-Net pass, counted by the side of its pictures, has two latents where",
        "there is guidance. Trained parameters: the base model's aside.",
        _timing(results["timing"]),
    ]
    for pixels in sorted({row["pixels"] for row in results["rows"]}):
        rows = [row for row in results["rows"] if row["pixels"] == pixels]
        direct = next(row for row in rows if row["method"] == "direct")
        height, width = rows[0]["size"]
        head = "| method | trained parameters | U-Net passes | TFLOP | to direct | memory, MiB | seconds | to direct |"
        lines += ["", f"## {pixels}x the pixels, {height}x{width}", "", head, "|---" * 8 + "|"]
        lines += [_line(row, direct) for row in rows]
    return "\n".join([*lines, ""])


def _timing(timing: dict[str, Any] | None) -> str:
    if timing is None:
        return "Seconds were not measured."
    return (
        f"Seconds: all methods in turns after a warm-up; median of {timing['repeats']} runs at the smaller size, one "
        f"at the larger;\n{timing['threads']} threads on {timing['cores']} cores, {timing['cpu']}; load average "
        f"{timing['load']:.1f} before the start."
    )


def _line(row: dict[str, Any], direct: dict[str, Any]) -> str:
    passes = ", ".join(f"{side}: {number}" for side, number in row.get("unet_passes", {}).items()) or "-"
    cells = [row["method"], f"{row['trained_parameters']:,}" if row["trained_parameters"] else "-", passes]
    counted = "tflops" in row and "tflops" in direct
    cells += [f"{row['tflops']:.3g}", f"{row['tflops'] / direct['tflops']:.2f}x"] if counted else ["-", "-"]
    cells.append(f"{row['peak_bytes'] / 2**20:.0f}" if counted else "-")
    if row.get("seconds") and direct.get("seconds"):
        own = median(row["seconds"])
        cells += [f"{own:.2f}", f"{own / median(direct['seconds']):.2f}x"]
    else:
        cells += ["-", "-"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="measure these, keep the others")
    parser.add_argument("--only", choices=("count", "time"), help="measure these figures, keep the others")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3, help="of the timing at the smaller size")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of methods.json and methods.md")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of loading LoRAs that leave the text encoder alone
    logging.set_verbosity_error()
    path = given.output / "methods.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    results = measure(given.steps, given.repeats, given.only, held, given.methods)
    write_whole(path, lambda aside: aside.write_text(json.dumps(results, indent=1) + "\n"))
    write_whole(given.output / "methods.md", lambda aside: aside.write_text(report(json.loads(path.read_text()))))


if __name__ == "__main__":
    main()
