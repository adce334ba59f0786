"""Time and memory of a training step: feature upsamplers and LoRAs against the whole U-Net.

    python benchmarks/training.py [--device cuda] [--repeats N]

writes training.json and, from it, training.md beside this file. The bundled model's steps run, each method in a process
of its own; those of SD 2.1-base at 512 -> 1024 are counted on meta tensors, and with `--device cuda` run too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from flops import SD_21_BASE
from seconds import cpu
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfcascade.models import BUNDLED
from selfcascade.training import TrainingConfig
from selfcascade.training.trainables import make_trainable

HERE = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "full-ft": {"method": "full"},
    "lora-r32": {"method": "lora", "rank": 32},
    "lora-r4": {"method": "lora", "rank": 4},
    "full": {"method": "upsamplers", "preset": "full"},
    "micro": {"method": "upsamplers", "preset": "micro"},
}
SHOWN = {"full-ft": "whole U-Net", "full": "upsamplers `full`", "micro": "upsamplers `micro`"}
# Name: (pictures of a step, latent side of the stage).
MODELS = {"bundled": (8, 32), "SD 2.1-base": (1, 128)}
BYTES = 4


class Step:
    """One optimizer step of a method on random latents, without data and VAE, which all methods share."""

    def __init__(self, model: str, method: str, device: str) -> None:
        count, side = MODELS[model]
        config = UNet2DConditionModel.load_config(str(BUNDLED / "unet")) if model == "bundled" else SD_21_BASE
        with torch.device(device):
            unet = UNet2DConditionModel.from_config(config)
            self.trainable = make_trainable(unet, TrainingConfig(**METHODS[method]), 700)
            shape = (count, unet.config["in_channels"])
            z_t, pivot = torch.randn(*shape, side, side), torch.randn(*shape, side // 2, side // 2)
            words = {"encoder_hidden_states": torch.randn(count, 77, unet.config["cross_attention_dim"])}
            self.given = (z_t, torch.full((count,), 500), words, pivot)
        self.weights = [weight for weight in self.trainable.parameters() if weight.requires_grad]
        self.frozen = sum(weight.numel() for weight in unet.parameters() if not weight.requires_grad)
        self.optimizer = torch.optim.AdamW(self.weights)

    def forward(self) -> Tensor:
        """The loss."""
        return self.trainable(*self.given).square().mean()

    def __call__(self) -> None:
        """Forward, backward, AdamW."""
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def counted(model: str, method: str) -> dict[str, Any]:
    """FLOPs of forward and backward, and float32 bytes: weights, gradients, AdamW's moments, kept activations."""
    step = Step(model, method, "meta")
    kept: dict[int, Tensor] = {}
    own = {id(tensor) for tensor in step.trainable.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter) and tensor._base is None:
            kept[id(tensor)] = tensor
        elif tensor._base is not None and not isinstance(tensor._base, nn.Parameter):
            kept[id(tensor._base)] = tensor._base
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step.forward()
        loss.backward()
    trained = sum(weight.numel() for weight in step.weights)
    activations = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    weights = (4 * trained + step.frozen) * BYTES
    return {"trained": trained, "flops": counter.get_total_flops(), "activations": activations, "weights": weights}


def run_steps(model: str, method: str, device: str, repeats: int) -> dict[str, Any]:
    """Median seconds and peak bytes of steps that run, over what was there before the model."""
    cuda = device.startswith("cuda")
    torch.manual_seed(0)
    before = 0 if cuda else resident("VmRSS")
    step = Step(model, method, device)
    for _ in range(2):
        step()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if cuda else resident("VmHWM") - before
    return {"seconds": median(seconds), "least": min(seconds), "most": max(seconds), "peak": peak}


def resident(which: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {which}")


def apart(model: str, method: str, device: str, repeats: int) -> dict[str, Any]:
    """`run_steps` in a process of its own, whose memory nothing else has used."""
    command = [sys.executable, __file__, "--one", model, method, "--device", device, "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(device: str, repeats: int) -> dict[str, Any]:
    """All figures."""
    rows = []
    for model in MODELS:
        for method in METHODS:
            row = {"model": model, "method": method, **counted(model, method)}
            if model == "bundled" or device.startswith("cuda"):
                row |= apart(model, method, device, repeats)
            rows.append(row)
            print(json.dumps(row), flush=True)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else cpu()
    return {"torch": torch.__version__, "device": name, "threads": torch.get_num_threads(), "rows": rows}


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Time and memory of a training step",
        "",
        "Written by `python benchmarks/training.py`: forward, backward and AdamW in float32 on random latents, without",
        "data and VAE, which all methods share, and without gradient checkpointing. FLOPs are of forward and backward;",
        "counted bytes are the weights, their gradients and moments, and what is kept for the backward pass. Seconds",
        f"and peak memory are measured on {results['device']}, {results['threads']} threads, torch {results['torch']}.",
    ]
    for model, (count, side) in MODELS.items():
        rows = [row for row in results["rows"] if row["model"] == model]
        lines += ["", f"## {model}, {count} picture{'s' * (count > 1)} a step, latents of {side // 2} -> {side}", ""]
        lines += ["| trained | parameters | TFLOPs | ratio | counted GB | ratio | activations GB | ratio "]
        lines[-1] += "| seconds | ratio | peak GB | ratio |"
        lines.append("|---" * 12 + "|")
        for row in rows:
            parts = [SHOWN.get(row["method"], f"LoRA r{row['method'][6:]}"), f"{row['trained']:,}"]
            total = {**row, "counted": row["activations"] + row["weights"]}
            whole = {**rows[0], "counted": rows[0]["activations"] + rows[0]["weights"]}
            for name, unit in (("flops", 1e12), ("counted", 1e9), ("activations", 1e9), ("seconds", 1), ("peak", 1e9)):
                known = name in total
                parts += [f"{total[name] / unit:.3g}", f"{total[name] / whole[name]:.2f}x"] if known else ["-", "-"]
            lines.append("| " + " | ".join(parts) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "METHOD"), help="only this; prints JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_steps(*given.one, given.device, given.repeats)))
        return
    results = measure(given.device, given.repeats)
    (HERE / "training.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "training.md").write_text(report(results))


if __name__ == "__main__":
    main()
