"""What the recipe's steps share: configuration, training pictures on disk, checkpoints that are whole or absent."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file

from selfcascade.media.whole_files import write_whole

HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "src/selfcascade/bundled"
RUNS = Path(os.environ.get("SELFCASCADE_RUNS", "runs/bundled"))
# Where things go in a mirror, and when a clip runs backwards.
MIRRORED = {"left": "right", "right": "left"}
REVERSED = MIRRORED | {"up": "down", "down": "up"}
CONFIG = json.loads((HERE / "config.json").read_text())
NATIVE = CONFIG["native_size"]
DEVICE = (
    torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
)


def write_json(path: Path, content: object) -> None:
    """Writes JSON, whole or not at all."""
    write_whole(path, lambda aside: aside.write_text(json.dumps(content, indent=1) + "\n"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file, whole or not at all."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_whole(path, write)


def save_state(path: Path, step: int, modules: dict, optimizer: torch.optim.Optimizer) -> None:
    """Writes modules, optimizer moments and the step to one safetensors file."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    write_whole(path, lambda aside: save_file(tensors, aside, metadata={"step": str(step)}))


def load_state(path: Path, modules: dict, optimizer: torch.optim.Optimizer) -> int:
    """Restores what `save_state` wrote; returns the step, 0 when there is no file."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step = int(file.metadata()["step"])
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    state: dict[int, dict] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, field = key.split("/")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    print(f"resumed {path} at step {step}", flush=True)
    return step


def rate(step: int, steps: int, warmup: int) -> float:
    """Warm-up, then half a cosine down to 2 %, as a factor of the learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, steps - warmup)))


def plateau(step: int, settings: dict, floor: float = 0.01) -> float:
    """Warm-up, constant, linear decay over the last `decay` of all steps down to `floor`, as a factor of the rate."""
    left = (settings["steps"] - step) / settings["decay"]
    return min((step + 1) / settings["warmup"], max(min(1.0, left), floor))


def moving_average(model: torch.nn.Module, decay: float, step: int) -> EMAModel:
    """The average of a model's weights, taken up at a step: they are the average so far."""
    average = EMAModel(model.parameters(), decay=decay, use_ema_warmup=True, inv_gamma=10, power=0.75)
    average.optimization_step = step
    return average


def average_gradients(modules: torch.nn.Module) -> None:
    """Replaces each gradient by its mean over the processes."""
    gradients = [parameter.grad for parameter in modules.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient) / dist.get_world_size())


def train_network(name: str, model: torch.nn.Module, loss_of: Callable[[torch.Generator], torch.Tensor]) -> None:
    """Trains a small network by AdamW with the settings of that name, or goes on where it was cut; saves the model.

    `loss_of` makes a batch from the step's generator and returns the model's loss on it.
    """
    settings, folder = CONFIG[name], RUNS / name
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=0.02)
    step, began = load_state(folder / "state.safetensors", {"model": model}, optimizer), time.time()
    while step < settings["steps"]:
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * rate(step, settings["steps"], 100)
        loss = loss_of(torch.Generator().manual_seed(settings["seed"] * 1_000_003 + step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log_row(folder / "curve.csv", step=step, seconds=time.time() - began, loss=loss.item())
        if step % 250 == 0 or step == settings["steps"]:
            save_state(folder / "state.safetensors", step, {"model": model}, optimizer)
    model.cpu().eval().half().float().save_pretrained(folder / "model")  # type: ignore[operator]


def log_row(path: Path, **row: float) -> None:
    """Appends to a CSV curve and prints the same line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{value:.6g}" for value in row.values()])
    print("  ".join(f"{key} {value:.5g}" for key, value in row.items()), flush=True)


def shard_count() -> int:
    """Number of shards of training pictures."""
    return CONFIG["pictures"]["count"] // CONFIG["pictures"]["shard"]


def load_pictures(shards: range | list[int]) -> np.ndarray:
    """Training pictures, (N, 64, 64, 3) uint8."""
    return np.concatenate([np.load(RUNS / f"pictures/{k:04d}.npy", allow_pickle=False) for k in shards])


def load_captions(shards: range | list[int]) -> list[str]:
    """Their captions."""
    return [line for k in shards for line in json.loads((RUNS / f"pictures/{k:04d}.json").read_text())]


def as_images(pictures: np.ndarray) -> torch.Tensor:
    """(B, 64, 64, 3) uint8 as (B, 3, 64, 64) float32 in [-1, 1], channels last in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def strip_paths(folder: Path) -> None:
    """Takes the place that a model was loaded from out of a saved model's JSON files."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            text = json.dumps(content, indent=2) + "\n"
            write_whole(path, lambda aside, text=text: aside.write_text(text))


def ship(name: str, model: Any, limit: float) -> None:
    """Puts a model into the package in place of the one there; refuses what weighs more than `limit` megabytes."""
    folder, aside = BUNDLED / name, RUNS / "export" / name
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside, safe_serialization=True)
    strip_paths(aside)
    size = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file()) / 1e6
    print(f"{name}: {size:.2f} MB", flush=True)
    if size > limit:
        raise SystemExit(f"{name} weighs {size:.1f} MB, and {limit} are allowed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(aside, folder)
