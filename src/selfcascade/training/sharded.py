"""Gathers and distributes tensors of which each process holds a part (FSDP); plain tensors work too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; if it is sharded, all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors by name, sharded ones gathered one by one to the CPU; only processes with `keep` keep them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if keep:
            found[name] = value.detach().cpu() if isinstance(tensor, DTensor) else value
    return found


def shared_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes hold, sharded like another one of its shape."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # Each process takes its own part of what it holds.
    own = value.to(like.device, copy=False)
    return distribute_tensor(own, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(tensors: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copies the second, whole tensor of each pair into the first, sharded or not."""
    for tensor, value in tensors:
        tensor.copy_(shared_like(value, tensor))
