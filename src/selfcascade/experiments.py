"""Experiments: a file holds what differs from the defaults, a result is a JSON file, and only missing results are made.

experiments/defaults.json              what all experiments share
experiments/SUITE/NAME.json            one experiment: its differences
experiments/SUITE/results/NAME/...     its figures, one file a sampling, seed and training step
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data import Stream, open_source
from selfcascade.evaluation import Judge, Pivots, Questions, Sampling, answer
from selfcascade.files import write_whole
from selfcascade.models import load_model, load_upsamplers
from selfcascade.training import Trainer, TrainingConfig
from selfcascade.training.checkpoints import list_checkpoints

SHOWN = 12
ASKED_FIRST, OTHERS_FIRST = 50_000_000, 55_000_000
SEED_STEP = 100_000


class Experiment(BaseModel):
    """One method, trained or not, and how it is sampled and measured.

    Raises:
        ValueError: A setting is out of range (pydantic's `ValidationError` is one); the message names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("bundled", description="'bundled', a folder in diffusers' format, or a Hub id.")
    training: dict[str, Any] | None = Field(None, description="Differences from TrainingConfig; none: not trained.")
    upsamplers: str | None = Field(None, description="Trained upsamplers, by name or folder.")
    samplings: dict[str, dict[str, Any]] = Field(
        description="Name of each way to sample: its settings, and its own at_steps where those are fewer."
    )
    at_steps: tuple[int, ...] = Field((0,), description="Training steps at which it is measured.")
    seeds: tuple[int, ...] = Field((0,), description="Of the training; without one, of captions and pictures.")
    more_seeds: tuple[int, ...] = Field((), description="More of them, trained to one step and measured there.")
    more_seeds_at: int | None = Field(None, description="That step; the last unless given.")
    questions: tuple[PositiveInt, ...] = Field((100,), description="Pictures at each step: a result for each count.")
    questions_at_last: tuple[PositiveInt, ...] = Field((100, 300), description="Pictures at the last step.")
    real_pictures: PositiveInt = Field(1000, description="Renders that the pictures are compared with.")
    base_pictures: PositiveInt = Field(300, description="Base samples of other captions, for FID_b and KID_b.")
    shared: dict[str, Any] = Field({}, description="Settings of all samplings.")
    shared_training: dict[str, Any] = Field({}, description="Settings of all trainings.")

    def sampling(self, name: str) -> Sampling:
        """The settings of one way to sample."""
        own = {key: value for key, value in self.samplings[name].items() if key != "at_steps"}
        return replace(Sampling(), **{**self.shared, **own})


class Run:
    """One experiment with one seed: what is there, what is missing, and making it.

    Args:
        suite: The experiments' directory.
        name: The experiment.
        seed: Of its training.
        runs: Weights, checkpoints and base samples go there.
    """

    def __init__(self, suite: Path, name: str, seed: int, runs: Path) -> None:
        self.experiment = read_experiment(suite, name)
        self.suite, self.name, self.seed, self.runs = suite, name, seed, runs
        self.seconds, self.since, self.resumed_at, self.parameters = 0.0, time.perf_counter(), 0, 0

    @property
    def at_steps(self) -> tuple[int, ...]:
        """Training steps at which this seed is measured."""
        experiment = self.experiment
        end = experiment.more_seeds_at or max(experiment.at_steps)
        return experiment.at_steps if self.seed in experiment.seeds else (end,)

    def missing(self) -> dict[tuple[int, str], list[int]]:
        """Training steps and samplings without all their results: how many pictures the missing ones are of."""
        experiment, found = self.experiment, {}
        for step in self.at_steps:
            last = self.seed in experiment.seeds and step == max(experiment.at_steps)
            counts = experiment.questions_at_last if last else experiment.questions
            for sampling, own in experiment.samplings.items():
                if step not in own.get("at_steps", experiment.at_steps):
                    continue
                left = [count for count in counts if not self._path(sampling, step, count).exists()]
                if left:
                    found[step, sampling] = left
        return found

    def make(self) -> None:
        """Trains as far as results are missing, and makes them on the way."""
        if not self.missing():
            return
        experiment = self.experiment
        pipe = load_model(experiment.model, dtype="float32")
        pipe.set_progress_bar_config(disable=True)
        samplings = [experiment.sampling(name) for name in experiment.samplings]
        most = max(*experiment.questions, *experiment.questions_at_last)
        self.questions_first = ASKED_FIRST + (SEED_STEP * self.seed if experiment.training is None else 0)
        self.pivots = Pivots(pipe, Questions(most, self.questions_first), samplings[0], self.runs)
        others = Questions(experiment.base_pictures, OTHERS_FIRST)
        self.base = Pivots(pipe, others, samplings[0], self.runs).pictures(pipe)
        sizes = {(sampling.height, sampling.width) for sampling in samplings}
        self.judges = {size: Judge(*size, self.runs, experiment.real_pictures) for size in sizes}
        if experiment.training is None:
            tuned = None if experiment.upsamplers is None else load_upsamplers(experiment.upsamplers)
            self(0, pipe, tuned)
            return
        config = self._config()
        self.resumed_at = self._rewind(config.folder)
        size = Size(*config.resolution)
        stream = Stream(open_source(config.train_data, size), (size,), config.seed, fixed_crops=True)
        trainer = Trainer(pipe, config, stream, self)
        self.parameters = sum(parameter.numel() for parameter in trainer.trained.values())
        if self.resumed_at == 0:
            self(0, pipe, getattr(trainer.trainable, "upsamplers", None))
        self.seconds, self.since = 0.0, time.perf_counter()
        trainer.run()
        if trainer.stop.asked_by:
            raise KeyboardInterrupt(trainer.stop.asked_by)  # it is the suite that was to stop

    def __call__(self, step: int, pipe: Any, upsamplers: Any) -> dict[str, float]:
        """Makes the missing results of this step; the trainer calls it."""
        self.seconds += time.perf_counter() - self.since
        shown: dict[str, float] = {}
        for (missing_step, name), counts in self.missing().items():
            if missing_step != step:
                continue
            sampling, began = self.experiment.sampling(name), time.perf_counter()
            questions = Questions(max(counts), self.questions_first)
            pictures = answer(pipe, questions, sampling, self.pivots, upsamplers)
            seconds = (time.perf_counter() - began) / len(pictures)
            if self.seed == self.experiment.seeds[0] and step == max(self.experiment.at_steps):
                self._write_sheet(name, step, pictures, questions)
            for count in counts:
                judge = self.judges[sampling.height, sampling.width]
                figures = judge.judge(pictures[:count], questions.truths(count), self.base)
                self._write(step, name, count, seconds, figures)
                shown |= {f"{name}_all": figures["composition"]["all"], f"{name}_patch_fid": figures["patch_fid"][0]}
        self.since = time.perf_counter()
        return shown

    def _rewind(self, folder: Path) -> int:
        """The step to train on from: that of the newest checkpoint before which nothing is missing; newer ones go."""
        first, left = min(step for step, _ in self.missing()), 0
        for place in list_checkpoints(folder):
            step = int(place.name.rpartition("-")[2])
            if step <= first:
                left = step
            else:
                shutil.rmtree(place)
        return left

    def _config(self) -> TrainingConfig:
        steps = self.at_steps
        given = {**self.experiment.shared_training, **(self.experiment.training or {})}
        folder = self.runs / self.suite.name / self.name / f"seed-{self.seed}"
        interval = math.gcd(*self.experiment.at_steps)
        own = {"model": self.experiment.model, "seed": self.seed, "output_dir": str(folder)}
        own |= {"max_train_steps": max(steps), "resume_from_checkpoint": "latest"}
        own |= {"cache_latents": str(self.runs / "latents")}
        return TrainingConfig(**{**given, **own, "validation_steps": interval, "checkpointing_steps": interval})

    def _write(self, step: int, name: str, count: int, seconds: float, figures: dict[str, Any]) -> None:
        trained = step - self.resumed_at
        result = {
            "experiment": self.name,
            "sampling": {"name": name, **asdict(self.experiment.sampling(name))},
            "seed": self.seed,
            "step": step,
            "trained_parameters": self.parameters,
            "seconds_per_training_step": self.seconds / trained if trained else None,
            "seconds_per_picture": seconds,
            **figures,
        }
        text = json.dumps(rounded(result), indent=1) + "\n"
        write_whole(self._path(name, step, count), lambda aside: aside.write_text(text))
        print(
            f"{self.name} seed {self.seed} step {step} {name} of {count}: all {figures['composition']['all']:.3f}, "
            f"FID {figures['fid'][0]:.3f}, patch FID {figures['patch_fid'][0]:.3f}",
            flush=True,
        )

    def _write_sheet(self, name: str, step: int, pictures: Tensor, questions: Questions) -> None:
        """The first pictures side by side, beside the results: what the report shows."""
        shown = pictures[:SHOWN]
        array = torch.cat(list(shown), 2).permute(1, 2, 0).mul(255).round().byte().numpy()
        path = self._path(name, step, 0).with_name(f"{name}-step{step:06d}.webp")
        write_whole(path, lambda aside: Image.fromarray(array).save(aside, format="WEBP", quality=85, method=6))
        captions = questions.captions(range(len(shown)))
        write_whole(path.with_suffix(".txt"), lambda aside: aside.write_text("\n".join(captions) + "\n"))

    def _path(self, sampling: str, step: int, count: int) -> Path:
        folder = self.suite / "results" / self.name / f"seed-{self.seed}"
        return folder / f"{sampling}-step{step:06d}-n{count}.json"


def read_experiment(suite: Path, name: str) -> Experiment:
    """The experiment of this name: the defaults beside the suite, and its own differences.

    Raises:
        ValueError: There is no such file, or a setting is out of range.
    """
    path, defaults = suite / f"{name}.json", suite.parent / "defaults.json"
    if not path.is_file():
        raise ValueError(f"experiment {name!r} is not in {suite}; it must be one of {', '.join(names_of(suite))}")
    settings = json.loads(defaults.read_text()) if defaults.is_file() else {}
    try:
        experiment = Experiment(**{**settings, **json.loads(path.read_text())})
        for sampling in experiment.samplings:
            experiment.sampling(sampling)
    except (ValidationError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"experiment {path} cannot be read: {error}") from error
    return experiment


def names_of(suite: Path) -> list[str]:
    """The experiments of a suite."""
    return sorted(path.stem for path in suite.glob("*.json"))


def runs_of(suite: Path, names: list[str], runs: Path) -> Iterator[Run]:
    """The runs of these experiments, all of the suite's if none is named; the first seeds first.

    Raises:
        ValueError: The suite or an experiment does not exist.
    """
    if not names_of(suite):
        raise ValueError(f"suite {suite} holds no experiment, a NAME.json")
    chosen = names or names_of(suite)
    experiments = {name: read_experiment(suite, name) for name in chosen}
    seeds = {name: (*experiment.seeds, *experiment.more_seeds) for name, experiment in experiments.items()}
    for seed in sorted({seed for own in seeds.values() for seed in own}):
        yield from (Run(suite, name, seed, runs) for name in chosen if seed in seeds[name])


def rounded(value: Any) -> Any:
    """Numbers to five significant digits, as far as figures go."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
