"""Memory that kernels take beside what goes in and comes out: of the CPU's, as PyTorch calls oneDNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# From an operation and its positional arguments to bytes that its kernel holds until it is done.
Workspace = Callable[[Any, Sequence[Any]], int]

convolution = torch.ops.aten.convolution.default
BLOCK = 16  # channels that oneDNN keeps side by side


def no_workspace(operation: Any, arguments: Sequence[Any]) -> int:
    """Of a device whose kernels are not known."""
    return 0


def workspace_of(device: torch.device) -> Workspace:
    """What kernels of this device take; nothing where that is not known."""
    return _cpu_workspace if device.type == "cpu" else no_workspace


def _cpu_workspace(operation: Any, arguments: Sequence[Any]) -> int:
    """Copies that oneDNN makes.

    A convolution gets its weights, and pictures whose channels are not last, in blocks of channels; 1 x 1 in float32
    is a plain product. Attention in half precision gets its keys and values packed.
    """
    if operation is convolution:
        pictures, weights = arguments[0], arguments[1]
        plain = weights.dtype == torch.float32 and not any(side > 1 for side in weights.shape[2:])
        if pictures.ndim != 4 or plain:
            return 0
        if _channels_last(pictures) or _channels_last(weights):
            return weights.nbytes
        copied = pictures.nbytes if pictures.shape[1] >= BLOCK else 0
        return copied + weights.nbytes
    if operation.__name__.startswith("_scaled_dot_product") and arguments[0].dtype != torch.float32:
        return arguments[1].nbytes + arguments[2].nbytes
    return 0


def _channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
