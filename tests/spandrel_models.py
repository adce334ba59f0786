"""Tiny models of spandrel's architectures with random weights, in files as people have theirs."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

# spandrel imports these of torchvision for two of its architectures, none of which is used here.
OF_TORCHVISION = {"torchvision.transforms.functional": ("InterpolationMode", "rotate", "normalize")}


def spandrel() -> ModuleType:
    """The package, also beside a build of torch that has no torchvision; the test is skipped where there is none."""
    if "spandrel" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return pytest.importorskip("spandrel")
    held: list[str] = []
    for path, names in OF_TORCHVISION.items():
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            held.append(".".join(parts[:length]))
            sys.modules[held[-1]] = ModuleType(held[-1])
        vars(sys.modules[path]).update(dict.fromkeys(names))
    try:
        return pytest.importorskip("spandrel")
    finally:
        for name in held:
            del sys.modules[name]


def save_upscaler(path: Path, architecture: str = "ESRGAN", **config: Any) -> Path:
    """Saves a model whose pictures are about half as bright as can be, with what it is given still in them."""
    spandrel()
    kind = getattr(importlib.import_module(f"spandrel.architectures.{architecture}"), architecture)
    own: dict[str, Any] = {"num_filters": 4, "num_blocks": 1} if architecture == "ESRGAN" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(**own, **config)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    if architecture == "ESRGAN":
        *_, weight, bias = weights
        weights[weight] *= 4
        weights[bias] += 0.5
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path
