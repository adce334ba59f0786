"""What attention to neighbourhoods should equal: full attention under a mask that spells out who sees whom."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from selfcascade.base_models.neighbourhoods import Grid, spans


def along(length: int, window: int) -> Tensor:
    """Whether a place of an axis sees another, (length, length)."""
    block, wide, starts = spans(length, window)
    sees = torch.zeros(length, length, dtype=torch.bool)
    for first, key in starts:  # where blocks overlap, the later one counts
        sees[first : first + block] = False
        sees[first : first + block, key : key + wide] = True
    return sees


def seen(grid: Grid, window: Grid, before: int, tokens: int) -> Tensor:
    """(S, S): a place in the grid sees its window, and all that has no place; that sees everything."""
    frames, rows, columns = (along(*sides) for sides in zip(grid, window, strict=True))
    sees = torch.ones(tokens, tokens, dtype=torch.bool)
    places = slice(before, before + grid.tokens)
    sees[places, places] = frames.kron(rows).kron(columns)
    return sees


class MaskedAttention(TorchFunctionMode):
    """Within it self-attention of so many tokens has its mask; all other calls are as they were.

    Args:
        grids: By the number of tokens: grid, window, tokens in front.

    Attributes:
        met: Calls that were masked.
    """

    def __init__(self, grids: dict[int, tuple[Grid, Grid, int]]) -> None:
        super().__init__()
        self.grids, self.met = grids, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = {**dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)), **(kwargs or {})}
        tokens = named["query"].shape[-2]
        if tokens == named["key"].shape[-2] and tokens in self.grids:
            self.met += 1
            mask, sees = named.get("attn_mask"), seen(*self.grids[tokens], tokens)
            named["attn_mask"] = sees if mask is None else sees & mask.bool()
        return func(**named)
