"""Reads feature upsamplers from a checkpoint of a training run, `DIR/checkpoint-000500`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from selfcascade.options.json_files import parse_json
from selfcascade.upsamplers.model import FeatureUpsamplers

NAME = re.compile(r"checkpoint-[0-9]{6,}")
SETTINGS = "upsamplers"  # key in a checkpoint's state


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the name and the files of a checkpoint."""
    # In this order: a link to itself cannot be resolved.
    return (folder / "state.json").is_file() and bool(NAME.fullmatch(folder.resolve().name))


def upsamplers_in(folder: Path) -> FeatureUpsamplers:
    """Reads the upsamplers of a checkpoint. If the run averages weights, these are the averaged ones.

    Raises:
        ValueError: The checkpoint is of a LoRA or a U-Net, or its files are damaged.
        OSError: A file is missing.
    """
    state: dict[str, Any] = parse_json((folder / "state.json").read_text())
    settings = state.get(SETTINGS)
    if settings is None:  # written by an earlier version; the finished run has the settings
        beside = folder.resolve().parent / "config.json"
        if not beside.is_file():
            raise ValueError("it is a checkpoint without upsamplers, or of an earlier version and an unfinished run")
        settings = {name: value for name, value in parse_json(beside.read_text()).items() if not name.startswith("_")}
    made = FeatureUpsamplers(**settings)
    average = folder / "ema.safetensors"
    made.load_state_dict(load_file(average if average.is_file() else folder / "weights.safetensors"))
    return made


def settings_of(upsamplers: FeatureUpsamplers) -> dict[str, Any]:
    """The arguments that upsamplers were made with. A checkpoint's state holds them under `SETTINGS`."""
    return {SETTINGS: {name: value for name, value in upsamplers.config.items() if not name.startswith("_")}}
