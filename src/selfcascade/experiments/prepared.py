"""Prepares an experiment: the model, prompts, base samples and real samples."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models import family_of
from selfcascade.base_models.family import denoiser
from selfcascade.cascade import Size
from selfcascade.evaluation import BaseSamples, Benchmark, Evaluator, PromptSet, Sampling, open_benchmark
from selfcascade.evaluation.evaluator import BaseReference
from selfcascade.evaluation.true_pivots import TruePivots, TrueSamples
from selfcascade.experiments.experiment import Experiment
from selfcascade.experiments.records import settings_of
from selfcascade.models import load_model
from selfcascade.processes import Processes
from selfcascade.training.agreement import refuse_other_engines, versions


@dataclass
class Prepared:
    """What all results of one experiment and seed have in common.

    Attributes:
        pipe: The base model's pipeline.
        samplings: The experiment's samplings by name, with their sizes.
        prompts: Prompts of the samples.
        base_samples: Base samples of these prompts, for each sampling.
        references: Base samples of other prompts by sampling, for FID_b and KID_b.
        evaluators: Evaluators by size. Only the main process has them, because it measures.
        true_samples: Real samples of the prompts at these indices, at a size.
    """

    pipe: Any
    samplings: dict[str, Sampling]
    prompts: PromptSet
    base_samples: dict[str, BaseSamples | TruePivots]
    references: dict[str, BaseSamples]
    evaluators: dict[Size, Evaluator]
    true_samples: TrueSamples

    def __post_init__(self) -> None:
        self._measured: dict[tuple[Size, str], BaseReference] = {}

    @classmethod
    def of(cls, experiment: Experiment, pipe: Any, seed: int, runs: Path, processes: Processes) -> Prepared:
        """Opens the data, and makes missing base samples.

        Args:
            experiment: The experiment.
            pipe: The base model's pipeline, not yet trained any further.
            seed: Seed of captions and noise, if nothing is trained.
            runs: Folder for base samples and the real samples' features.
            processes: Processes that share the work; only the main one reads the data.
        """
        samplings = {name: experiment.sampling(name).sized(pipe) for name in experiment.samplings}
        sizes = {name: sampling.size for name, sampling in samplings.items()}
        most = max(*experiment.counts(False), *experiment.counts(True))
        evaluators: dict[Size, Evaluator] = {}

        def opened() -> Benchmark:
            first, length = next(iter(sizes.values())), (experiment.frames, experiment.fps)
            return open_benchmark(experiment.data, experiment.detector, first, *length, experiment.split)

        def read() -> tuple[PromptSet, PromptSet | None]:
            benchmark = opened()
            for size in set(sizes.values()):
                protocol = 1 if experiment.split is None else 2
                evaluators[size] = benchmark.evaluator(*size, runs, experiment.real_pictures, protocol)
            prompts = benchmark.prompts(most, seed if experiment.training is None else 0)
            none = experiment.pivots == "true"  # what is enlarged is not the base model's
            return prompts, None if none else benchmark.base_prompts(experiment.base_pictures)

        prompts, others = processes.of_main(read)
        own_benchmark = functools.cache(opened)

        def true_samples(indices: range, size: Size) -> Tensor:
            return own_benchmark().true_samples(prompts, indices, size)

        made: dict[Any, Any] = {}

        def base_samples(of: PromptSet, sampling: Sampling, size: Size) -> Any:
            if experiment.pivots == "true":
                return TruePivots(pipe, prompts, size, true_samples)
            key = (of is prompts, size, *sampling.of_base.values())
            if key not in made:
                made[key] = BaseSamples(pipe, of, size, sampling, runs, processes)
            return made[key]

        usual = Sampling(**experiment.shared)
        base_sizes = {name: sampling.base_size(pipe) for name, sampling in samplings.items()}
        kept = {} if others is None else {name: base_samples(others, usual, size) for name, size in base_sizes.items()}
        own = {name: base_samples(prompts, samplings[name], size) for name, size in base_sizes.items()}
        return cls(pipe, samplings, prompts, own, kept, evaluators, true_samples)

    def evaluator(self, name: str) -> Evaluator:
        """The evaluator of a sampling."""
        return self.evaluators[self.samplings[name].size]

    def base(self, name: str) -> BaseReference | None:
        """The reference of FID_b and KID_b for a sampling; None if these are not measured."""
        return self._measured.get(self._key(name)) if name in self.references else None

    def measure_base(self) -> None:
        """Computes the references of FID_b and KID_b with the base model in its current state."""
        for name, samples in self.references.items():
            if self._key(name) not in self._measured:
                with torch.no_grad():
                    found = self.evaluator(name).base_reference(samples.pictures(self.pipe))
                self._measured[self._key(name)] = found

    def _key(self, name: str) -> tuple[Size, str]:
        return self.samplings[name].size, self.references[name].name


def check_processes(experiment: Experiment, processes: Processes) -> None:
    """Raises ValueError if the processes differ in what the figures depend on, or split weights between them."""
    refuse_other_engines()
    if experiment.training is not None and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise ValueError("accelerate is configured for FSDP, with which evaluate measures nothing; choose another")
    facts = {f"the version of {name}": own for name, own in versions().items()}
    facts["the kind of device"] = processes.device.type
    processes.check_agreement({**facts, **settings_of(experiment)})


def load_pipe(experiment: Experiment, processes: Processes) -> Any:
    """Loads the experiment's model on this process's device.

    Raises:
        ValueError: The model makes clips where pictures are measured, or the reverse.
    """
    device = None if processes.num_processes == 1 else processes.device
    pipe = load_model(experiment.model, device, None if experiment.dtype == "auto" else experiment.dtype)
    pipe.set_progress_bar_config(disable=True)
    if family_of(pipe).video != (experiment.frames is not None):
        kind, words = ("clips", "given") if family_of(pipe).video else ("pictures", "left out")
        raise ValueError(f"frames must be {words} for model {experiment.model!r}, which makes {kind}")
    for weight in denoiser(pipe).parameters():
        if weight.ndim == 4:  # a seventh less time on a CPU from 4x the pixels on
            weight.data = weight.data.to(memory_format=torch.channels_last)
    return pipe
