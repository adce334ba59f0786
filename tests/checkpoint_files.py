"""A small checkpoint with contents that its step decides."""

import torch

from selfcascade.training.checkpoints import Checkpoint


def checkpoint_at(step: int, size: int = 5) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = {"a": torch.randn(size, generator=generator), "b": torch.randn(2, 3, generator=generator).half()}
    return Checkpoint(step, {"weights": weights, "optimizer": {}}, {"step": step, "words": "ä", "list": [1, [2]]})
