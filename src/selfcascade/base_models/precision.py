"""Which arithmetic a device computes itself."""

from __future__ import annotations

import platform

import torch


def has_bfloat16(device: str) -> bool:
    """Whether a device, such as "cpu" or "cuda:0", computes in bfloat16 rather than emulating it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.split(":")[0] == "cpu":
        # oneDNN also answers yes where AVX-512 has no bfloat16 instructions, and emulates them.
        if platform.machine().lower() in ("x86_64", "amd64"):
            return bool(torch.cpu._is_avx512_bf16_supported())  # pyright: ignore[reportPrivateUsage]
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False
