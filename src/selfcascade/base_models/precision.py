"""Which arithmetic a device computes itself."""

from __future__ import annotations

import torch


def has_bfloat16(device: str) -> bool:
    """Whether a device, such as "cpu" or "cuda:0", computes in bfloat16 rather than emulating it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.split(":")[0] == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False
