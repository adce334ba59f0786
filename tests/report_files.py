"""What the tests of the report share: results and sheets as experiments write them, and the cells of a table."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.data.scenes import caption, render, sample_scene
from selfcascade.evaluation.scenes_benchmark import FIRST_PROMPT

SIDE = 48


def write_result(
    folder: Path,
    name: str,
    right: float,
    step: int = 0,
    sampling: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> Path:
    result = {
        "experiment": folder.parent.name,
        "sampling": {"name": name, "height": 128, "width": 128, **sampling},
        "seed": int(folder.name.removeprefix("seed-")),
        "step": step,
        "pictures": 100,
        "trained_parameters": 7 if step else 0,
        "seconds_per_training_step": 0.5 if step else None,
        "seconds_per_picture": 2.0,
        "composition": {"all": right},
        "fid": [4.0, 3.0, 5.0],
        "kid": [0.00123, 0.0, 0.01],
        "patch_fid": [12.345, 11.0, 14.0],
        "patch_kid": [0.1, 0.05, 0.2],
        **more,
    }
    count = result["pictures"]
    path = folder / f"{name}-step{step:06d}-n{count}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return path


def write_sheet(result: Path, numbers: list[int], count: int = 3) -> None:
    """Renders of the scenes of these numbers, under the captions of the first scenes that are asked for."""
    pictures = [render(sample_scene(FIRST_PROMPT + number, held_out=True), SIDE, SIDE) for number in numbers]
    sheet = Image.fromarray((np.concatenate(pictures, 1) * 255).astype(np.uint8))
    path = result.with_name(f"{result.name.rpartition('-')[0]}.webp")
    sheet.save(path, quality=95)
    scenes = [sample_scene(FIRST_PROMPT + index, held_out=True) for index in range(count)]
    words = [caption(scene, FIRST_PROMPT + index) for index, scene in enumerate(scenes)]
    path.with_suffix(".txt").write_text("\n".join(words) + "\n")


def cells(text: str, method: str) -> list[str]:
    """The first line of that method in a table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {method} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]
