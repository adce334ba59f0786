"""A real ComfyUI with the nodes, and the same pictures by the library, for the tests of `make test-comfyui`."""

import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from comfyui_nodes import import_nodes
from selfcascade import SelfCascade, load_bundled

if "COMFYUI_PATH" not in os.environ:
    pytest.skip("COMFYUI_PATH names no ComfyUI", allow_module_level=True)

PROMPT = "a large red house on the left at night"
STEPS, CFG, SEED = 8, 3.0, 5


@pytest.fixture(scope="session")
def nodes() -> ModuleType:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    importlib.import_module("comfy.cli_args").args.cpu = True
    for name in ("comfy.sd", "latent_preview", "folder_paths"):
        importlib.import_module(name)
    return import_nodes()


@pytest.fixture(scope="session")
def bundled(nodes: ModuleType) -> tuple[Any, Any, Any, Any, dict[str, Tensor]]:
    return nodes.NODE_CLASS_MAPPINGS["SelfCascadeBundledModel"]().load(PROMPT, 1)


@pytest.fixture(scope="session")
def pipe() -> Any:
    made = load_bundled("cpu")
    made.set_progress_bar_config(disable=True)
    return made


def sampled(
    nodes: ModuleType, bundled: Any, model: Any = None, latent: Any = None, **values: Any
) -> tuple[Any, Any, str]:
    own, positive, negative, vae, empty = bundled
    given = {"steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "simple", "scale": 2.0, **values}
    sampler = nodes.NODE_CLASS_MAPPINGS["SelfCascadeSampler"]()
    return sampler.sample(model or own, positive, negative, vae, latent or empty, SEED, **given)


def grey_levels(bundled: Any, latent: dict[str, Tensor], picture: Any) -> float:
    """The largest difference between what ComfyUI decodes and a picture of the library's, in levels of 255."""
    pixels = bundled[3].decode(latent["samples"])
    return float(((pixels[0] * 255).round() - torch.as_tensor(picture[0] * 255).round()).abs().max())


def library(pipe: Any, scale: float, **options: Any) -> Any:
    upsamplers = options.pop("upsamplers", None)
    generator = torch.Generator().manual_seed(SEED)
    given = {
        "num_inference_steps": STEPS,
        "guidance_scale": CFG,
        "generator": generator,
        "output_type": "np",
        **options,
    }
    return SelfCascade(pipe, upsamplers)(PROMPT, scale=scale, **given)


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    """As ComfyUI executes nodes."""
    with torch.inference_mode():
        yield


def save(bundled: Any, latent: dict[str, Tensor], name: str) -> None:
    folder = os.environ.get("COMFYUI_PICTURES")
    if folder:
        from PIL import Image

        pixels = (bundled[3].decode(latent["samples"])[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(f"{folder}/{name}.png")
