"""Checks, before anything is loaded, that optional packages for a run's settings are installed."""

from __future__ import annotations

from importlib.util import find_spec

from selfcascade.options.optional import install, is_installed
from selfcascade.training.config import TrainingConfig

# Trackers whose name in accelerate is the name of their package.
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


def check_extras(config: TrainingConfig) -> None:
    """Raises ValueError, saying what to install, if a package that the settings need is missing."""
    needed = {"method 'lora'": "peft"} if config.method == "lora" else {}
    if config.use_8bit_adam:
        needed["use_8bit_adam"] = "bitsandbytes"
    name = config.report_to
    if name not in (None, "all", *TRACKERS):
        raise ValueError(f"report_to must be one of {', '.join(TRACKERS)}, all, not {name!r}")
    if name is not None and (name != "all" or not any(map(find_spec, TRACKERS))):
        needed[f"report_to {name!r}"] = "tensorboard" if name == "all" else name
    for what, package in needed.items():
        if not is_installed(package):
            hint = install(package, "train")
            raise ValueError(f"{what} needs the package {package}: {hint}")
