"""Experiments: files in, result files out, and only missing ones are made."""

from selfcascade.experiments.experiment import Experiment, names_of, read_experiment, read_shared
from selfcascade.experiments.runs import Run, runs_of

__all__ = ["Experiment", "Run", "names_of", "read_experiment", "read_shared", "runs_of"]
