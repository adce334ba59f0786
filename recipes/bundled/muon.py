"""Muon (Jordan et al. 2024) for the weights that are matrices or convolutions, AdamW for all others, as one optimizer.

On these small models it needs a fraction of AdamW's steps; `torch.optim.Muon` takes no convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(update: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest semi-orthogonal matrix: (rows, columns) with all singular values brought near 1."""
    a, b, c = NEWTON_SCHULZ
    tall = update.shape[0] > update.shape[1]
    x = (update.T if tall else update).to(torch.bfloat16 if update.is_cuda else torch.float32)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Muon at `learning_rate` for hidden weights, AdamW at `adam_learning_rate` for the rest.

    `others` names the weights of two or more dimensions that are no hidden ones: embeddings, first and last layers.
    `weight_decay` is for the hidden ones.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        learning_rate: float,
        adam_learning_rate: float,
        others: tuple[str, ...] = (),
        weight_decay: float = 0.0,
    ) -> None:
        hidden, rest = [], []
        for name, parameter in named:
            (hidden if parameter.ndim > 1 and not any(word in name for word in others) else rest).append(parameter)
        shared = {"weight_decay": weight_decay}
        groups = [
            {"params": hidden, "lr": learning_rate, "highest": learning_rate, "orthogonal": True},
            {"params": rest, "lr": adam_learning_rate, "highest": adam_learning_rate, "orthogonal": False},
        ]
        super().__init__(groups, shared)

    def scale_rates(self, factor: float) -> None:
        """Sets every learning rate to `factor` of its highest."""
        for group in self.param_groups:
            group["lr"] = group["highest"] * factor

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on the gradients that are there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._orthogonal if group["orthogonal"] else self._adam)(parameter, parameter.grad, group)

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict, momentum: float = 0.95) -> None:
        state = self.state[parameter]
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        mean.lerp_(gradient, 1 - momentum)
        update = gradient.lerp(mean, momentum).reshape(len(parameter), -1)
        rows, columns = update.shape
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = orthogonalise(update).reshape(parameter.shape)
        parameter.add_(step, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict, betas: tuple = (0.9, 0.99)) -> None:
        state = self.state[parameter]
        steps = state.setdefault("steps", torch.zeros(()))
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        steps += 1
        mean.lerp_(gradient, 1 - betas[0])
        square.lerp_(gradient.square(), 1 - betas[1])
        bias, bias_square = 1 - betas[0] ** steps.item(), 1 - betas[1] ** steps.item()
        parameter.addcdiv_(mean, (square / bias_square).sqrt_().add_(1e-8), value=-group["lr"] / bias)
