"""FLOPs of every method on models of public proportions, at up to 4096 pixels a side, beside direct inference.

    python benchmarks/costs.py [--models NAME ...]

writes costs.json and, from it, costs.md beside this file; where models are named, the others' figures are kept. Nothing
has weights: the planner counts presets as `selfcascade plan` does, and methods that change a U-Net are counted on every
step of the schedule. So a preset that changes only needs the command again. `tomesd` and `hidiffusion (package)` are
counted where the packages are installed (hidiffusion_peer.py says how), and else keep their earlier figures.
Seconds and measured memory are in turns.md (`turns.py`).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pipelines import MODELS, Model
from unet_methods import HIDIFFUSION_PACKAGE, PEERS, STEPS, of_unets, upsampling_adds

from selfcascade import PRESETS, FeatureUpsamplers, SelfCascade, Size
from selfcascade.cost.plan import estimate_call, kind_of, scheduled_steps
from selfcascade.cost.steps import StepCosts
from selfcascade.media.whole_files import write_whole
from selfcascade.methods.restart_late import LATE
from selfcascade.options import Options

HERE = Path(__file__).parent
ATTENTION = ("full", "local")
TUNED, SAMPLING = ("micro", "full"), "quality"  # as training makes them


@dataclass(frozen=True)
class Cost:
    """TFLOPs of one picture or clip.

    Attributes:
        network: Of the network.
        vae: Of the VAE, at the end and for pivots; None for clips.
        last: Of the network in the last stage.
        stages: Size and number of steps of each stage.
    """

    network: float
    vae: float | None
    last: float
    stages: tuple[tuple[Size, int], ...]


def planned(cascade: SelfCascade, model: Model, size: Size, **given: Any) -> Cost:
    """The cost that the planner states for a call."""
    call: dict[str, Any] = {**size._asdict(), "num_inference_steps": STEPS, **given}
    options, stages = Options(**call, **model.options), cascade.plan(**call)
    steps = StepCosts(cascade.family, 1, model.options.get("num_frames"), cascade.native_size, model.words)
    attention = cascade.chosen_preset(options).attention
    if model.options:  # a clip's VAE would take minutes to count
        counts, whole = [scheduled_steps(cascade.pipe.scheduler, stage) for stage in stages], None
    else:
        costs = estimate_call(cascade, stages, options, arguments=model.words)
        counts, whole = [cost.steps for cost in costs], sum(cost.tflops or math.nan for cost in costs)
    own = [
        steps.flops(stage.size, kind_of(stage, True, attention), number) / 1e12
        for stage, number in zip(stages, counts, strict=True)
    ]
    vae = None if whole is None else whole - sum(own)
    return Cost(sum(own), vae, own[-1], tuple(zip((stage.size for stage in stages), counts, strict=True)))


def measure(name: str) -> list[dict[str, Any]]:
    """A row a method, kind of attention and size."""
    model, rows = MODELS[name], list[dict[str, Any]]()
    pipe = model.pipe()
    cascade = SelfCascade(pipe)
    tuned = {preset: tuned_cascade(pipe, preset) for preset in TUNED} if model.is_unet else {}
    for title, size in model.sizes.items():
        whole = planned(SelfCascade(pipe, native_size=size), model, size)
        found: dict[tuple[str, str], Cost] = {("direct", "full"): whole}
        for method, tflops in (of_unets(pipe, model.native, size) if model.is_unet else {}).items():
            found[method, "full"] = replace(whole, network=tflops, last=tflops)
        for attention in ATTENTION:
            found["restart-late", attention] = planned(cascade, model, size, preset=LATE, attention=attention)
            for preset in PRESETS:
                found[preset, attention] = planned(cascade, model, size, preset=preset, attention=attention)
            for preset, own in tuned.items():
                cost = planned(own, model, size, attention=attention)
                adds = upsampling_adds(pipe, own.upsamplers, cost.stages)  # pyright: ignore[reportArgumentType]
                found[f"tuned {preset}", attention] = replace(cost, network=cost.network + adds)
        for (method, attention), cost in found.items():
            own = {"model": name, "size": title, "height": size.height, "width": size.width}
            steps = [[*size, number] for size, number in cost.stages]
            rows.append({**own, "method": method, "attention": attention, **vars(cost), "stages": steps})
        print(name, title, flush=True)
    return rows


def tuned_cascade(pipe: Any, preset: str) -> SelfCascade:
    """A cascade with upsamplers as training makes them."""
    with torch.device("meta"):
        upsamplers = FeatureUpsamplers.from_unet(pipe.unet, preset, upsampling="rgb", sampling_preset=SAMPLING)
    return SelfCascade(pipe, upsamplers)


def run(names: list[str], held: dict[str, Any]) -> dict[str, Any]:
    """All figures; those that are not counted now are those held."""
    earlier = held.get("rows", [])
    rows = []
    for name in MODELS:
        before = [row for row in earlier if row["model"] == name]
        now = measure(name) if name in names else before
        peers = {(row["method"], row["size"]): row for row in before + now if row["method"] in PEERS}
        rows += [row for row in now if row["method"] not in PEERS] + list(peers.values())
    return {
        "torch": torch.__version__,
        "steps": STEPS,
        "presets": {n: p.attention for n, p in PRESETS.items()}
        | {f"tuned {name}": PRESETS[SAMPLING].attention for name in TUNED},
        "rows": rows,
    }


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# What each method costs on published models",
        "",
        f"Written by `python benchmarks/costs.py`: one picture or clip, {results['steps']} steps, with the pipeline's",
        "guidance, as a share of direct inference at the same size. Networks have the public proportions, no weights;",
        f"FLOPs are those of `torch.utils.flop_counter` (torch {results['torch']}). The first figure is of the",
        "network, the second has the VAE with its pivots too (not for clips). In bold: the attention that a preset has",
        "of itself. Fine-tuned U-Nets and LoRAs sampled at the target size cost what direct inference does. Tuned",
        f"versions have K = 0.7 T, and all else as `{SAMPLING}` has it. HiDiffusion and ScaleCrafter are those of this",
        f"repository. `{HIDIFFUSION_PACKAGE}` is its authors' own, with its own schedule. It is counted only where it",
        "is installed: `pip install --no-deps --target FOLDER hidiffusion==0.1.10`, with FOLDER on `PYTHONPATH`. On",
        "SD 2.1-base at 1K it costs what `hidiffusion` does. At 2K and 4K it pools within the second level in the",
        "first 15 steps, and `hidiffusion` after it. On SDXL it leaves the first level's downsampler as it is, keeps",
        "all or part of the second level at full size, and so costs more.",
    ]
    for model in dict.fromkeys(row["model"] for row in results["rows"]):
        lines += [
            "",
            f"## {model}",
            "",
            *table([row for row in results["rows"] if row["model"] == model], results["presets"]),
        ]
    return "\n".join([*lines, "", *flatness(results["rows"]), ""])


def table(rows: list[dict[str, Any]], presets: dict[str, str]) -> list[str]:
    """A model's methods, each with its shares of direct inference by size."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    direct = {row["size"]: row for row in rows if row["method"] == "direct"}
    heads = [f"{size}, {direct[size]['width']}x{direct[size]['height']}" for size in sizes]
    lines = [f"| method | attention | {' | '.join(heads)} |", "|---" * (2 + len(sizes)) + "|"]
    totals = [" / ".join(f"{value:,.0f}" for value in sums_of(direct[size])) + " TFLOP" for size in sizes]
    lines.append(f"| direct | full | {' | '.join(totals)} |")
    for method, attention in dict.fromkeys((row["method"], row["attention"]) for row in rows):
        if method == "direct":
            continue
        own = {row["size"]: row for row in rows if (row["method"], row["attention"]) == (method, attention)}
        shares = [
            " / ".join(f"{a / b:.3f}" for a, b in zip(sums_of(own[size]), sums_of(direct[size]), strict=True))
            if size in own
            else "-"
            for size in sizes
        ]
        bold = f"**{attention}**" if presets.get(method) == attention else attention
        lines.append(f"| {method} | {bold} | {' | '.join(shares)} |")
    return lines


def sums_of(row: dict[str, Any]) -> tuple[float, ...]:
    """TFLOPs of the network, and with the VAE where it was counted."""
    return (row["network"],) if row["vae"] is None else (row["network"], row["network"] + row["vae"])


def flatness(rows: list[dict[str, Any]]) -> list[str]:
    """TFLOPs a pixel of `quality` with local attention, relative to the smallest size."""
    lines = ["## `quality` with local attention: FLOPs a pixel, relative to the smallest size", ""]
    lines += ["| model | size | a step of the last stage | the whole run, network | the whole run |", "|---" * 5 + "|"]
    first: dict[str, list[float]] = {}
    for row in rows:
        if (row["method"], row["attention"]) != ("quality", "local"):
            continue
        network, *whole = sums_of(row)
        each = [
            value / (row["height"] * row["width"]) for value in (row["last"] / row["stages"][-1][-1], network, *whole)
        ]
        base = first.setdefault(row["model"], each)
        shares = " | ".join(f"{own / one:.2f}" for own, one in zip(each, base, strict=True))
        lines.append(f"| {row['model']} | {row['size']} | {shares}{' | -' * (not whole)} |")
    return lines


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of costs.json and costs.md")
    given = parser.parse_args()
    path = given.output / "costs.json"
    results = run(given.models, json.loads(path.read_text()) if path.exists() else {})
    write_whole(path, lambda aside: aside.write_text(json.dumps(results, indent=1) + "\n"))
    write_whole(given.output / "costs.md", lambda aside: aside.write_text(report(json.loads(path.read_text()))))


if __name__ == "__main__":
    main()
