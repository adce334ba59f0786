"""Runs experiments: a result is a JSON file, and only missing results are made.

experiments/SUITE/results/NAME/...     an experiment's figures, one file per sampling, seed and training step
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.family import denoiser
from selfcascade.cascade import Size
from selfcascade.data import ClipFiles, Stream, open_source
from selfcascade.evaluation import sample
from selfcascade.evaluation.make_samples import REAL, weights_digest
from selfcascade.evaluation.parts import Parts, in_parts
from selfcascade.evaluation.per_picture import record_of, write_record
from selfcascade.evaluation.tflops import planned_tflops
from selfcascade.experiments.experiment import read_experiment
from selfcascade.experiments.measured import how_made, measured
from selfcascade.experiments.prepared import Prepared, check_processes, load_pipe
from selfcascade.experiments.records import check_result, rounded, settings_of
from selfcascade.experiments.samples_folders import (
    PICTURES_OF,
    digests_of,
    lock_of,
    note_results,
    remove_finished,
    rewind,
)
from selfcascade.experiments.sheets import PICTURES, write_sheet
from selfcascade.media.whole_files import write_whole
from selfcascade.methods import METHODS
from selfcascade.metrics.registry import CLIP_METRICS, IMAGE_METRICS
from selfcascade.models import load_upsamplers
from selfcascade.processes import OutputLock, Processes, join
from selfcascade.training import Trainer, TrainingConfig
from selfcascade.training.extras import check_extras

# Numbers of pictures by training step and sampling.
Missing = dict[tuple[int, str], list[int]]
# Figures that are printed and logged while results are made.
HEADLINES = {name: metric.headline for name, metric in {**IMAGE_METRICS, **CLIP_METRICS}.items() if metric.headline}


class Run:
    """One experiment with one seed: finds missing results, and makes them.

    Args:
        suite: Folder of the experiments.
        name: Name of the experiment.
        seed: Seed of its training.
        runs: Folder for weights, checkpoints and base samples.
        changes: Settings that replace the experiment's own.
        results: Folder of the results; the suite's own unless given: "results", or one named as its set of captions.
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
        self.results = results or suite / (self.experiment.split or "results")
        self.seconds, self.since, self.resumed_at, self.parameters = 0.0, time.perf_counter(), 0, 0

    @property
    def at_steps(self) -> tuple[int, ...]:
        """Training steps at which this seed is measured."""
        experiment = self.experiment
        end = experiment.more_seeds_at or max(experiment.at_steps)
        return experiment.at_steps if self.seed in experiment.seeds else (end,)

    def missing(self) -> Missing:
        """Numbers of pictures of the missing results, by training step and sampling.

        Raises:
            ValueError: An existing result was made with other settings.
        """
        experiment, found = self.experiment, {}
        for step in self.at_steps:
            last = self.seed in experiment.seeds and step == max(experiment.at_steps)
            counts = experiment.counts(last)
            for sampling, own in experiment.samplings.items():
                if step not in own.get("at_steps", experiment.at_steps):
                    continue
                left = [count for count in counts if not self._is_there(sampling, step, count)]
                if left:
                    found[step, sampling] = left
        return found

    def make(self, processes: Processes | None = None) -> None:
        """Makes the missing results, and trains as far as they need.

        Args:
            processes: Processes that share the work; None means all that were launched.

        Raises:
            ValueError: A setting cannot be used, or the processes disagree; the message says about what.
        """
        processes = processes or join()
        processes.main_alone(lambda: remove_finished(self.runs))
        missing = processes.of_main(self.missing)
        if not missing:
            return
        processes.check_shared(self.runs, "runs")
        check_processes(self.experiment, processes)
        pipe = processes.together(lambda: load_pipe(self.experiment, processes))
        self.prepared = Prepared.of(self.experiment, pipe, self.seed, self.runs, processes)
        processes.main_alone(self.prepared.measure_base)
        if self.experiment.training is None:
            self._make_untrained(pipe, missing, processes)
        else:
            self._make_trained(pipe, missing, processes)

    def _make_trained(self, pipe: Any, missing: Missing, processes: Processes) -> None:
        """Trains; the trainer calls this object for the missing results of each step."""
        size = next(iter(self.prepared.samplings.values())).size
        config = processes.together(lambda: self._config(size))
        with contextlib.ExitStack() as held:
            processes.main_alone(lambda: held.enter_context(OutputLock(config.folder)))
            first = min(step for step, _ in missing)
            self.resumed_at = processes.of_main(lambda: rewind(config.folder, first))
            clips = None if self.experiment.frames is None else ClipFiles(**self._length(), fixed_start=True)
            source = processes.together(lambda: open_source(config.train_data, size, clips=clips))
            stream = Stream(source, (size,), config.seed, fixed_crops=True)
            trainer = Trainer(pipe, config, stream, self)
            self.parameters = sum(parameter.numel() for parameter in trainer.trained.values())
            if self.resumed_at == 0:
                processes.main_alone(lambda: self(0, pipe, getattr(trainer.trainable, "upsamplers", None)))
            self.seconds, self.since = 0.0, time.perf_counter()
            trainer.run()
        if trainer.stop.asked_by:
            raise KeyboardInterrupt(trainer.stop.asked_by)  # the whole suite must stop

    def _make_untrained(self, pipe: Any, missing: Missing, processes: Processes) -> None:
        """Makes the missing results of a method that is not trained here, with all processes."""
        place = self.experiment.upsamplers
        upsamplers = None if place is None else processes.together(lambda: load_upsamplers(place))
        self.parameters = 0 if upsamplers is None else upsamplers.num_parameters()
        for (step, name), counts in missing.items():
            self._sample(step, name, counts, pipe, upsamplers, [], processes)

    def __call__(self, step: int, pipe: Any, upsamplers: Any) -> dict[str, float]:
        """Makes the missing results of this step; called by the trainer."""
        self.seconds += time.perf_counter() - self.since
        shown: dict[str, float] = {}
        for (missing_step, name), counts in self.missing().items():
            if missing_step == step:
                trained = [weights_digest(denoiser(pipe))]
                shown |= self._sample(step, name, counts, pipe, upsamplers, trained, Processes())
        self.since = time.perf_counter()
        return shown

    def _sample(
        self, step: int, name: str, counts: list[int], pipe: Any, upsamplers: Any, trained: list[str],
        processes: Processes,
    ) -> dict[str, float]:  # fmt: skip
        """Samples in parts that are kept on disk until they are evaluated; returns the headline figures."""
        sampling, base = self.prepared.samplings[name], self.prepared.base_samples[name]
        prompts = self.prepared.prompts.head(max(counts))
        made = how_made(self.experiment, self.prepared, name, upsamplers, trained)
        key = [sampling.as_record(), base.name, digests_of(sampling.weights), weights_digest(upsamplers), *trained]
        key += [made.get(word) for word in ("protocol", "method", "revision", "preset")]
        key += [] if sampling.pivot_upscaler is None else digests_of(sampling.pivot_upscaler)
        own = {} if upsamplers is None else {**upsamplers.config}  # it says how they are sampled
        key += [{name: value for name, value in own.items() if not name.startswith("_")}]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        processes.check_agreement({f"the weights or settings of {name!r}": digest[:12]})
        folder = self.runs / f"{PICTURES_OF}{digest[:12]}"

        def make(indices: range) -> dict[str, Tensor]:
            began = time.perf_counter()
            if sampling.method == REAL:
                pictures = self.prepared.true_samples(indices, sampling.size)
            else:
                pictures = sample(pipe, prompts, sampling, base, upsamplers, indices)
            seconds = torch.full((len(pictures),), (time.perf_counter() - began) / len(pictures))
            return {"pictures": pictures.mul(255).round().byte(), "seconds": seconds}

        def finish(parts: Parts) -> dict[str, float]:
            headlines = self._evaluate(step, name, counts, parts, made, upsamplers is not None)
            shutil.rmtree(folder)
            return headlines

        title, paths = f"{self.name} seed {self.seed} {name}", [self._path(name, step, count) for count in counts]
        with contextlib.ExitStack() as held:
            processes.main_alone(lambda: held.enter_context(lock_of(folder)))
            processes.main_alone(lambda: note_results(folder, paths))
            parts = in_parts(make, list(prompts.groups()), folder, title, digest, processes)
            return processes.of_main(lambda: finish(parts))

    def _evaluate(
        self, step: int, name: str, counts: list[int], parts: Parts, made: dict[str, Any], tuned: bool
    ) -> dict[str, float]:
        """Writes the results of samples, reading one part of them at a time; returns their headline figures."""
        headlines, prepared = dict[str, float](), self.prepared
        if self.seed == self.experiment.seeds[0] and step == max(self.experiment.at_steps):
            shown = self._path(name, step, 0).with_name(f"{name}-step{step:06d}.webp")
            write_sheet(shown, torch.cat(list(parts.pictures(PICTURES))), prepared.prompts, self.experiment.fps)
        seconds = float(torch.cat(list(parts.each("seconds"))).mean())
        tflops = planned_tflops(prepared.pipe, prepared.samplings[name], tuned, self.experiment.frames)
        for count in counts:
            figures, record = measured(self.experiment, prepared, name, parts, count)
            if record is not None:  # before the result, which says that all is there
                write_record(record_of(self._path(name, step, count)), record)
            self._write(step, name, count, seconds, {"tflops_per_sample": tflops, "made_by": made, **figures})
            headlines |= {f"{name}_{key}": figures[key][0] for key in HEADLINES if key in figures}
        return headlines

    def _config(self, size: Size) -> TrainingConfig:
        steps = self.at_steps
        data = self.experiment.train_data or self.experiment.data
        given = {**self.experiment.shared_training, **(self.experiment.training or {})}
        given = {"resolution": tuple(size), "train_data": data, **given}
        # Trainings of other models, data or settings stay apart: `rewind` removes checkpoints.
        digest = hashlib.sha256(json.dumps([self.experiment.model, given], sort_keys=True).encode()).hexdigest()
        folder = self.runs / self.suite.name / self.name / f"seed-{self.seed}-{digest[:12]}"
        interval = math.gcd(*self.experiment.at_steps)
        own = {"model": self.experiment.model, "seed": self.seed, "output_dir": str(folder)}
        own |= {"max_train_steps": max(steps), "resume_from_checkpoint": "latest"}
        own |= {"cache_latents": str(self.runs / "latents"), **self._length()}
        config = TrainingConfig(**{**given, **own, "validation_steps": interval, "checkpointing_steps": interval})
        check_extras(config)
        return config

    def _write(self, step: int, name: str, count: int, seconds: float, figures: dict[str, Any]) -> None:
        trained = step - self.resumed_at
        method = METHODS.get(self.prepared.samplings[name].method)
        base = self.prepared.base_samples[name].seconds if method is not None and method.from_base else 0.0
        result = {
            "experiment": self.name,
            "sampling": {"name": name, **self.prepared.samplings[name].as_record()},
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
        """Number of frames and frame rate of clips; empty for pictures."""
        frames = self.experiment.frames
        return {} if frames is None else {"frames": frames, "fps": self.experiment.fps}

    def _is_there(self, sampling: str, step: int, count: int) -> bool:
        path = self._path(sampling, step, count)
        if not path.exists():
            return False
        check_result(path, self.experiment.sampling(sampling), settings_of(self.experiment))
        return self.experiment.split is None or record_of(path).is_file()

    def _path(self, sampling: str, step: int, count: int) -> Path:
        folder = self.results / self.name / f"seed-{self.seed}"
        return folder / f"{sampling}-step{step:06d}-n{count}.json"
