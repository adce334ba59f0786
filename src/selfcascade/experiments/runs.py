"""Runs of experiments: a result is a JSON file, and only missing results are made.

experiments/SUITE/results/NAME/...     an experiment's figures, one file a sampling, seed and training step
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file
from torch import Tensor

from selfcascade.base_models import family_of
from selfcascade.base_models.family import denoiser
from selfcascade.cascade import Size
from selfcascade.data import ClipFiles, Stream, open_source
from selfcascade.evaluation import BaseSamples, Sampling, open_benchmark, sample
from selfcascade.evaluation.make_samples import weights_digest
from selfcascade.evaluation.parts import SingleProcess, in_parts, pictures_of
from selfcascade.experiments.experiment import names_of, read_experiment
from selfcascade.experiments.records import check_result, rounded, settings_of
from selfcascade.experiments.sheets import PICTURES, write_sheet
from selfcascade.media.images import file_sha256
from selfcascade.media.whole_files import write_whole
from selfcascade.methods import METHODS
from selfcascade.metrics.registry import CLIP_METRICS, IMAGE_METRICS
from selfcascade.models import BUNDLED_SUPER_RESOLVER, load_model, load_upsamplers
from selfcascade.training import Trainer, TrainingConfig
from selfcascade.training.checkpoints import list_checkpoints
from selfcascade.training.extras import check_extras

# Figures that are printed and logged while results are made.
HEADLINES = {name: metric.headline for name, metric in {**IMAGE_METRICS, **CLIP_METRICS}.items() if metric.headline}


class Run:
    """One experiment with one seed: what is there, what is missing, and making it.

    Args:
        suite: The experiments' directory.
        name: The experiment.
        seed: Seed of its training.
        runs: Weights, checkpoints and base samples go there.
        changes: Settings that replace the experiment's own.
        results: Folder of the results; the suite's own unless given.
    """

    def __init__(
        self,
        suite: Path,
        name: str,
        seed: int,
        runs: Path,
        changes: dict[str, Any] | None = None,
        results: Path | None = None,
    ) -> None:
        self.experiment = read_experiment(suite, name, changes)
        self.suite, self.name, self.seed, self.runs = suite, name, seed, runs
        self.results = results or suite / "results"
        self.seconds, self.since, self.resumed_at, self.parameters = 0.0, time.perf_counter(), 0, 0

    @property
    def at_steps(self) -> tuple[int, ...]:
        """Training steps at which this seed is measured."""
        experiment = self.experiment
        end = experiment.more_seeds_at or max(experiment.at_steps)
        return experiment.at_steps if self.seed in experiment.seeds else (end,)

    def missing(self) -> dict[tuple[int, str], list[int]]:
        """Training steps and samplings without all their results: how many pictures the missing ones are of.

        Raises:
            ValueError: A result is there that was made with other settings.
        """
        experiment, found = self.experiment, {}
        for step in self.at_steps:
            last = self.seed in experiment.seeds and step == max(experiment.at_steps)
            counts = experiment.samples_at_last if last else experiment.samples
            for sampling, own in experiment.samplings.items():
                if step not in own.get("at_steps", experiment.at_steps):
                    continue
                left = [count for count in counts if not self._is_there(sampling, step, count)]
                if left:
                    found[step, sampling] = left
        return found

    def make(self) -> None:
        """Trains as far as results are missing, and makes them on the way."""
        if not self.missing():
            return
        experiment, processes = self.experiment, PartialState()
        device = str(processes.device) if processes.num_processes > 1 else None
        pipe = load_model(experiment.model, device, None if experiment.dtype == "auto" else experiment.dtype)
        pipe.set_progress_bar_config(disable=True)
        if family_of(pipe).video != (experiment.frames is not None):
            kind, words = ("clips", "given") if family_of(pipe).video else ("pictures", "left out")
            raise ValueError(f"frames must be {words} for model {experiment.model!r}, which makes {kind}")
        for weight in denoiser(pipe).parameters():
            if weight.ndim == 4:  # a seventh less time on a CPU from 4x the pixels on
                weight.data = weight.data.to(memory_format=torch.channels_last)
        self.samplings = {name: experiment.sampling(name).sized(pipe) for name in experiment.samplings}
        self.base_sizes = {name: sampling.base_size(pipe) for name, sampling in self.samplings.items()}
        usual = Sampling(**experiment.shared)
        sizes = [sampling.size for sampling in self.samplings.values()]
        config = None if experiment.training is None else self._config(sizes[0])
        benchmark = open_benchmark(experiment.data, experiment.detector, sizes[0], experiment.frames, experiment.fps)
        self.evaluators = {size: benchmark.evaluator(*size, self.runs, experiment.real_pictures) for size in set(sizes)}
        most = max(*experiment.samples, *experiment.samples_at_last)
        self.prompts = benchmark.prompts(most, self.seed if experiment.training is None else 0)
        base_prompts = benchmark.base_prompts(experiment.base_pictures)
        self.base: dict[Size, dict[str, Tensor]] = {}
        self.base_samples: dict[str, BaseSamples] = {}
        for size in set(self.base_sizes.values()):
            base = None if base_prompts is None else BaseSamples(pipe, base_prompts, size, usual, self.runs, processes)
            self.base[size] = {} if base is None else {"base": base.pictures(pipe)}
        made: dict[Any, BaseSamples] = {}
        for name, sampling in self.samplings.items():
            own = (self.base_sizes[name], *sampling.of_base.values())
            made[own] = made.get(own) or BaseSamples(pipe, self.prompts, own[0], sampling, self.runs, processes)
            self.base_samples[name] = made[own]
        if config is None:
            self._make_untrained(pipe, processes)
            return
        missing = self.missing()
        with processes.main_process_first():
            self.resumed_at = self._rewind(config.folder, missing)
        clips = None if experiment.frames is None else ClipFiles(**self._length(), fixed_start=True)
        source = open_source(config.train_data, sizes[0], clips=clips)
        stream = Stream(source, sizes[:1], config.seed, fixed_crops=True)
        trainer = Trainer(pipe, config, stream, self)
        self.parameters = sum(parameter.numel() for parameter in trainer.trained.values())
        if self.resumed_at == 0 and processes.is_main_process:
            self(0, pipe, getattr(trainer.trainable, "upsamplers", None))
        processes.wait_for_everyone()
        self.seconds, self.since = 0.0, time.perf_counter()
        trainer.run()
        if trainer.stop.asked_by:
            raise KeyboardInterrupt(trainer.stop.asked_by)  # it is the suite that was to stop

    def _make_untrained(self, pipe: Any, processes: PartialState) -> None:
        """The missing results of a method that is not trained here, sampled by all processes."""
        upsamplers = None if self.experiment.upsamplers is None else load_upsamplers(self.experiment.upsamplers)
        self.parameters = 0 if upsamplers is None else upsamplers.num_parameters()
        for (step, name), counts in self.missing().items():
            self._sample(step, name, counts, pipe, upsamplers, [], processes)

    def __call__(self, step: int, pipe: Any, upsamplers: Any) -> dict[str, float]:
        """Makes the missing results of this step; the trainer calls it."""
        self.seconds += time.perf_counter() - self.since
        shown: dict[str, float] = {}
        for (missing_step, name), counts in self.missing().items():
            if missing_step == step:
                trained = [weights_digest(denoiser(pipe))]
                shown |= self._sample(step, name, counts, pipe, upsamplers, trained, SingleProcess())
        self.since = time.perf_counter()
        return shown

    def _sample(
        self, step: int, name: str, counts: list[int], pipe: Any, upsamplers: Any, trained: list[str], processes: Any
    ) -> dict[str, float]:
        """Samples in parts that stay on disk until they are evaluated; returns the headline figures."""
        sampling, base, prompts = self.samplings[name], self.base_samples[name], self.prompts.head(max(counts))
        key = [asdict(sampling), base.name, _digests(sampling.weights), weights_digest(upsamplers), *trained]
        folder = self.runs / f"pictures-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"

        def make(indices: range) -> dict[str, Tensor]:
            began = time.perf_counter()
            pictures = sample(pipe, prompts, sampling, base, upsamplers, indices)
            seconds = torch.full((len(pictures),), (time.perf_counter() - began) / len(pictures))
            return {"pictures": pictures.mul(255).round().byte(), "seconds": seconds}

        headlines: dict[str, float] = {}
        parts = in_parts(make, list(prompts.groups()), folder, f"{self.name} seed {self.seed} {name}", processes)
        if processes.is_main_process:
            headlines = self._evaluate(step, name, counts, parts)
            shutil.rmtree(folder)
        processes.wait_for_everyone()
        return headlines

    def _evaluate(self, step: int, name: str, counts: list[int], parts: list[Path]) -> dict[str, float]:
        """Writes the results of samples, reading one part of them at a time; returns their headline figures."""
        headlines: dict[str, float] = {}
        if self.seed == self.experiment.seeds[0] and step == max(self.experiment.at_steps):
            shown = self._path(name, step, 0).with_name(f"{name}-step{step:06d}.webp")
            write_sheet(shown, torch.cat(list(pictures_of(parts, PICTURES))), self.prompts, self.experiment.fps)
        evaluator = self.evaluators[self.samplings[name].size]
        seconds = float(torch.cat([load_file(path)["seconds"] for path in parts]).mean())
        for count in counts:
            figures = evaluator.evaluate(pictures_of(parts, count), self.prompts, **self.base[self.base_sizes[name]])
            self._write(step, name, count, seconds, figures)
            headlines |= {f"{name}_{key}": figures[key][0] for key in HEADLINES if key in figures}
        return headlines

    def _rewind(self, folder: Path, missing: dict[tuple[int, str], list[int]]) -> int:
        """The step to train on from: that of the newest checkpoint before which nothing is missing; newer ones go."""
        first, left = min(step for step, _ in missing), 0
        for place in list_checkpoints(folder):
            step = int(place.name.rpartition("-")[2])
            if step <= first:
                left = step
            else:
                shutil.rmtree(place)
        return left

    def _config(self, size: Size) -> TrainingConfig:
        steps = self.at_steps
        given = {**self.experiment.shared_training, **(self.experiment.training or {})}
        folder = self.runs / self.suite.name / self.name / f"seed-{self.seed}"
        interval = math.gcd(*self.experiment.at_steps)
        own = {"model": self.experiment.model, "seed": self.seed, "output_dir": str(folder)}
        own |= {"max_train_steps": max(steps), "resume_from_checkpoint": "latest"}
        own |= {"cache_latents": str(self.runs / "latents"), **self._length()}
        data = self.experiment.train_data or self.experiment.data
        given = {"resolution": tuple(size), "train_data": data, **given}
        config = TrainingConfig(**{**given, **own, "validation_steps": interval, "checkpointing_steps": interval})
        check_extras(config)
        return config

    def _write(self, step: int, name: str, count: int, seconds: float, figures: dict[str, Any]) -> None:
        trained = step - self.resumed_at
        method = METHODS[self.samplings[name].method]
        base = self.base_samples[name].seconds if method.from_base else 0.0
        result = {
            "experiment": self.name,
            "sampling": {"name": name, **asdict(self.samplings[name])},
            "seed": self.seed,
            "step": step,
            "trained_parameters": self.parameters,
            "seconds_per_training_step": self.seconds / trained if trained else None,
            "seconds_per_picture": seconds + base,
            "seconds_per_base_sample": base,
            "settings": settings_of(self.experiment),
            **self._length(),
            **figures,
        }
        text = json.dumps(rounded(result), indent=1) + "\n"
        write_whole(self._path(name, step, count), lambda aside: aside.write_text(text))
        words = [f"{word} {figures[key][0]:.3f}" for key, word in HEADLINES.items() if key in figures]
        if isinstance(figures.get("composition"), dict):
            words.insert(0, f"all {figures['composition']['all']:.3f}")
        print(f"{self.name} seed {self.seed} step {step} {name} of {count}: {', '.join(words)}", flush=True)

    def _length(self) -> dict[str, Any]:
        """Frames and rate of clips; nothing of pictures."""
        frames = self.experiment.frames
        return {} if frames is None else {"frames": frames, "fps": self.experiment.fps}

    def _is_there(self, sampling: str, step: int, count: int) -> bool:
        path = self._path(sampling, step, count)
        if not path.exists():
            return False
        check_result(path, self.experiment.sampling(sampling), settings_of(self.experiment))
        return True

    def _path(self, sampling: str, step: int, count: int) -> Path:
        folder = self.results / self.name / f"seed-{self.seed}"
        return folder / f"{sampling}-step{step:06d}-n{count}.json"


def runs_of(
    suite: Path,
    names: list[str],
    runs: Path,
    changes: dict[str, Any] | None = None,
    results: Path | None = None,
) -> Iterator[Run]:
    """The runs of these experiments, all of the suite's if none is named; the first seeds first.

    Args:
        suite, names, runs, changes, results: As in `Run`.

    Raises:
        ValueError: The suite or an experiment does not exist.
    """
    if not suite.is_dir():
        raise ValueError(f"suite {suite} is not a folder")
    if not names_of(suite):
        raise ValueError(f"suite {suite} holds no experiment, a NAME.json")
    chosen = names or names_of(suite)
    experiments = {name: read_experiment(suite, name, changes) for name in chosen}
    seeds = {name: (*experiment.seeds, *experiment.more_seeds) for name, experiment in experiments.items()}
    for seed in sorted({seed for own in seeds.values() for seed in own}):
        yield from (Run(suite, name, seed, runs, changes, results) for name in chosen if seed in seeds[name])


def _digests(weights: str | None) -> list[str]:
    """The weights as given, and the SHA-256 of each of their files where they lie in a folder."""
    folder = BUNDLED_SUPER_RESOLVER if weights == "bundled" else Path(weights or "")
    found = sorted(folder.rglob("*.safetensors")) if weights and folder.is_dir() else []
    return [str(weights), *(file_sha256(path) for path in found)]
