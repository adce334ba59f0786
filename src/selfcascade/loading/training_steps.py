"""Reads T, the number of training timesteps, from a model's folder without loading the model."""

from __future__ import annotations

from pathlib import Path

from selfcascade.options.checks import check_range, is_whole
from selfcascade.options.json_files import read_object


def check_pivot_step(pivot_step: int | tuple[int, ...], folder: Path | None) -> None:
    """Refuses a K above T before torch is imported, if the folder says T. The plan checks it again for every model.

    Args:
        pivot_step: K of all stages with a pivot, or one value each.
        folder: The model's folder or file. None if it is on the Hub.

    Raises:
        OptionError: K lies outside (0, T].
    """
    path = None if folder is None else folder / "scheduler" / "scheduler_config.json"
    if path is None or not path.is_file():
        return
    steps = read_object(path, "file").get("num_train_timesteps", 1000)
    asked = pivot_step if isinstance(pivot_step, tuple) else (pivot_step,)
    if is_whole(steps):
        check_range("pivot_step", asked, steps)
