"""TFLOPs of direct inference and of the self-cascade for the U-Nets of SD 2.1-base and SDXL 1.0, without weights.

    python benchmarks/flops.py

writes flops.json and, from it, flops.md beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from torch.utils.flop_counter import FlopCounterMode
from unet_methods import inputs

from selfcascade import PRESETS, FeatureUpsamplers, Size, Stage, plan_stages
from selfcascade.cost.forward import ForwardCost, unet_cost
from selfcascade.cost.plan import scheduled_steps
from selfcascade.upsamplers.skip_features import adding_skip_features, read_skip_features

HERE = Path(__file__).parent
STEPS = 50
LATENT_FACTOR = 8
PAPER_TIME = 1.04  # of direct inference's, SD 2.1 at 4x the pixels (Guo et al. 2024, Table 1)

SD_21_BASE: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
SDXL_BASE: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# Name, configuration, native side, target sides.
MODELS = (
    ("SD 2.1-base", SD_21_BASE, 512, (1024, 2048, 4096)),
    ("SDXL-base-1.0", SDXL_BASE, 1024, (2048, 4096)),
)


def forward(config: dict[str, Any], size: Size) -> ForwardCost:
    """One pass with a single latent of this size."""
    return unet_cost(config, size.height // LATENT_FACTOR, size.width // LATENT_FACTOR)


def measure_forwards(name: str, config: dict[str, Any], sides: list[int]) -> list[dict[str, Any]]:
    """A row a size: TFLOPs of a pass, the attention's part of them, activations in float32."""
    rows = []
    for side in sides:
        cost = forward(config, Size(side, side))
        share = cost.attention_flops / cost.flops
        row = {"model": name, "side": side, "tflops": cost.flops / 1e12, "attention": share, "bytes": cost.peak_bytes}
        rows.append(row)
    return rows


def compare(name: str, native: int, target: int, tflops: dict[int, float]) -> dict[str, Any]:
    """A picture of the target size, both ways, with the paper's preset and guidance: two passes a step."""
    scheduler = DDIMScheduler(steps_offset=1)  # Stable Diffusion's own
    pivot_step = round(PRESETS["paper"].pivot_share * scheduler.config["num_train_timesteps"])
    sizes = plan_stages((native, native), (target, target))
    plan = [Stage(r, len(sizes), size, STEPS, pivot_step if r else None) for r, size in enumerate(sizes)]
    stages = [{"side": stage.size.height, "steps": scheduled_steps(scheduler, stage)} for stage in plan]
    direct = 2 * STEPS * tflops[target]
    cascade = sum(2 * stage["steps"] * tflops[stage["side"]] for stage in stages)
    whole = sum(2 * STEPS * tflops[stage["side"]] for stage in stages)
    return {
        "model": name,
        "side": target,
        "pixels": (target // native) ** 2,
        "stages": stages,
        "direct_tflops": direct,
        "cascade_tflops": cascade,
        "ratio": cascade / direct,
        "ratio_if_all_steps": whole / direct,
    }


def measure_upsamplers(name: str, config: dict[str, Any], native: int) -> list[dict[str, Any]]:
    """A row a preset: what the tuned version adds to a stage at 4x the pixels, as a share of the stage's FLOPs."""
    side = native // LATENT_FACTOR
    steps = compare(name, native, 2 * native, {native: 0.0, 2 * native: 1.0})["stages"][-1]["steps"]
    rows = []
    with torch.device("meta"), torch.no_grad():
        unet = UNet2DConditionModel.from_config(config)
        pivot, z_t = (torch.empty(2, config["in_channels"], s, s) for s in (side, 2 * side))
        conditions = inputs(unet)
        timestep = torch.tensor(500)
        with FlopCounterMode(display=False) as plain:
            unet(z_t, timestep, **conditions)
        with FlopCounterMode(display=False) as reading:
            features = read_skip_features(unet, pivot, **conditions)
        for preset in ("micro", "full"):
            upsamplers = FeatureUpsamplers.from_unet(unet, preset)
            with FlopCounterMode(display=False) as tuned, adding_skip_features(unet, upsamplers, features):
                unet(z_t, timestep, **conditions)
            step = tuned.get_total_flops() / plain.get_total_flops() - 1
            row = {"model": name, "preset": preset, "parameters": upsamplers.num_parameters(), "step": step}
            rows.append({**row, "stage": step + reading.get_total_flops() / plain.get_total_flops() / steps})
    return rows


def run() -> dict[str, Any]:
    """All figures."""
    forwards: list[dict[str, Any]] = []
    totals: list[dict[str, Any]] = []
    tuned: list[dict[str, Any]] = []
    for name, config, native, targets in MODELS:
        rows = measure_forwards(name, config, [native, *targets])
        tflops = {row["side"]: row["tflops"] for row in rows}
        forwards += rows
        totals += [compare(name, native, target, tflops) for target in targets]
        tuned += measure_upsamplers(name, config, native)
    settings = {"torch": torch.__version__, "steps": STEPS, "paper_time": PAPER_TIME}
    return {**settings, "forwards": forwards, "totals": totals, "upsamplers": tuned}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    steps, paper = results["steps"], results["paper_time"]
    lines = [
        "# FLOPs of direct inference and of the self-cascade",
        "",
        "Written by `python benchmarks/flops.py`: U-Nets of the public configurations, on meta tensors, so no weights.",
        f"Counted by `torch.utils.flop_counter` (torch {results['torch']}): matrix products, convolutions and",
        "attention, two operations a multiply-add. The VAE's decode, the same for both ways, is left out.",
        "",
        "## One U-Net pass, one latent",
        "",
        "| model | size | TFLOP | of them in attention | activations, float32 |",
        "|---|---|---|---|---|",
    ]
    for row in results["forwards"]:
        figures = f"{_figure(row['tflops'])} | {row['attention']:.0%} | {row['bytes'] / 2**30:.2f} GiB"
        lines.append(f"| {row['model']} | {row['side']}x{row['side']} | {figures} |")
    largest = max(results["forwards"], key=lambda row: row["attention"])
    lines += [
        "",
        "Attention is over all latent pixels at once, without windows, and grows with the square of the area, to",
        f"{largest['attention']:.0%} of {largest['model']}'s FLOPs at {largest['side']}x{largest['side']}. Activations",
        "are the most bytes alive at once where a fused kernel runs attention and its matrix of weights never exists.",
        "",
        f"## One picture, {steps} steps with guidance",
        "",
        "| model | size | pixels | stages: side (steps) | direct, TFLOP | self-cascade, TFLOP | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["totals"]:
        stages = ", ".join(f"{stage['side']} ({stage['steps']})" for stage in row["stages"])
        figures = f"{row['direct_tflops']:,.0f} | {row['cascade_tflops']:,.0f} | {row['ratio']:.3f}x"
        lines.append(f"| {row['model']} | {row['side']}x{row['side']} | {row['pixels']}x | {stages} | {figures} |")
    lines += ["", *_against_paper(results["totals"][0], steps, paper), ""]
    lines += [
        "## What feature upsamplers add at 4x the pixels",
        "",
        "| model | preset | parameters | a step | a stage, reading the pivot's features included |",
        "|---|---|---|---|---|",
    ]
    for row in results["upsamplers"]:
        figures = f"{row['parameters']:,} | {row['step']:.2%} | {row['stage']:.2%}"
        lines.append(f"| {row['model']} | {row['preset']} | {figures} |")
    return "\n".join([*lines, ""])


def _against_paper(row: dict[str, Any], steps: int, paper: float) -> list[str]:
    order = "less" if row["ratio"] < paper else "more"
    tail = row["stages"][-1]["steps"]
    saved, base = 1 - tail / steps, row["ratio"] - tail / steps
    return [
        f"The paper reports {paper}x the time of direct inference for {row['model']} at {row['pixels']}x the pixels.",
        f"By FLOPs it is {row['ratio']:.2f}x, {abs(row['ratio'] / paper - 1):.0%} {order}: "
        f"the last stage runs {tail} of {steps} steps and saves {saved:.0%} of direct inference, and the stages before",
        f"cost {base:.0%} of it. Were all {steps} steps run at each stage, that were {row['ratio_if_all_steps']:.2f}x.",
    ]


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def main() -> None:
    """Writes both files."""
    (HERE / "flops.json").write_text(json.dumps(run(), indent=1) + "\n")
    (HERE / "flops.md").write_text(report(json.loads((HERE / "flops.json").read_text())))


if __name__ == "__main__":
    main()
