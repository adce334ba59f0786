"""Experiments: files in, result files out, and only missing ones are made."""

from selfcascade.experiments.run import Run, runs_of
from selfcascade.experiments.settings import Experiment, names_of, read_experiment, read_shared

__all__ = ["Experiment", "Run", "names_of", "read_experiment", "read_shared", "runs_of"]
