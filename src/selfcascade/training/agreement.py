"""What all processes of a training run must agree on before its first step, and the supported engines."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from selfcascade.training.config import TrainingConfig

PACKAGES = ("selfcascade", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow")
# Paths, which may differ between machines: contents are compared, or only the main process uses them.
PLACES = frozenset({"model", "train_data", "validation_data", "output_dir", "cache_latents", "resume_from_checkpoint"})


def versions() -> dict[str, str]:
    """Installed versions of packages that affect a run's figures."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def facts_of_the_model(config: TrainingConfig, base: Any, trained: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Facts that are compared before the model is split between the processes.

    Args:
        config: Settings of the run.
        base: The base model's fingerprint.
        trained: The trained weights by name.
        processes: Number of processes that this one sees.
    """
    settings = {name: value for name, value in config.model_dump(mode="json").items() if name not in PLACES}
    return {
        "the number of processes": processes,
        **{f"the version of {name}": own for name, own in versions().items()},
        **settings,
        "the base model's weights": base,
        "the trained weights' shapes": sorted((name, tuple(weight.shape)) for name, weight in trained.items()),
    }


def refuse_other_engines() -> None:
    """Raises ValueError if accelerate is configured for an engine whose state checkpoints do not support."""
    asked = {name for name in ("DEEPSPEED", "MEGATRON_LM") if os.environ.get(f"ACCELERATE_USE_{name}") == "true"}
    if asked:
        raise ValueError(
            f"accelerate is configured for {asked.pop()}, whose optimizer cannot be resumed exactly; choose FSDP with "
            f"fsdp_version 2 for models that do not fit a device"
        )


def is_sharded(accelerator: Accelerator, config: TrainingConfig) -> bool:
    """Whether each process holds a part of each trained weight (FSDP).

    Raises:
        ValueError: FSDP is configured for a method that does not support it, or as version 1.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return False
    if not accelerator.is_fsdp2:
        raise ValueError("accelerate is configured for fsdp_version 1; choose fsdp_version 2")
    if config.method != "full":
        raise ValueError(f"FSDP is for method 'full'; method {config.method!r} has little to share: leave it out")
    if config.validation_prompt:
        raise ValueError("validation_prompt must be left out with FSDP, where no process has the whole model")
    return True
