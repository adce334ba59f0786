"""Attention in windows is masked attention, whatever the grid, and its cost grows with the pixels alone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from masked_attention import seen
from selfcascade.base_models.windows import Grid, attend, spans


def test_blocks_cover_an_axis_and_lie_within_their_windows_and_the_axis() -> None:
    for length in range(1, 40):
        for window in range(1, 45):
            block, wide, starts = spans(length, window)
            assert wide == min(window, length)
            assert sorted({first + place for first, _ in starts for place in range(block)}) == [*range(length)]
            assert len({*starts}) == len(starts)
            for first, key in starts:
                assert 0 <= key <= first < first + block <= key + wide <= length


def test_blocks_are_as_few_as_can_be_and_amid_their_windows_but_for_the_ends() -> None:
    assert spans(128, 64) == (64, 64, ((0, 0), (64, 64)))
    assert spans(150, 64) == (50, 64, ((0, 0), (50, 43), (100, 86)))
    assert spans(7, 4) == (4, 4, ((0, 0), (3, 3)))  # one query is in two blocks
    assert spans(64, 64) == spans(64, 80) == (64, 64, ((0, 0),))


GRIDS = [
    pytest.param((1, 8, 8), (1, 4, 4), (0, 0, 0), 0, 0, id="square"),
    pytest.param((1, 9, 7), (1, 4, 3), (0, 1, 2), 3, 2, id="odd, text on both sides"),
    pytest.param((3, 7, 10), (2, 3, 4), (1, 2, 3), 0, 5, id="clip, text behind"),
    pytest.param((1, 4, 9), (1, 4, 4), (0, 0, 3), 2, 0, id="wide, text in front"),
]


@pytest.mark.parametrize("masked", ["none", "keys", "whole", "bias"])
@pytest.mark.parametrize(("grid", "window", "shift", "before", "behind"), GRIDS)
def test_it_is_attention_with_a_mask(grid: Any, window: Any, shift: Any, before: int, behind: int, masked: str) -> None:
    grid, window, shift = Grid(*grid), Grid(*window), Grid(*shift)
    tokens = before + grid.tokens + behind
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, tokens, 8, generator=generator) for _ in range(3))
    shape = {"none": (), "keys": (2, 1, 1, tokens), "whole": (2, 1, tokens, tokens), "bias": (tokens, tokens)}[masked]
    mask = torch.rand(shape, generator=generator) if shape else None
    wanted: Tensor = torch.zeros(tokens, tokens).masked_fill(~seen(grid, window, before, tokens, shift), -torch.inf)
    if mask is not None:
        mask = mask if masked == "bias" else mask > 0.2
        wanted = wanted + (mask if masked == "bias" else torch.zeros(shape).masked_fill(~mask, -torch.inf))
    made = attend(query, key, value, grid, window, shift, before, mask, scale=0.3)
    torch.testing.assert_close(made, scaled_dot_product_attention(query, key, value, wanted, scale=0.3))


def test_a_window_as_large_as_the_grid_is_full_attention_bit_for_bit() -> None:
    query, key, value = (torch.randn(2, 2, 12, 4) for _ in range(3))
    for seamless in (False, True):
        made = attend(query, key, value, Grid(1, 2, 5), Grid(1, 4, 5), before=2, seamless=seamless)
        assert torch.equal(made, scaled_dot_product_attention(query, key, value))


def test_windows_in_two_places_fade_into_each_other() -> None:
    query, key, value = (torch.randn(1, 2, 9, 4) for _ in range(3))
    grid, window = Grid(1, 1, 8), Grid(1, 1, 4)
    first, second = (attend(query, key, value, grid, window, Grid(0, 0, by), before=1) for by in (1, 3))
    made = attend(query, key, value, grid, window, Grid(0, 0, 1), before=1, seamless=True)
    fading = torch.tensor([0.25, 0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.75])
    torch.testing.assert_close(made[:, :, 1:], second[:, :, 1:].lerp(first[:, :, 1:], fading[:, None]))
    assert torch.equal(made[:, :, :1], first[:, :, :1])  # text


def test_fewer_heads_of_keys_than_of_queries() -> None:
    query, (key, value) = torch.randn(1, 4, 16, 4), (torch.randn(1, 2, 16, 4) for _ in range(2))
    made = attend(query, key, value, Grid(1, 4, 4), Grid(1, 2, 2), enable_gqa=True)
    repeated = (x.repeat_interleave(2, 1) for x in (key, value))
    torch.testing.assert_close(made, attend(query, *repeated, Grid(1, 4, 4), Grid(1, 2, 2)))


def test_gradients_are_those_of_masked_attention() -> None:
    grid, window = Grid(1, 5, 4), Grid(1, 3, 3)
    query, key, value = (torch.randn(1, 2, 22, 4, requires_grad=True) for _ in range(3))
    weights = torch.randn(1, 2, 22, 4)
    made = torch.autograd.grad((attend(query, key, value, grid, window, before=2) * weights).sum(), (query, key, value))
    oracle = scaled_dot_product_attention(query, key, value, seen(grid, window, 2, 22))
    torch.testing.assert_close(made, torch.autograd.grad((oracle * weights).sum(), (query, key, value)))


@pytest.mark.parametrize("text", [0, 77])
def test_cost_is_linear_in_pixels(text: int) -> None:
    def flops(side: int) -> int:
        grid = Grid(1, side, side)
        query = torch.empty(1, 2, text + grid.tokens, 8, device="meta")
        with FlopCounterMode(display=False) as counter:
            attend(query, query, query, grid, Grid(1, 16, 16), before=text)
        return counter.get_total_flops() - 4 * 16 * text * query.shape[2]  # those of the text's own queries

    at_16, at_32, at_128 = flops(16), flops(32), flops(128)
    assert at_32 == 4 * at_16 == at_128 / 16
