"""A prompt encoder that runs once for the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def remembering(encode_prompt: Callable[..., Any]) -> Callable[..., Any]:
    """`encode_prompt` that runs once for the same arguments: all stages share the prompt."""
    known: list[tuple[tuple, dict, Any]] = []

    def remembered(*args: Any, **kwargs: Any) -> Any:
        for old_args, old_kwargs, result in known:
            if _same(args, old_args) and _same(kwargs, old_kwargs):
                return result
        result = encode_prompt(*args, **kwargs)
        known.append((args, kwargs, result))
        return result

    return remembered


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a is b or (isinstance(a, (str, int, float, torch.device, torch.dtype)) and type(a) is type(b) and a == b)
