"""The training loop (paper, Algorithm 1), on accelerate: one process or many, one file to read."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm.auto import tqdm

from selfcascade.base_models.stage_scheduler import training_steps
from selfcascade.cascade import Size
from selfcascade.data import Batch, Stream
from selfcascade.media.whole_files import write_whole
from selfcascade.processes import OutputLock, join
from selfcascade.training.agreement import facts_of_the_model, is_sharded, refuse_other_engines
from selfcascade.training.checkpoints import save_checkpoint, written
from selfcascade.training.conditions import encode_captions, unet_arguments
from selfcascade.training.config import TrainingConfig
from selfcascade.training.lanes import Lanes
from selfcascade.training.model_card import write_model_card
from selfcascade.training.objective import draw, objective_of
from selfcascade.training.pass_attention import PassAttention
from selfcascade.training.samples import check_model, encode_with_pivot
from selfcascade.training.sharded import gathered, whole
from selfcascade.training.speed_trial import with_speed
from selfcascade.training.start import start
from selfcascade.training.state import Curve, StopRequest, TrainingState, make_optimizer
from selfcascade.training.tensor_cache import FeatureCache, TensorCache, content_of
from selfcascade.training.trainables import TrainedUpsamplers, cast_frozen, make_trainable
from selfcascade.upsamplers.base_unet import fingerprint

MAX_SKIPPED = 50
HELD_OUT = 2**31  # training's sample numbers are lower; 2**32 would be 0 to generators, which use 32 bits of a seed

Validate = Callable[[int, Any, Any], dict[str, float]]


class Trainer:
    """One training run: everything that its steps need, and its current step.

    Args:
        pipe: The base model's pipeline; its U-Net is frozen, or trained in place for "lora" and "full".
        config: Settings of the run.
        stream: The data; each process has its own stream over the same source.
        validate: Called by the main process every `validation_steps` with (step, pipe, upsamplers or None); its figures
            are logged. Also called after resuming, in case the validation of that step was interrupted.
        held_out: Held-out pictures or clips; the loss of the first ones, always with the same noise and timesteps, is
            logged with the validation.
        announce: Called with important messages.

    Raises:
        ValueError: The model cannot be trained in this way, or an argument is out of range.
    """

    def __init__(
        self,
        pipe: Any,
        config: TrainingConfig,
        stream: Stream,
        validate: Validate | None = None,
        held_out: Stream | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        refuse_other_engines()
        self.processes = processes = join()
        self.announce = announce if announce and processes.is_main_process else lambda _: None
        check_model(pipe, config)
        config = with_speed(config, pipe, processes, self.announce)
        self.pipe, self.config, self.stream, self.validate, self.held_out = pipe, config, stream, validate, held_out
        self.lanes = Lanes.shared(
            processes.num_processes, processes.process_index, processes.num_processes, config.train_batch_size
        )
        self.accelerator = Accelerator(
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            mixed_precision=config.mixed_precision,
            log_with=config.report_to,
            project_dir=str(config.folder),
        )
        self.sharded = is_sharded(self.accelerator, config)
        torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
        pipe.to(self.accelerator.device)
        self.training_steps = training_steps(pipe.scheduler)
        base = fingerprint(pipe.unet)
        self.pivot_step = config.steps_of(self.training_steps)
        self.objective = objective_of(pipe.scheduler, config.snr_gamma)
        frozen = [pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
        frozen = [part.requires_grad_(False) for part in frozen if part is not None]
        self.attention = PassAttention(pipe, config)
        self.trainable = make_trainable(pipe.unet, config, self.pivot_step)
        for part in (*frozen, pipe.unet):
            cast_frozen(part, config.frozen_dtype)
        trained = self.trainable.trained()
        processes.check_agreement(facts_of_the_model(config, base, trained, processes.num_processes))
        self.optimizer = make_optimizer(config, trained)
        self.rates = get_scheduler(
            config.lr_scheduler,
            self.optimizer,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=config.max_train_steps,
        )
        self.wrapped, self.prepared = self.accelerator.prepare(self.trainable, self.optimizer)
        self.trained = self.trainable.trained()  # FSDP replaces the parameters
        self.state = TrainingState(config, self.trained, self.optimizer, self.rates, base, self.accelerator.scaler)
        self.curve, self.stop = Curve(config.folder / "curve.jsonl"), StopRequest()
        self.step, self.skipped, self.positions = 0, 0, dict[int, Any]()
        self.data: dict[str, Any] = {}
        self.cache: TensorCache | None = None
        if config.cache_latents is not None:
            self.cache = TensorCache(Path(config.cache_latents), pipe.vae, config.scale)
            if config.cache_pivot_features and isinstance(self.trainable, TrainedUpsamplers):
                self.trainable.cache = FeatureCache(Path(config.cache_latents), pipe.unet, *self.attention.settings)

    def run(self) -> Path:
        """Trains to `max_train_steps`. Ctrl-C and SIGTERM end the run after the current step, with a checkpoint.

        Returns:
            The output folder, with the trained weights if the run is finished.

        Raises:
            CheckpointError: The checkpoint to resume from is damaged or belongs to another run, or a fresh start would
                mix with an earlier run in the folder.
            DataError: The data cannot be used.
            LockedError: Another process writes into the folder.
            TogetherError: Processes disagree, or one of them failed.
            FloatingPointError: The loss or a gradient is not finite; in half precision, for 50 consecutive steps.
        """
        with contextlib.ExitStack() as held:
            self.processes.main_alone(lambda: held.enter_context(OutputLock(self.config.folder)))
            self._train()
        return self.config.folder

    def _train(self) -> None:
        config = self.config
        starts = start(self)
        self.positions = {lane: starts[lane].as_json() for lane in self.lanes.own}
        self.accelerator.gradient_accumulation_steps = config.gradient_accumulation_steps * len(self.lanes.own)
        if config.report_to is not None:
            self.accelerator.init_trackers("selfcascade", config=config.flat())
        batches = self.lanes.batches(self.stream, config.train_batch_size, starts)
        began = time.perf_counter()
        if self.step and self.step % config.validation_steps == 0:
            self._validate()
        bar = tqdm(
            total=config.max_train_steps,
            initial=self.step,
            desc="training",
            disable=not self.accelerator.is_main_process,
        )
        with bar, self.stop, contextlib.closing(batches):  # type: ignore[type-var]
            while self.step < config.max_train_steps:
                loss = self._optimizer_step(batches)
                self.curve.take(loss)
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                last = self.step == config.max_train_steps
                if self.step % config.logging_steps == 0 or last:
                    seconds = time.perf_counter() - began
                    self._log(loss=self.curve.mean(), rate=float(self.rates.get_last_lr()[0]), seconds=seconds)
                stopped = self._is_stopped()
                if self.step % config.checkpointing_steps == 0 or last or stopped:
                    self._save()
                if (self.step % config.validation_steps == 0 or last) and not stopped:
                    self._validate()
                if stopped:
                    break
        if self.step == config.max_train_steps:
            self._save_weights()
        for tracker in self.accelerator.trackers:  # the processes stay together: an evaluation may follow
            tracker.finish()

    def _optimizer_step(self, batches: Iterator[tuple[Batch, int]]) -> float:
        """Runs one step on `gradient_accumulation_steps` batches of each lane; returns this process's mean loss."""
        config, total = self.config, 0.0
        for micro in range(self.accelerator.gradient_accumulation_steps):
            batch, rows = next(batches)
            with self.accelerator.accumulate(self.wrapped), self.attention.at(batch.pixels, self.step, self.trainable):
                loss = self._loss(batch, micro, rows)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), config.max_grad_norm)
                    # Infinite gradients are normal in half precision: the scaler skips the step and lowers its scale.
                    if config.mixed_precision != "fp16" and norm is not None and not torch.isfinite(whole(norm)):
                        raise FloatingPointError(
                            f"the gradient is not finite at step {self.step + 1}; lower learning_rate"
                        )
                self.prepared.step()
                if self.accelerator.sync_gradients:
                    self.skipped = self.skipped + 1 if self.prepared.step_was_skipped else 0
                self.prepared.zero_grad()
            self.positions[self.lanes.own[micro % len(self.lanes.own)]] = batch.position.as_json()
            total += loss.item() / self.accelerator.gradient_accumulation_steps
        if not math.isfinite(total) or self.skipped >= MAX_SKIPPED:
            what = "loss is" if self.skipped < MAX_SKIPPED else f"gradients of {MAX_SKIPPED} steps in a row are"
            raise FloatingPointError(f"the {what} not finite at step {self.step + 1}; lower learning_rate")
        self.rates.step()
        self.state.average_step()
        self.step += 1
        return total

    def _loss(self, batch: Batch, micro: int, rows: int | None = None) -> Tensor:
        """The mean loss of a batch, or of this process's part of a batch with this many rows.

        `micro` is the index of the batch in the step.
        """
        turn, lane = divmod(micro, len(self.lanes.own))
        before = self.step * self.config.gradient_accumulation_steps + turn
        samples = self.lanes.samples(before, lane, rows or len(batch.keys))
        return self._losses(self.wrapped, batch, samples, self.config.prompt_dropout).mean()

    def _losses(self, trainable: Any, batch: Batch, samples: Sequence[int], dropout: float) -> Tensor:
        """Algorithm 1 on one batch: z^r = E(x), pivot z^(r-1) = E(downsample(x)), t ~ U{1..K}; (B,)."""
        pipe, config, device = self.pipe, self.config, self.accelerator.device
        pixels = batch.pixels.to(device)
        encode = functools.partial(encode_with_pivot, pipe, pixels, config.scale)
        places = [] if self.cache is None else [content_of([row]) for row in batch.pixels]
        latents = encode() if self.cache is None else self.cache.get_or_make(places, encode)
        z_0, pivot = latents["z_0"].to(device), latents["pivot"].to(device)
        noise, timestep, uniform = draw(samples, config.seed, z_0.shape[1:], self.pivot_step, self.training_steps)
        noise, timestep = noise.to(z_0), timestep.to(device)
        captions = ["" if u < dropout else words for u, words in zip(uniform.tolist(), batch.captions, strict=True)]
        embeds = encode_captions(pipe, captions)
        size, frames = Size(*pixels.shape[-2:]), config.frames or 1
        conditions = unet_arguments(pipe, embeds, batch.original_sizes, batch.crops, size, frames)
        z_t = self.objective.noisy(z_0, noise, timestep)
        dtype = pipe.unet.dtype
        with self.accelerator.autocast():
            prediction = trainable(z_t.to(dtype), timestep, conditions, pivot.to(dtype))
        return self.objective.loss(prediction, z_0, noise, timestep)

    def _save(self) -> None:
        places = self.lanes.positions(self.processes.gathered(self.positions))
        keep = self.processes.is_main_process
        described = {**self.trainable.described(), "window": self.curve.window}
        checkpoint = self.state.checkpoint(self.step, places, self.data, keep, described)

        def write() -> None:
            folder = self.config.folder
            if not folder.exists():
                self.announce(f"output_dir {str(folder)!r} was removed; it is made again with what is known of the run")
            with written(folder, self.step):
                save_checkpoint(folder, checkpoint, self.config.checkpoints_total_limit)
                self.curve.write()

        self.processes.main_alone(write)

    def _save_weights(self) -> None:
        with self.state.averaged():
            weights = gathered(self.trained, self.processes.is_main_process) if self.sharded else None

            def write() -> None:
                with written(self.config.folder, self.step):
                    self.trainable.save(self.config.folder, self.pipe, weights)
                    settings = self.config.model_dump_json(indent=1) + "\n"
                    write_whole(self.config.folder / "training.json", lambda aside: aside.write_text(settings))
                    count = sum(weight.numel() for weight in self.trained.values())
                    unet = type(self.pipe.unet).__name__
                    write_model_card(self.config, self.step, count, unet, self.stream.report, self.curve.rows())

            self.processes.main_alone(write)

    def _validate(self) -> None:
        """Validates in the main process, for which the others wait unless they are needed for each pass."""
        if self.processes.is_main_process or self.sharded:
            upsamplers, figures = getattr(self.trainable, "upsamplers", None), {}
            with self.state.averaged(), torch.no_grad():
                if self.held_out is not None:
                    figures["loss"] = self._held_out_loss(self.held_out)
                if self.validate is not None and not self.sharded:
                    figures |= self.validate(self.step, self.pipe, upsamplers)
            if figures:
                self._log(**{f"validation_{name}": value for name, value in figures.items()})
        self.processes.wait_for_everyone()

    def _held_out_loss(self, held_out: Stream) -> float:
        numbers = range(HELD_OUT, HELD_OUT + self.config.num_validation_pictures)
        model, losses = self.wrapped if self.sharded else self.trainable, list[float]()
        for number, batch in zip(numbers, held_out.batches(1), strict=False):
            with self.attention.at(batch.pixels, number, self.trainable):
                losses.append(float(self._losses(model, batch, [number], 0)))
        return sum(losses) / len(losses)

    def _log(self, **figures: float) -> None:
        if self.processes.is_main_process:
            self.curve.add(self.step, figures)
        self.accelerator.log(figures, step=self.step)

    def _is_stopped(self) -> bool:
        if self.accelerator.num_processes == 1:
            return bool(self.stop.asked_by)
        asked = torch.tensor(float(bool(self.stop.asked_by)), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)  # type: ignore[operator]
