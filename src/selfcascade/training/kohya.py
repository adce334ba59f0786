"""Writes a LoRA with the names that kohya's trainer gives. ComfyUI, A1111 and diffusers all read them.

`down_blocks.0.attentions.0.proj_in` is `lora_unet_down_blocks_0_attentions_0_proj_in` there, with two factors,
`lora_down.weight` (rank x inputs) and `lora_up.weight` (outputs x rank), and a number, `alpha`: the layer's weight
changes by alpha / rank times up @ down. Of the layouts in use, ComfyUI knows attention projections only by this one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selfcascade.media.whole_files import write_whole

FILE = "pytorch_lora_weights.safetensors"
SETTINGS = "lora_adapter_metadata"  # where diffusers keeps peft's settings in a file's header
FACTOR = re.compile(r"unet\.(?P<layer>.+)\.lora_(?P<factor>[AB])\.weight")
FACTORS = {"A": "lora_down", "B": "lora_up"}


def export_lora(source: Path, target: Path) -> int:
    """Writes a trained LoRA in kohya's layout.

    Args:
        source: The folder that `selfcascade train --method lora` wrote, or its .safetensors file.
        target: The .safetensors file to write. An existing one is replaced.

    Returns:
        The number of layers.

    Raises:
        ValueError: The source is missing, is not such a LoRA, or has settings that kohya's layout cannot hold.
    """
    path = source / FILE if source.is_dir() else source
    if not path.is_file():
        raise ValueError(f"LoRA {str(source)!r} is neither a folder with a {FILE} nor such a file")
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            layers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        settings: dict[str, Any] = json.loads(header.get(SETTINGS, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"LoRA {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
    try:
        made = kohya_layout(layers, settings)
    except ValueError as error:
        raise ValueError(f"LoRA {str(path)!r} {error}") from None
    ranks = {len(tensor) for name, tensor in made.items() if name.endswith("lora_down.weight")}
    alphas = {tensor.item() for name, tensor in made.items() if name.endswith(".alpha")}
    told = {"format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": _told(ranks)}
    told["ss_network_alpha"] = _told(alphas)
    write_whole(target, lambda aside: save_file(made, aside, told))
    return len(made) // 3


def kohya_layout(layers: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """The factors by kohya's names, and an alpha for each layer.

    Args:
        layers: Factors by diffusers' names, `unet.LAYER.lora_A.weight` and `unet.LAYER.lora_B.weight`.
        settings: Peft's settings, with "unet." before each name. A missing alpha is the rank.

    Raises:
        ValueError: A name is not such a name, or kohya's layout cannot hold the settings. The caller puts the file's
            name before the message.
    """
    found = {name: FACTOR.fullmatch(name) for name in layers}
    other = next((name for name, match in found.items() if match is None), None)
    if other is not None or not layers:
        raise ValueError(f"has a tensor {other!r}, not a U-Net's layers as `selfcascade train` writes them")
    moving = next((name for name in layers if "motion_modules" in name), None)
    if moving is not None:
        raise ValueError("is for a clip's motion modules, which kohya's layout has no names for; load it in diffusers")
    for setting in ("use_dora", "use_rslora"):
        if settings.get(f"unet.{setting}"):
            raise ValueError(f"was trained with {setting}, which kohya's layout cannot hold")
    made: dict[str, Tensor] = {}
    patterns = settings.get("unet.alpha_pattern") or {}
    for name, match in found.items():
        assert match is not None
        layer, tensor = match["layer"], layers[name].contiguous()
        place = f"lora_unet_{layer.replace('.', '_')}"
        made[f"{place}.{FACTORS[match['factor']]}.weight"] = tensor
        if match["factor"] == "A":
            alpha = patterns.get(layer, settings.get("unet.lora_alpha") or len(tensor))
            made[f"{place}.alpha"] = torch.tensor(float(alpha))
    if len(made) != 3 * len({match["layer"] for match in found.values() if match is not None}):
        raise ValueError("has a layer without one of its two factors")
    return made


def _told(values: set[Any]) -> str:
    return f"{next(iter(values)):g}" if len(values) == 1 else "Dynamic"
