"""Self-attention in training's passes: full, or in windows of the native size, as stages above it have when sampled."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from torch import Tensor

from selfcascade.base_models import family_of
from selfcascade.base_models.local_attention import OneStep, local_attention
from selfcascade.base_models.self_attention import check_local
from selfcascade.base_models.stage_attention import grids
from selfcascade.cascade import Size
from selfcascade.pipeline import SelfCascade
from selfcascade.training.config import TrainingConfig
from selfcascade.training.trainables import Trainable


class PassAttention:
    """The attention of a run's passes.

    Args:
        pipe: The base model's pipeline, with a U-Net.
        config: Settings of the run; with attention "full" nothing is changed.

    Attributes:
        native: Size in pixels whose area the windows have; None if attention is full.

    Raises:
        ValueError: Attention cannot be local in this U-Net, or nothing would be at this resolution.
    """

    def __init__(self, pipe: Any, config: TrainingConfig) -> None:
        self.unet, self.family, self.native = pipe.unet, family_of(pipe), None
        if config.attention == "full":
            return
        check_local(pipe.unet)
        size, self.native = Size(*config.resolution), SelfCascade(pipe).native_size
        if size.area <= self.native.area:
            raise ValueError(
                f"attention 'local' needs a resolution above the model's own, {self.native}, not {size}; leave it out"
            )

    @property
    def settings(self) -> tuple[Any, ...]:
        """What skip features of pivots depend on, besides the U-Net and its inputs."""
        return () if self.native is None else ("local", *self.native)

    @contextlib.contextmanager
    def at(self, pixels: Tensor, step: int, trainable: Trainable) -> Generator[None]:
        """A context for all passes on a batch, the backward pass too, in which checkpointed modules run again.

        Windows move by a quarter of their size from step to step, as in a stage. The seamless windows of a stage's last
        step, which cost twice as much, have no counterpart.

        Args:
            pixels: The batch, (B, 3, H, W) or (B, F, 3, H, W).
            step: Index of the optimizer step.
            trainable: What is trained, put in its place.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(trainable.in_place())
            if self.native is not None:
                places = grids(self.family, self.native, Size(*pixels.shape[-2:]))
                held.enter_context(local_attention(self.unet, *places, OneStep(step)))
            yield
