"""Makes the missing results of experiments; the experiments and results are in the repository's `experiments/` folder.

This package is the machinery behind `selfcascade evaluate`: it reads the files of that folder and writes to it.
"""
