"""The recipe's training loop, on accelerate, which trains all bundled networks.

A run is a folder with atomic checkpoints (`selfcascade.training.checkpoints`), a curve, and snapshots of the weights'
averages. Random numbers come from a generator for each step and process, so a resumed run ends with the same weights as
an uninterrupted one. The learning rate warms up, is constant, and decays linearly at the end, so a run can be extended.
Several processes (`torchrun --nproc-per-node N`, GPUs or cores) share each batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from averages import TRACKED, PowerAverage
from optimizers import restore_state, state_tensors
from selfcascade.base_models.precision import has_bfloat16
from selfcascade.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
    set_aside_after,
)
from selfcascade.training.state import Curve, StopRequest

SEEDS_PER_STEP = 64  # largest number of processes that draw independently


@dataclass(frozen=True)
class Schedule:
    """The lengths and intervals of a run.

    Attributes:
        steps: Optimizer steps of the whole run.
        decay: Steps at the end during which the learning rates fall.
        warmup: Steps at the beginning during which they rise.
        floor: Share of the learning rates that is left at the end.
        batch_size: Samples of a step, over all processes.
        seed: Seed of the whole run.
        log_every, checkpoint_every, snapshot_every: Steps between these; no snapshots of averages if 0.
        keep: Number of checkpoints to keep.
    """

    steps: int
    decay: int
    batch_size: int
    warmup: int = 50
    floor: float = 0.01
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 250
    snapshot_every: int = 0
    keep: int = 2

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Schedule:
        """The schedule in an entry of config.json, which has the network's own settings too."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__ if name in settings})

    def rate(self, step: int) -> float:
        """Factor of the learning rates after this many steps."""
        left = (self.steps - step) / self.decay
        return min((step + 1) / self.warmup, max(min(1.0, left), self.floor))


@dataclass(frozen=True)
class Draw:
    """What a process needs to draw its share of a step's batch.

    Attributes:
        step: Number of steps done before.
        count: Number of samples for this process.
        first: Number of its first sample, counted over the whole run.
        generator: CPU generator of this step and process.
    """

    step: int
    count: int
    first: int
    generator: torch.Generator


LossOf = Callable[[nn.Module, Draw], Mapping[str, Tensor]]
Validate = Callable[[int, nn.Module], Mapping[str, float]]


class Training:
    """One training run.

    Args:
        folder: Folder of the run.
        module: The module to train. Its `forward` must compute the whole pass, so that processes average all gradients.
            It is moved to the device before its optimizers are made.
        optimizers: Makes the optimizers of the module.
        schedule: Lengths and intervals of the run.
        loss_of: Computes losses by name from the (wrapped) module and a draw; "loss" is minimised.
        validate: Called by the main process after each checkpoint with the step and the module with averaged weights;
            its figures are added to the curve.
        mixed_precision: "bf16" or "no"; None: "bf16" where the device computes in it.
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        optimizers: Callable[[nn.Module], Sequence[torch.optim.Optimizer]],
        schedule: Schedule,
        loss_of: LossOf,
        validate: Validate | None = None,
        mixed_precision: str | None = None,
    ) -> None:
        # A loss may not use every part of a module in every step.
        kwargs = DistributedDataParallelKwargs(find_unused_parameters=True)
        # Stated explicitly, since otherwise several processes on CPUs do not form a group.
        only_cpu = not torch.cuda.is_available()
        precision = mixed_precision or ("bf16" if has_bfloat16("cpu" if only_cpu else "cuda") else "no")
        self.accelerator = Accelerator(cpu=only_cpu, mixed_precision=precision, kwargs_handlers=[kwargs])
        world = self.accelerator.num_processes
        if schedule.batch_size % world or world > SEEDS_PER_STEP:
            raise ValueError(f"batch_size {schedule.batch_size} cannot be shared by {world} processes")
        self.folder, self.schedule, self.loss_of, self.validate = folder, schedule, loss_of, validate
        self.module = module.to(self.accelerator.device)
        self.optimizers = optimizers(self.module)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["highest"] = group["lr"]
        self.wrapped = self.accelerator.prepare(self.module)
        widths = TRACKED if schedule.snapshot_every else ()
        self.averages = [PowerAverage(self._weights(), width) for width in widths]
        self.curve, self.step = Curve(folder / "curve.jsonl"), 0

    def run(self) -> bool:
        """Trains, or resumes from the newest checkpoint.

        Returns:
            Whether the run is finished; False after Ctrl-C or SIGTERM, which end it with a checkpoint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            remove_unfinished(self.folder)
        self.accelerator.wait_for_everyone()
        self._resume()
        began, sums, first = time.perf_counter(), {}, self.step
        with StopRequest() as stop:
            while self.step < self.schedule.steps:
                for name, value in self._one_step().items():
                    sums[name] = sums.get(name, 0.0) + value
                if self.step % self.schedule.log_every == 0:
                    count = self.step - first
                    speed = count * self.schedule.batch_size / (time.perf_counter() - began)
                    self._log(**{name: value / count for name, value in sums.items()}, samples_per_second=speed)
                    began, sums, first = time.perf_counter(), {}, self.step
                stopped = self._is_stopped(stop)
                if stopped or self.step % self.schedule.checkpoint_every == 0 or self.step == self.schedule.steps:
                    self._save()
                    began, sums, first = time.perf_counter(), {}, self.step
                if stopped:
                    return False
        return True

    def averaged(self) -> dict[str, Tensor]:
        """The weights of the shorter average, or the last weights if there are no averages."""
        return self.averages[0].tensors if self.averages else self._weights()

    def _one_step(self) -> dict[str, float]:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        seed = (self.schedule.seed * 1_000_003 + self.step) * SEEDS_PER_STEP + rank
        count = self.schedule.batch_size // world
        first = self.step * self.schedule.batch_size + rank * count
        draw = Draw(self.step, count, first, torch.Generator().manual_seed(seed))
        factor = self.schedule.rate(self.step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * factor
        self.wrapped.train()
        with self.accelerator.autocast():
            losses = self.loss_of(self.wrapped, draw)
        self.accelerator.backward(losses["loss"])
        self.accelerator.clip_grad_norm_(self.module.parameters(), 1.0)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not all(value - value == 0 for value in values.values()):
            raise FloatingPointError(f"step {self.step + 1} of {self.folder.name} has the losses {values}")
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        weights = self._weights()
        for average in self.averages:
            average.update(weights, self.step)
            if self.step % self.schedule.snapshot_every == 0 and self.accelerator.is_main_process:
                average.save_snapshot(self.folder / "averages", self.step)
        return values

    def _made_by(self) -> dict[str, int | str]:
        return {"processes": self.accelerator.num_processes, "mixed precision": self.accelerator.mixed_precision}

    def _weights(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            tensors: dict[str, Mapping[str, Tensor]] = {
                "weights": self._weights(),
                "optimizer": state_tensors(self.optimizers),
                **{f"average-{average.width:g}": average.tensors for average in self.averages},
            }
            state = {**self._made_by(), "schedule": vars(self.schedule)}
            save_checkpoint(self.folder, Checkpoint(self.step, tensors, state), self.schedule.keep)
            if self.validate is not None:
                self._validate(self.validate)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _validate(self, validate: Validate) -> None:
        weights, averaged = self._weights(), self.averaged()
        before = {name: value.detach().clone() for name, value in weights.items()}
        for name, value in weights.items():
            value.copy_(averaged[name])
        self.module.eval()
        figures = validate(self.step, self.module)
        for name, value in weights.items():
            value.copy_(before[name])
        if figures:
            self._log(**{f"validation_{name}": value for name, value in figures.items()})

    @torch.no_grad()
    def _resume(self) -> None:
        place = find_checkpoint(self.folder, "latest")
        if place is not None:
            checkpoint = load_checkpoint(place)
            weights, found = self._weights(), checkpoint.tensors["weights"]
            if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in found.items()}:
                raise CheckpointError(f"{place} holds the weights of another network than config.json describes")
            for name, value in weights.items():
                value.copy_(found[name])
            restore_state(self.optimizers, dict(checkpoint.tensors["optimizer"]))
            for average in self.averages:
                for name, value in checkpoint.tensors[f"average-{average.width:g}"].items():
                    average.tensors[name].copy_(value)
            self.step = checkpoint.step
            for name, own in self._made_by().items():
                if checkpoint.state.get(name, own) != own:
                    words = f"{place.name} was made with {checkpoint.state[name]} {name}, not {own}"
                    self.accelerator.print(f"{words}: this run will differ from one that was never cut")
            self.accelerator.print(f"resumed {place} at step {self.step}", flush=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            set_aside_after(self.folder, self.step)
            self.curve.keep_up_to(self.step)

    def _log(self, **figures: float) -> None:
        if self.accelerator.is_main_process:
            self.curve.add(self.step, figures)
            print(f"step {self.step}  " + "  ".join(f"{key} {value:.5g}" for key, value in figures.items()), flush=True)

    def _is_stopped(self, stop: StopRequest) -> bool:
        if self.accelerator.num_processes == 1:
            return bool(stop.asked_by)
        asked = torch.tensor(float(bool(stop.asked_by)), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)  # type: ignore[operator]
