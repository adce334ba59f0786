"""The recipe's optimizers: an orthogonal step for hidden weights, whatever their shape, and AdamW's for the rest."""

import pytest
import torch
from torch import nn

from optimizers import Muon, make_optimizers, restore_state, state_tensors


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 4))


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, first: int = 0) -> list[torch.Tensor]:
    for step in range(first, first + steps):
        x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("native", [True, False])
def test_a_convolution_steps_as_its_matrix_does(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizers.has_bfloat16", lambda device: native)
    convolution, matrix = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Parameter(torch.empty(6, 36))
    matrix.data.copy_(convolution.data.reshape(6, 36))
    ours, theirs = Muon([convolution], 0.02, 0.1), torch.optim.Muon([matrix], lr=0.02, weight_decay=0.1)
    for seed in range(3):
        gradient = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
        convolution.grad, matrix.grad = gradient, gradient.reshape(6, 36)
        ours.step()
        theirs.step()
    found = convolution.reshape(6, 36)
    assert torch.equal(found, matrix) if native else torch.allclose(found, matrix, rtol=0, atol=1e-3)  # steps are 0.02


@pytest.mark.parametrize("native", [True, False])
def test_a_step_is_near_the_nearest_orthogonal_matrix(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizers.has_bfloat16", lambda device: native)
    for shape in ((16, 40), (40, 16), (12, 12)):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        u, _, v = torch.linalg.svd(weight.grad, full_matrices=False)
        Muon([weight], 1.0).step()
        values = -torch.diagonal(u.T @ weight.detach() @ v.T) / max(1, shape[0] / shape[1]) ** 0.5
        assert values.min() > 0.3 and values.max() < 1.35  # the published iteration ends between about 0.7 and 1.2


def test_weights_without_a_gradient_stay() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([used, unused], 0.1, 0.1)
    used.square().sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2)) and not torch.equal(used, torch.ones(2, 2))
    optimizer.zero_grad()
    assert used.grad is None and all(matrix.grad is None for matrix in optimizer.matrices)


def test_what_is_not_hidden_steps_as_adamw_does() -> None:
    ours, theirs = net(), net()
    names = tuple(name for name, _ in ours.named_parameters())
    optimizers = make_optimizers(ours, 0.1, 0.01, names)
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0)
    got, expected = train(ours, optimizers, 4), train(theirs, [adam], 4)
    assert len(optimizers) == 1 and all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_each_trained_weight_is_in_one_optimizer_and_frozen_ones_in_none() -> None:
    model = net()
    model[2].requires_grad_(False)
    muon, adam = make_optimizers(model, 0.1, 0.01, ("0.",))
    assert isinstance(muon, Muon) and muon.weights == [model[4].weight]
    rest = [model[0].weight, model[0].bias, model[1].weight, model[1].bias, model[4].bias]
    assert [id(weight) for weight in adam.param_groups[0]["params"]] == [id(weight) for weight in rest]


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    whole, half, again = net(), net(), net()
    expected = train(whole, make_optimizers(whole, 0.02, 0.001, ("0.",), 0.01), 4)
    optimizers = make_optimizers(half, 0.02, 0.001, ("0.",), 0.01)
    train(half, optimizers, 2)
    again.load_state_dict(half.state_dict())
    resumed = make_optimizers(again, 0.02, 0.001, ("0.",), 0.01)
    restore_state(resumed, {name: value.clone() for name, value in state_tensors(optimizers).items()})
    assert all(torch.equal(a, b) for a, b in zip(train(again, resumed, 2, first=2), expected, strict=True))


def test_weights_that_no_matrix_can_share_memory_with_are_refused() -> None:
    with pytest.raises(RuntimeError, match="view"):
        Muon([nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last))], 0.1)
