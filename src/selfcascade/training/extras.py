"""Optional packages that a run's settings ask for, looked up before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from selfcascade.options.optional import install, is_installed
from selfcascade.training.config import TrainingConfig

# As accelerate and Python both call them.
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


def check_extras(config: TrainingConfig) -> None:
    """Raises ValueError, saying what to install, unless all packages that the settings need are there."""
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
