"""Tensors of which each process holds a part (FSDP), and plain ones alike: brought together, and shared out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; where it is shared all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors by name, shared ones one after the other and on the CPU; kept by those processes that need them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            found[name] = value.detach().cpu() if isinstance(tensor, DTensor) else value
    return found


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes hold, shared out as another one of its shape is."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # Each process takes its own part of what it holds.
    own = value.to(like.device, copy=False)
    return distribute_tensor(own, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(tensors: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Fills each first tensor, shared or not, with the whole second one."""
    for tensor, value in tensors:
        tensor.copy_(shared_like(value, tensor))
