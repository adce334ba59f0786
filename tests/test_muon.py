"""The recipe's optimizer: an orthogonal step for matrices, AdamW's own for the rest, and states that come back."""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "recipes" / "bundled"))

from muon import Muon, orthogonalise


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 4))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[torch.Tensor]:
    for step in range(first, first + steps):
        x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_singular_values_come_near_one_and_directions_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((16, 40), (40, 16), (12, 12)):
        matrix = torch.randn(shape, generator=generator)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        got = orthogonalise(matrix)
        values = torch.diagonal(u.T @ got @ v.T)
        assert values.min() > 0.3 and values.max() < 1.35  # the published iteration ends between about 0.7 and 1.2
        assert torch.allclose(got, u @ torch.diag(values) @ v, atol=0.05)


def test_what_is_no_hidden_matrix_steps_as_adamw_does() -> None:
    ours, theirs = net(), net()
    names = [name for name, _ in ours.named_parameters()]
    optimizer = Muon(ours.named_parameters(), 0.1, 0.01, tuple(names), weight_decay=0.0)
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0, eps=1e-8)
    for got, expected in zip(train(ours, optimizer, 6), train(theirs, adam, 6), strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


def test_a_saved_optimizer_goes_on_bit_for_bit() -> None:
    def made(model: nn.Module) -> Muon:
        return Muon(model.named_parameters(), 0.02, 0.001, ("0.",), weight_decay=0.01)

    whole = net()
    expected = train(whole, made(whole), 6)
    half = net()
    optimizer = made(half)
    train(half, optimizer, 3)
    again = net()
    again.load_state_dict(half.state_dict())
    resumed = made(again)
    resumed.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(train(again, resumed, 3, first=3), expected, strict=True))
