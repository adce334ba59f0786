"""The recipe's optimizers, both torch's own: Muon (Jordan et al. 2024) for hidden weights, AdamW for all others.

On these small models Muon needs a fraction of AdamW's steps. `torch.optim.Muon` takes matrices only, so it gets
convolutions as matrices that share their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from selfcascade.base_models.precision import has_bfloat16


def orthogonalized(grad: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """The Newton-Schulz iteration of `torch.optim.Muon` in float32; torch's own computes in bfloat16.

    Args:
        grad: A matrix.
        coefficients: The three of the quintic polynomial.
        steps: Number of iterations.
        eps: Smallest norm to divide by.
    """
    a, b, c = coefficients
    tall = grad.size(0) > grad.size(1)
    matrix = grad.float().T if tall else grad.float()
    matrix = matrix / matrix.norm().clamp(min=eps)
    for _ in range(steps):
        gram = matrix @ matrix.T
        matrix = torch.addmm(matrix, torch.addmm(gram, gram, gram, beta=b, alpha=c), matrix, beta=a)
    return matrix.T if tall else matrix


class Muon(torch.optim.Muon):
    """Muon for weights with two or more dimensions, each as a matrix (outputs, everything else).

    Args:
        weights: Contiguous weights, on their final device.
        lr: Learning rate.
        weight_decay: Decoupled weight decay, multiplied by the learning rate.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.weights = list(weights)
        # A view, never a copy: a step on the matrix must change the weight.
        self.matrices = [nn.Parameter(weight.detach().view(len(weight), -1)) for weight in self.weights]
        super().__init__(self.matrices, lr=lr, weight_decay=weight_decay)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Runs a step on the weights' gradients."""
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)
        if has_bfloat16(str(self.weights[0].device)):
            return super().step(closure)
        with patch("torch.optim._muon._zeropower_via_newtonschulz", orthogonalized):
            return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of the weights and of their matrices."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def make_optimizers(
    module: nn.Module,
    learning_rate: float,
    adam_learning_rate: float,
    others: tuple[str, ...] = (),
    weight_decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden weights of a module and AdamW for the rest.

    Args:
        module: The module; only parameters that require gradients are trained.
        learning_rate: Learning rate of Muon.
        adam_learning_rate: Learning rate of AdamW.
        others: Parts of names of weights that are not hidden: embeddings, first and last layers.
        weight_decay: Weight decay of the hidden weights.

    Returns:
        The two optimizers, or only AdamW if there are no hidden weights.
    """
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            is_hidden = weight.ndim > 1 and not any(word in name for word in others)
            (hidden if is_hidden else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=adam_learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    return [Muon(hidden, learning_rate, weight_decay), adam] if hidden else [adam]


def state_tensors(optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of all optimizers, by "optimizer/weight/name"."""
    return {
        f"{number}/{index}/{key}": value
        for number, optimizer in enumerate(optimizers)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_state(optimizers: Iterable[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Restores the result of `state_tensors`; learning rates are not changed."""
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            owner, index, key = name.split("/")
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
