"""Short training runs of the tiny Stable Diffusion on scenes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade_runs import QUICK
from selfcascade.cascade import Size
from selfcascade.data import ScenesSource, Stream, open_source
from selfcascade.training import Trainer, TrainingConfig

SIZE = Size(64, 64)


def settings(folder: Path, **changes: Any) -> TrainingConfig:
    given = {
        "output_dir": str(folder),
        "resolution": 64,
        "train_batch_size": 2,
        "max_train_steps": 6,
        "checkpointing_steps": 2,
        "checkpoints_total_limit": None,
        "logging_steps": 1,
        "learning_rate": 1e-2,
    }
    return TrainingConfig(**{**given, **changes})


def trained(
    folder: Path, pipe: Any = None, stop_after: int | None = None, announce: Any = None, **changes: Any
) -> Trainer:
    config = settings(folder, **changes)
    source = ScenesSource(SIZE) if config.clips is None else open_source("moving-scenes", SIZE, clips=config.clips)
    trainer = Trainer(pipe or QUICK.build(), config, Stream(source, (SIZE,), config.seed), announce=announce)
    if stop_after is not None:
        step = trainer._optimizer_step

        def counted(batches: Any) -> float:
            loss = step(batches)
            if trainer.step == stop_after:
                trainer.stop.asked_by = "SIGTERM"
            return loss

        trainer._optimizer_step = counted  # type: ignore[method-assign]
    trainer.run()
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.trained.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
