"""The settings recorded in a result, and whether they match the current ones."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from selfcascade.evaluation import Sampling
from selfcascade.evaluation.provenance import unlike, weight_files
from selfcascade.experiments.experiment import Experiment
from selfcascade.options.json_files import read_object

SETTINGS = (
    "split", "pivots",
    "model", "dtype", "frames", "fps", "data", "train_data", "detector", "upsamplers", "real_pictures", "base_pictures",
)  # fmt: skip
# Of sizes None means the model's, so a record that names none is not compared in them.
DEFAULTS = {field.name: field.default for field in fields(Sampling) if field.name not in ("height", "width")}


def settings_of(experiment: Experiment) -> dict[str, Any]:
    """Settings that the figures depend on, besides the sampling, the seed, the step and the number of pictures."""
    training = None if experiment.training is None else {**experiment.shared_training, **experiment.training}
    held = experiment.model_dump(include=set(SETTINGS))
    if experiment.split is None:  # results from before there were sets do not say so
        del held["split"]
    return {**held, "training": training}


def check_result(path: Path, sampling: Sampling, settings: dict[str, Any]) -> None:
    """Raises ValueError if the result at `path` cannot be read, or was made with other settings.

    A record without one of the sampling's settings means that setting's default: it is of before it existed, or names
    none. Other settings that the record does not have are accepted. A missing size means the model's.
    """
    try:
        result = read_object(path, "result")
        held = {**DEFAULTS, **result["sampling"], **result.get("settings", {})}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"result {path} cannot be read, delete it to make it again: {error!r}") from error
    asked = {**DEFAULTS, **sampling.as_record(), **settings}
    asked = {name: value for name, value in asked.items() if name not in ("height", "width") or value is not None}
    weights = weight_files(settings["model"], settings["upsamplers"], sampling.weights, sampling.pivot_upscaler)
    differs = unlike(result, weights)
    if differs is not None:
        raise ValueError(f"result {path} was made with {differs}; delete it, or give another output")
    for name, value in json.loads(json.dumps(rounded(asked))).items():
        if name in held and held[name] != value:
            words = f"{name} {held[name]!r}, not {value!r}"
            raise ValueError(f"result {path} was made with {words}; delete it, or give another output")


def rounded(value: Any) -> Any:
    """Rounds all numbers in a value to five significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
