"""A run's state between steps: weights, optimizer and averages for checkpoints, its curve, and requests to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from selfcascade.media.whole_files import write_whole
from selfcascade.options.optional import install
from selfcascade.training.checkpoints import Checkpoint, CheckpointError
from selfcascade.training.config import TrainingConfig
from selfcascade.training.sharded import copy_into, gathered, shared_like


def make_optimizer(config: TrainingConfig, trained: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, or its 8-bit form, for weights by name; low-rank ones of the decoder have their own learning rate.

    Raises:
        ValueError: The 8-bit form is wanted, but bitsandbytes is not installed.
    """
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    in_decoder = [parameter for name, parameter in trained.items() if name.startswith("low_rank.")]
    groups: list[dict[str, Any]] = [{"params": list(trained.values())[: len(trained) - len(in_decoder)]}]
    if in_decoder:  # they come last, so the weights keep their order in checkpoints
        groups.append({"params": in_decoder, "lr": config.decoder_learning_rate or config.learning_rate})
    if not config.use_8bit_adam:
        return torch.optim.AdamW(groups, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]
    except ImportError as error:
        raise ValueError(f"use_8bit_adam needs bitsandbytes: {install('bitsandbytes')}") from error
    return AdamW8bit(groups, **settings)


class TrainingState:
    """The content of a checkpoint, apart from the step and the positions in the data.

    Args:
        config: Settings of the run; a checkpoint with other settings is refused.
        trained: The trained weights by name.
        optimizer, rates: Optimizer and learning-rate schedule of these weights.
        base: The base model's fingerprint; a checkpoint of another model is refused.
        scaler: Gradient scaler of half precision, or None.
    """

    def __init__(
        self,
        config: TrainingConfig,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        rates: Any,
        base: list[float] | None,
        scaler: Any,
    ) -> None:
        self.config, self.trained, self.base = config, trained, base
        self.optimizer, self.rates, self.scaler = optimizer, rates, scaler
        settings = {"decay": config.ema_decay, "use_ema_warmup": True, "inv_gamma": 10, "power": 0.75}
        self.average = EMAModel(trained.values(), **settings) if config.use_ema else None

    def checkpoint(
        self,
        step: int,
        positions: list[Any],
        data: dict[str, Any],
        keep: bool = True,
        described: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """The checkpoint at a step.

        Args:
            step: Number of optimizer steps done.
            positions: The lanes' positions in the data.
            data: The data's fingerprint.
            keep: Whether this process needs the tensors; with sharded ones all processes must call this.
            described: More facts, by name.
        """
        moments = {
            f"{index}/{key}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        # 8-bit Adam stores its step counts as plain numbers.
        numbers = {key: value for key, value in moments.items() if not isinstance(value, Tensor)}
        moments = {key: value for key, value in moments.items() if isinstance(value, Tensor)}
        tensors = {"weights": gathered(self.trained, keep), "optimizer": gathered(moments, keep)}
        if self.average is not None:
            tensors["ema"] = gathered(dict(zip(self.trained, self.average.shadow_params, strict=True)), keep)
        state = {
            **(described or {}),
            "config": self.config.model_dump(mode="json"),
            "base": self.base,
            "positions": positions,
            "data": data,
            "optimizer_numbers": numbers,
            "rates": {key: value for key, value in self.rates.state_dict().items() if key != "lr_lambdas"},
            "ema_step": None if self.average is None else self.average.optimization_step,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        return Checkpoint(step, tensors, state)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint, name: str) -> list[Any]:
        """Restores everything from a checkpoint, and returns the lanes' positions in the data.

        Raises:
            CheckpointError: The checkpoint belongs to another base model or method.
            ValueError: The checkpoint was made with other settings.
        """
        state, tensors = checkpoint.state, checkpoint.tensors
        try:
            self.config.check_continues(state["config"])
            positions, base = state["positions"], state["base"]
            rates, ema_step, scaler = state["rates"], state["ema_step"], state["scaler"]
        except KeyError as error:
            raise CheckpointError(f"{name}/state.json lacks {error}") from error
        if base != self.base:
            raise CheckpointError(f"{name} was made with another base model's weights than {self.config.model!r}")
        wanted = ["weights", "optimizer", *(["ema"] if self.average is not None else [])]
        shapes = {key: value.shape for key, value in self.trained.items()}
        for part in wanted:
            found = {key: value.shape for key, value in tensors.get(part, {}).items()}
            if part not in tensors or (part != "optimizer" and found != shapes):
                raise CheckpointError(f"{name} holds other {part} than method {self.config.method!r} trains")
        copy_into((parameter, tensors["weights"][key]) for key, parameter in self.trained.items())
        parameters = list(self.trained.values())
        moments: dict[int, dict[str, Any]] = {}
        for key, value in (*tensors["optimizer"].items(), *state.get("optimizer_numbers", {}).items()):
            index, _, field = key.partition("/")
            own = shared_like(value, parameters[int(index)]) if isinstance(value, Tensor) else value
            moments.setdefault(int(index), {})[field] = own
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        # The schedule's functions cannot be saved; they have been made again from the settings.
        self.rates.load_state_dict({**rates, "lr_lambdas": [None] * len(self.optimizer.param_groups)})
        for group, rate in zip(self.optimizer.param_groups, rates["_last_lr"], strict=True):
            group["lr"] = rate
        if self.average is not None:
            copy_into(zip(self.average.shadow_params, (tensors["ema"][key] for key in self.trained), strict=True))
            self.average.optimization_step = ema_step
        if self.scaler is not None and scaler is not None:
            self.scaler.load_state_dict(scaler)
        return positions

    def average_step(self) -> None:
        """Updates the moving average of the weights, if there is one."""
        if self.average is not None:
            self.average.step(self.trained.values())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Replaces the trained weights by their averages within this context, if there are any."""
        if self.average is None:
            yield
            return
        self.average.store(self.trained.values())
        self.average.copy_to(self.trained.values())
        try:
            yield
        finally:
            self.average.restore(self.trained.values())


class Curve:
    """A run's figures, one JSON object per line.

    Attributes:
        path: The file.
        window: Number of steps since the last mean loss, and the sum of their losses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.window: list[float] = [0, 0.0]
        self._unwritten = ""

    def take(self, loss: float) -> None:
        """Takes a step's loss into the window."""
        count, total = self.window
        self.window = [count + 1, total + loss]

    def mean(self) -> float:
        """The window's mean loss; the next window begins."""
        count, total = self.window
        self.window = [0, 0.0]
        return total / count

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Appends a row; if it cannot be written, it is kept until it can."""
        row = {"step": step, **{name: float(f"{value:.6g}") for name, value in figures.items()}}
        self._unwritten += json.dumps(row) + "\n"
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Writes the rows that are not on disk yet."""
        if not self._unwritten:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            before = file.tell()
            try:
                file.write(self._unwritten)
                file.flush()
            except OSError:
                with suppress(OSError):
                    file.close()
                os.truncate(self.path, before)
                raise
        self._unwritten = ""

    def rows(self) -> list[dict[str, float]]:
        """All rows, without a last one that was cut off by a kill.

        Raises:
            ValueError: Another row is damaged.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith("\n")]
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"the log {str(self.path)!r} has a damaged line: {error}; delete it or the line"
            ) from error

    def keep_up_to(self, step: int) -> None:
        """Drops the rows of steps that a resumed run makes again."""
        rows = [json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step]
        if self.path.exists():
            write_whole(self.path, lambda aside: aside.write_text("".join(rows)))


class StopRequest:
    """Records Ctrl-C and SIGTERM within this context, instead of stopping at once.

    Attributes:
        asked_by: Name of the signal; empty before one arrives.
    """

    def __init__(self) -> None:
        self.asked_by = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked_by = signal.Signals(number).name
