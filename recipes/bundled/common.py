"""The common part of the recipe's steps: configuration, atomic files, and shipping."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from loop import Draw, Schedule, Training
from optimizers import make_optimizers
from selfcascade.media.whole_files import write_whole

HERE = Path(__file__).parent
BUNDLED = HERE.parents[1] / "src/selfcascade/bundled"
RUNS = Path(
    os.environ.get("SELFCASCADE_RUNS") or f"runs/{Path(os.environ.get('SELFCASCADE_RECIPE') or 'bundled').stem}"
)
# Directions in a mirror image, and in a reversed clip.
MIRRORED = {"left": "right", "right": "left"}
REVERSED = MIRRORED | {"up": "down", "down": "up"}


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with changes at any depth; a change to null removes a setting.

    Raises:
        ValueError: There is no such setting.
    """
    found = dict(settings)
    for name, value in changes.items():
        if name not in found:
            raise ValueError(f"a recipe cannot change {name!r}, which is not among {', '.join(found)}")
        if value is None:
            del found[name]
        else:
            found[name] = merged(found[name], value) if isinstance(value, dict) else value
    return found


def read_config() -> dict[str, Any]:
    """config.json, with the changes in the file that SELFCASCADE_RECIPE names, if any."""
    config, changes = json.loads((HERE / "config.json").read_text()), os.environ.get("SELFCASCADE_RECIPE")
    return merged(config, json.loads((HERE / changes).read_text())) if changes else config


CONFIG = read_config()
NATIVE = CONFIG["native_size"]
DEVICE = (
    torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
)


def write_json(path: Path, content: object) -> None:
    """Writes JSON atomically."""
    write_whole(path, lambda aside: aside.write_text(json.dumps(content, indent=1) + "\n"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file atomically."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_whole(path, write)


def as_images(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 as (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) made softer, noisier and slightly off in colour, like generated ones."""
    amount = torch.rand(len(images), 1, 1, 1, generator=generator)
    soft = interpolate(interpolate(images, scale_factor=0.5, mode="area"), size=images.shape[-2:], mode="bilinear")
    images = images + 0.9 * amount.pow(2) * (soft - images)
    tint = 1 + 0.05 * torch.randn(len(images), 3, 1, 1, generator=generator)
    noise = 0.05 * torch.rand(len(images), 1, 1, 1, generator=generator)
    down, across = torch.randint(-3, 4, (2,), generator=generator).tolist()
    moved = pad(images * tint, (3, 3, 3, 3), mode="replicate")
    height, width = images.shape[-2:]
    moved = moved[:, :, 3 + down : 3 + height + down, 3 + across : 3 + width + across]
    return (moved + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


class WithLoss(nn.Module):
    """A network whose forward pass computes its loss, so that processes average the gradients of the whole pass."""

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
    """Trains a network with the settings of this name in config.json, or resumes, and saves it.

    Args:
        name: Name of the settings and of the run's folder.
        model: A diffusers model.
        loss: Computes the model's loss for a batch.
        batch_of: Makes a batch on the CPU, with the draw's generator.
        others: See `make_optimizers`.

    Returns:
        Whether the training is finished and this is the main process.
    """

    def loss_of(module: nn.Module, draw: Draw) -> Mapping[str, Tensor]:
        return module(*send_to_device(batch_of(draw), next(model.parameters()).device))

    training = training_of(name, WithLoss(model, loss), others, loss_of)
    finished = training.run() and training.accelerator.is_main_process
    if finished:
        model.cpu().eval().half().float().save_pretrained(RUNS / name / "model")  # type: ignore[operator]
    return finished


def training_of(
    name: str,
    module: nn.Module,
    others: tuple[str, ...],
    loss_of: Callable[[nn.Module, Draw], Mapping[str, Tensor]],
    write_sheet: Callable[[nn.Module, str], object] | None = None,
    sheet_every: int = 1000,
) -> Training:
    """The training of a module with the settings of this name in config.json.

    Args:
        name: Name of the settings and of the run's folder.
        module: The module to train.
        others: See `make_optimizers`.
        loss_of: Computes losses by name from the (wrapped) module and a draw; "loss" is minimised.
        write_sheet: Writes a picture of samples, given the module with averaged weights and a path.
        sheet_every: Steps between these pictures.
    """
    settings, folder = CONFIG[name], RUNS / name
    rates = settings["learning_rate"], settings["adam_learning_rate"]

    def validate(step: int, module: nn.Module) -> dict[str, float]:
        if write_sheet is not None and step % sheet_every == 0:
            write_sheet(module, str(folder / f"samples-{step:06d}.png"))
        return {}

    return Training(
        folder,
        module,
        lambda module: make_optimizers(module, *rates, others, settings["weight_decay"]),
        Schedule.of(settings),
        loss_of,
        None if write_sheet is None else validate,
    )


def strip_paths(folder: Path) -> None:
    """Removes the path that a model was loaded from in a saved model's JSON files."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            text = json.dumps(content, indent=2) + "\n"
            write_whole(path, lambda aside, text=text: aside.write_text(text))


def ship(name: str, model: Any, limit: float) -> None:
    """Replaces a model in the package; refuses one larger than `limit` megabytes."""
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
