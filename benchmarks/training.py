"""Time and memory of a training step: feature upsamplers and LoRAs against the whole U-Net.

    python benchmarks/training.py [--device cuda] [--repeats N]     everything
    python benchmarks/training.py --count                           what is counted anew; what was measured stays

writes training.json and, from it, training.md beside this file. The bundled model's steps run, each method in a process
of its own; those of SD 2.1-base at 512 -> 1024 are counted (`counting.py`), and with `--device cuda` run too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from counting import counted_step
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from flops import SD_21_BASE
from seconds import cpu
from torch import Tensor

from selfcascade.base_models.local_attention import OneStep, local_attention
from selfcascade.base_models.windows import Grid
from selfcascade.models import BUNDLED
from selfcascade.training import TrainingConfig
from selfcascade.training.trainables import cast_frozen, make_trainable
from selfcascade.upsamplers.skip_features import read_skip_features

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "full-ft": {"method": "full"},
    "lora-r32": {"method": "lora", "rank": 32},
    "lora-r4": {"method": "lora", "rank": 4},
    "full": {"method": "upsamplers", "preset": "full"},
    "micro": {"method": "upsamplers", "preset": "micro"},
}
METHODS |= {f"{name}, local": {**given, "attention": "local"} for name, given in METHODS.items()}
CACHED = {"cache_pivot_features": True, "cache_latents": "nowhere"}  # made beforehand, so that nothing is written
METHODS |= {f"{name}, local, cached": {**METHODS[f"{name}, local"], **CACHED} for name in ("full", "micro")}
METHODS["full-ft, checkpointed"] = {"method": "full", "gradient_checkpointing": True}
METHODS |= {
    f"{name}, local, checkpointed": {**METHODS[f"{name}, local"], "gradient_checkpointing": True}
    for name in ("full-ft", "lora-r4", "full", "micro")
}
SHOWN = {"full-ft": "whole U-Net", "full": "upsamplers `full`", "micro": "upsamplers `micro`"}
SHOWN |= {f"lora-r{rank}": f"LoRA r{rank}" for rank in (4, 32)}
# Name: (pictures of a step, latent side of the stage).
MODELS = {"bundled": (8, 32), "SD 2.1-base": (1, 128)}
# Of SD 2.1-base: exactly, and as it is trained in practice.
SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"mixed_precision": "bf16"},
}
MEASURED = ("seconds", "least", "most", "peak")


class Step:
    """One optimizer step of a method on random latents, without data and VAE, which all methods share."""

    def __init__(self, model: str, method: str, device: str, setting: str = "float32") -> None:
        self.count, self.side = MODELS[model]
        config = TrainingConfig(**METHODS[method], **SETTINGS[setting])
        given = UNet2DConditionModel.load_config(str(BUNDLED / "unet")) if model == "bundled" else SD_21_BASE
        with torch.device(device):
            self.unet = UNet2DConditionModel.from_config(given)
            self.trainable = make_trainable(self.unet, config, 700)
        if config.frozen_dtype is not None:
            cast_frozen(self.unet, config.frozen_dtype)
        self.local, self.cached = config.attention == "local", config.cache_pivot_features
        self.mixed, self.device = config.mixed_precision == "bf16", torch.device(device).type
        self.ready(device)

    def ready(self, device: str) -> None:
        """Latents, captions and an optimizer, where the weights are."""
        with torch.device(device):
            shape = (self.count, self.unet.config["in_channels"])
            z_t, pivot = torch.randn(*shape, self.side, self.side), torch.randn(*shape, self.side // 2, self.side // 2)
            words = torch.randn(self.count, 77, self.unet.config["cross_attention_dim"])
            z_t, pivot, words = (x.to(self.unet.dtype) for x in (z_t, pivot, words))
            self.given = (z_t, torch.full((self.count,), 500), {"encoder_hidden_states": words}, pivot)
        if self.cached:
            features = read_skip_features(self.unet, pivot, encoder_hidden_states=words)
            self.trainable.cache = SimpleNamespace(read=lambda *_: features)
        self.weights = [weight for weight in self.trainable.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights)

    def forward(self) -> Tensor:
        """The loss."""
        with torch.autocast("cpu" if self.device == "meta" else self.device, torch.bfloat16, enabled=self.mixed):
            prediction = self.trainable(*self.given)
        return prediction.float().square().mean()

    def __call__(self) -> None:
        """Forward, backward, AdamW."""
        grids = (Grid(1, side, side) for side in (self.side, self.side // 2))
        with local_attention(self.unet, *grids, OneStep(1)) if self.local else contextlib.nullcontext():
            self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def counted(model: str, method: str, setting: str) -> dict[str, Any]:
    """FLOPs of forward and backward, and the most bytes alive at once in a whole step."""
    step = Step(model, method, "meta", setting)
    upsamplers = getattr(step.trainable, "upsamplers", None)
    if upsamplers is not None:
        upsamplers.check_unet = lambda unet: None  # weights without values have no fingerprint
    trained = sum(weight.numel() for weight in step.weights)
    return {"trained": trained, **counted_step(step, [step.unet, step.trainable])}


def run_steps(model: str, method: str, device: str, repeats: int, setting: str = "float32") -> dict[str, Any]:
    """Median seconds and peak bytes of steps that run, over what was there before the model."""
    cuda = device.startswith("cuda")
    torch.manual_seed(0)
    before = 0 if cuda else resident("VmRSS")
    step = Step(model, method, device, setting)
    for _ in range(2):
        step()
    if cuda:
        torch.cuda.synchronize()  # the warm-up's work is not the first step's
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    # On a CPU the process's own seconds, which the work of others changes little.
    clock, seconds = time.perf_counter if cuda else time.process_time, []
    for _ in range(repeats):
        began = clock()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(clock() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM") - before
    return {"seconds": median(seconds), "least": min(seconds), "most": max(seconds), "peak": peak}


def resident(which: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {which}")


def apart(model: str, method: str, device: str, repeats: int, setting: str) -> dict[str, Any]:
    """`run_steps` in a process of its own, whose memory nothing else has used."""
    one = ["--one", model, method, setting]
    command = [sys.executable, __file__, *one, "--device", device, "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(device: str, repeats: int, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """All figures; those that were measured are taken from earlier results, if these are given."""
    rows = []
    for model in MODELS:
        for setting in SETTINGS if model != "bundled" else ("float32",):
            for method in METHODS:
                row = {"model": model, "setting": setting, "method": method, **counted(model, method, setting)}
                if earlier is not None:
                    row |= measured(earlier, row)
                elif model == "bundled" or device.startswith("cuda"):
                    row |= apart(model, method, device, repeats, setting)
                rows.append(row)
                print(json.dumps(row), flush=True)
    if earlier is not None:
        return {**{key: value for key, value in earlier.items() if key != "rows"}, "rows": rows}
    name = torch.cuda.get_device_name() if device.startswith("cuda") else cpu()
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads(), "rows": rows}


def measured(earlier: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What earlier results have of this model, method and setting that was measured."""
    for old in earlier["rows"]:
        if all(old.get(key, "float32") == row[key] for key in ("model", "method", "setting")):
            return {key: old[key] for key in MEASURED if key in old}
    return {}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Time and memory of a training step",
        "",
        "Written by `python benchmarks/training.py`: forward, backward and AdamW on random latents, without data",
        "and VAE, which all methods share. FLOPs are of forward and backward, the pivot's reading included. Counted",
        "bytes are those of all storages alive: between steps (weights and AdamW's moments), and at most within one,",
        "as a GPU would run it (`benchmarks/counting.py`: memory-efficient attention; an allocator's rounding and",
        "workspaces are left out). In bf16 the passes run under autocast; what is trained is in float32 with float32",
        "gradients and moments, and what is frozen is held in bf16, as by `selfcascade train --mixed_precision bf16`.",
        "`local` is attention in windows of the native size; `cached` reads the pivot's features from disk;",
        "`checkpointed` is with gradient checkpointing.",
        f"Seconds, on a CPU its own, and measured peak: {results['device']}, {results['threads']} threads, torch "
        f"{results['torch']}.",
    ]
    for model, (count, side) in MODELS.items():
        lines += ["", f"## {model}, {count} picture{'s' * (count > 1)} a step, latents of {side // 2} -> {side}"]
        for setting in SETTINGS:
            rows = [row for row in results["rows"] if (row["model"], row["setting"]) == (model, setting)]
            lines += ["", *([f"### {setting}", ""] if model != "bundled" else []), *table(rows)] if rows else []
    return "\n".join([*lines, ""])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The methods' rows, each with its ratio to the first's, as Markdown; without seconds where none were measured."""
    columns = {"flops": ("TFLOPs", 1e12), "kept": ("GB between steps", 1e9), "peak_counted": ("peak GB, counted", 1e9)}
    if "seconds" in rows[0]:
        columns |= {"seconds": ("seconds", 1.0), "peak": ("peak GB, measured", 1e9)}
    lines = [" | ".join(["| trained | parameters", *(f"{title} | ratio" for title, _ in columns.values())]) + " |"]
    lines.append("|---" * (2 + 2 * len(columns)) + "|")
    for row in rows:
        name, *settings = row["method"].split(", ")
        parts = [", ".join([SHOWN[name], *settings]), f"{row['trained']:,}"]
        for name, (_, unit) in columns.items():
            parts += [f"{row[name] / unit:.3g}", f"{row[name] / rows[0][name]:.2f}x"]
        lines.append("| " + " | ".join(parts) + " |")
    return lines


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--count", action="store_true", help="what is counted anew; what was measured stays")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "METHOD", "SETTING"), help="only this; prints JSON")
    given = parser.parse_args()
    if given.one:
        model, method, setting = given.one
        print(json.dumps(run_steps(model, method, given.device, given.repeats, setting)))
        return
    earlier = json.loads((HERE / "training.json").read_text()) if given.count else None
    results = measure(given.device, given.repeats, earlier)
    (HERE / "training.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "training.md").write_text(report(results))


if __name__ == "__main__":
    main()
