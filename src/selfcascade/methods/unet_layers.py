"""Finds a U-Net's convolutions and attention layers by level, and the timestep of a call."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Generator, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

# Arguments of hooks: a module's arguments, by position and by name.
Positional = tuple[Any, ...]
Named = dict[str, Any]
TEMPORAL = frozenset({"motion_modules", "temp_attentions", "transformer_in"})  # their tokens are frames


def refuse_compiled(unet: Any, method: str) -> None:
    """Raises ValueError if the U-Net or a part of it is compiled and would ignore changes made afterwards."""
    if any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in unet.modules()):
        raise ValueError(f"{method} needs a U-Net that is not compiled, which would ignore its hooks")


def convolution_levels(unet: nn.Module, method: str) -> dict[nn.Conv2d, int]:
    """The 3 x 3 convolutions of a U-Net's blocks, including those of LoRAs, with their levels, 0 the shallowest.

    Raises:
        ValueError: The network is not a U-Net.
    """
    return {
        module: level
        for block, level in blocks_by_level(unet, method)
        for module in block.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }


def spatial_attention(unet: nn.Module, method: str) -> dict[Any, int]:
    """The self-attention layers over positions, but not over frames, with their levels, 0 the shallowest.

    Raises:
        ValueError: The network is not a U-Net, or has none.
    """
    parts: list[tuple[str, nn.Module, int]] = [
        (name, module, level)
        for block, level in blocks_by_level(unet, method)
        for name, module in cast("Iterator[tuple[str, nn.Module]]", block.named_modules())
    ]
    found: dict[Any, int] = {
        module: level
        for name, module, level in parts
        if name.endswith("attn1") and hasattr(module, "to_q") and not TEMPORAL & set(name.split("."))
    }
    if not found:
        raise ValueError(f"{type(unet).__name__} has no self-attention to change; {method} needs a U-Net that has")
    return found


@contextlib.contextmanager
def convolving(changes: Mapping[nn.Conv2d, Any]) -> Generator[None]:
    """Replaces the computation of each convolution by that in `changes`, within this context.

    Raises:
        ValueError: A convolution does not pad with zeros (patched for seamless pictures), or is patched by the user.
    """
    for module in changes:
        if module.padding_mode != "zeros" or "_conv_forward" in vars(module):
            raise ValueError(
                "the U-Net's convolutions are patched, as for seamless pictures, which this method replaces"
            )
    for module, change in changes.items():
        vars(module)["_conv_forward"] = change
    try:
        yield
    finally:
        for module in changes:
            del vars(module)["_conv_forward"]


def blocks_by_level(unet: Any, method: str) -> list[tuple[nn.Module, int]]:
    """A U-Net's blocks with their levels, 0 the shallowest.

    Raises:
        ValueError: The network is not a U-Net.
    """
    if not hasattr(unet, "up_blocks") or not hasattr(unet, "down_blocks"):
        raise ValueError(f"{type(unet).__name__} has no levels; {method} needs a U-Net")
    levels = len(unet.down_blocks)
    blocks = [(block, level) for level, block in enumerate(unet.down_blocks)]
    blocks += [(block, levels - 1 - level) for level, block in enumerate(unet.up_blocks)]
    return blocks + ([] if unet.mid_block is None else [(unet.mid_block, levels - 1)])


def timestep_of(unet: nn.Module, positional: Positional, named: Named) -> float:
    """The timestep that the U-Net is called with; the highest if each picture has its own."""
    given = dict(zip(inspect.signature(unet.forward).parameters, positional, strict=False)) | named
    return float(torch.as_tensor(given["timestep"]).max())
