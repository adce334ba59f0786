"""FLOPs and peak bytes of a training step, counted as a GPU would run it, without a GPU and without values.

The step really runs, forward, backward and optimizer, on tensors that have a shape and a type but no data; every
storage that it allocates is followed until it is freed. What differs between a CPU and a GPU is put right: under
autocast normalisations run in float32, as CUDA's list says. Attention is the CPU's fused kernel, which keeps no (N, N)
matrix, as CUDA's do.
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
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from selfcascade.cost.forward import LiveBytes

CPU_ATTENTION: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def cpu_attention(query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> int:
    """FLOPs of the CPU's fused attention from its shapes; PyTorch's counter knows those of CUDA alone."""
    return sdpa_flop_count(query, key, value)


def cpu_attention_backward(gradient: Any, query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> int:
    """Of its backward pass, which computes the weights again."""
    return sdpa_backward_flop_count(gradient, query, key, value)


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which also knows the CPU's fused attention."""
    backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(
        display=False, custom_mapping={CPU_ATTENTION: cpu_attention, backward: cpu_attention_backward}
    )


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Makes operations that differ on CPUs run as on CUDA within this context, recomputed ones too."""
    with (
        patch.object(functional, "group_norm", _in_float32(functional.group_norm)),
        patch.object(functional, "layer_norm", _in_float32(functional.layer_norm)),
    ):
        yield


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
        with flop_counter() as counter, as_on_cuda():
            step()
    return {"flops": counter.get_total_flops(), "kept": kept, "peak_counted": memory.peak}
