"""FLOPs and peak bytes of a training step, counted as a GPU would run it, without a GPU and without values.

The step really runs, forward, backward and optimizer, on tensors that have a shape and a type but no data; every
storage that it allocates is followed until it is freed. What differs between a CPU and a GPU is put right: attention is
the memory-efficient kernel, and under autocast normalisations run in float32, as CUDA's list says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from selfcascade.cost.forward import LiveBytes


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Makes operations that differ on CPUs run as on CUDA within this context, recomputed ones too."""
    with (
        patch.object(functional, "scaled_dot_product_attention", _attention),
        patch.object(functional, "group_norm", _in_float32(functional.group_norm)),
        patch.object(functional, "layer_norm", _in_float32(functional.layer_norm)),
    ):
        yield


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *given: Any, **named: Any) -> Tensor:
    """The kernel that keeps no (N, N) matrix for the backward pass."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    keeps = any(x.requires_grad for x in (query, key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, keeps)[0]


def _in_float32(function: Any) -> Any:
    def cast(*given: Any, **named: Any) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            given, named = tree_map_only(Tensor, lambda x: x.float(), (given, named))
        return function(*given, **named)

    return cast


def counted_step(step: Any, modules: Iterable[nn.Module]) -> dict[str, int]:
    """FLOPs of a step's forward and backward passes, and bytes: of all it keeps between steps, and at most within one.

    Args:
        step: Called, it takes a whole step; `ready(device)` makes its inputs and its optimizer; `weights` are trained.
        modules: Their weights, on the meta device, are replaced.
    """
    memory = LiveBytes()
    with FakeTensorMode(), memory:
        for module in {inner for outer in modules for inner in outer.modules()}:
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    empty = torch.empty(weight.shape, dtype=weight.dtype)
                    module._parameters[name] = nn.Parameter(empty, weight.requires_grad)
        step.ready("cpu")
        # The moments come into being with the first step.
        for weight in step.weights:
            weight.grad = torch.zeros_like(weight)
        step.optimizer.step()
        step.optimizer.zero_grad()
        kept, memory.peak = memory.live, memory.live
        with FlopCounterMode(display=False) as counter, as_on_cuda():
            step()
    return {"flops": counter.get_total_flops(), "kept": kept, "peak_counted": memory.peak}
