"""What the recipe's steps share: configuration, files that are whole or absent, and shipping."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from loop import Draw, Schedule, Training
from optimizers import make_optimizers
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


def as_images(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 as (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


class WithLoss(nn.Module):
    """A network whose pass is its loss, so that several processes average the gradients of the whole of it."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *batch: Any) -> dict[str, Tensor]:
        """The loss of a batch."""
        return {"loss": self.loss(*batch)}


def train_network(
    name: str,
    model: nn.Module,
    loss: Callable[..., Tensor],
    batch_of: Callable[[Draw], tuple[Any, ...]],
    others: tuple[str, ...] = (),
) -> bool:
    """Trains a network with the settings of that name in config.json and saves it; goes on where it was cut.

    Args:
        name: Of the settings and of the run's folder.
        model: A diffusers model.
        loss: The model's, of a batch.
        batch_of: A batch, made on the CPU from the draw's generator.
        others: As in `make_optimizers`.

    Returns:
        Whether the training came to its end, and this process is the main one.
    """
    settings, folder = CONFIG[name], RUNS / name
    rates = settings["learning_rate"], settings["adam_learning_rate"]
    training = Training(
        folder,
        WithLoss(model, loss),
        lambda module: make_optimizers(module, *rates, others, settings["weight_decay"]),
        Schedule.of(settings),
        lambda module, draw: module(*send_to_device(batch_of(draw), next(model.parameters()).device)),
    )
    finished = training.run() and training.accelerator.is_main_process
    if finished:
        model.cpu().eval().half().float().save_pretrained(folder / "model")  # type: ignore[operator]
    return finished


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
