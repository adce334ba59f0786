"""Makes the missing results of experiments; the experiments and results are in the repository's `experiments/` folder.

This package is the machinery behind `selfcascade evaluate`: it reads the files of that folder and writes to it.
"""

from selfcascade.experiments.experiment import Experiment, names_of, read_experiment, read_shared
from selfcascade.experiments.runs import Run
from selfcascade.experiments.suites import check_test, runs_of

__all__ = ["Experiment", "Run", "check_test", "names_of", "read_experiment", "read_shared", "runs_of"]
