"""Starts a training run: prepares its folder, resumes, and checks that all processes agree."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.data import Fingerprint, Position
from selfcascade.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    refuse_earlier_run,
    remove_unfinished,
    set_aside_after,
)
from selfcascade.training.lanes import Lanes
from selfcascade.training.tensor_cache import content_of

if TYPE_CHECKING:
    from selfcascade.training.loop import Trainer


def start(trainer: Trainer) -> list[Position]:
    """Prepares the folder and the data, resumes if wanted, and checks that all processes agree.

    Only the main process reads the checkpoint and sends it to the others, so they need no shared disk.

    Returns:
        Position of each lane of the run in the data.

    Raises:
        TogetherError, ValueError: A process cannot start, or the processes disagree.
    """
    processes, config, source = trainer.processes, trainer.config, trainer.stream.source
    processes.main_alone(lambda: _open(trainer))
    processes.together(lambda: source.prepare(processes.process_index, processes.num_processes))
    trainer.data = asdict(processes.together(source.fingerprint))
    positions: list[Any] | None = None
    if config.resume_from_checkpoint is not None:
        positions = _resume(trainer, config.resume_from_checkpoint)
    if positions is None:
        positions = [Position().as_json()] * trainer.lanes.count
    facts = {"the step": trainer.step, "the places in the data": positions, "the data": trainer.data}
    if not trainer.sharded:
        facts["the trained weights"] = content_of(list(trainer.trained.values()))[:12]
    processes.check_agreement({name: _short(value) for name, value in facts.items()})
    return [Position.from_json(place) for place in positions]


def _open(trainer: Trainer) -> None:
    config, folder = trainer.config, trainer.config.folder
    remove_unfinished(folder)
    if config.resume_from_checkpoint is None:
        refuse_earlier_run(folder)
    trained = sum(weight.numel() * weight.element_size() for weight in trainer.trained.values())
    needed, free = trained * (3 + config.use_ema), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"output_dir {config.output_dir!r} has {free / 2**30:.2f} GiB free, and a checkpoint takes "
            f"{needed / 2**30:.2f}; free some, or give another"
        )


def _resume(trainer: Trainer, wanted: str) -> list[Any] | None:
    """Restores the wanted checkpoint; returns the lanes' positions in the data, or None if there is none yet."""
    processes, config = trainer.processes, trainer.config

    def read() -> tuple[str, Checkpoint] | None:
        place: Path | None = find_checkpoint(config.folder, wanted) if processes.is_main_process else None
        if place is not None and place.resolve().parent != config.folder.resolve():
            refuse_earlier_run(config.folder)  # whose checkpoints would be set aside, and its weights replaced
        return None if place is None else (place.name, load_checkpoint(place))

    own = processes.together(read)
    found = processes.from_main(None if own is None else (own[0], own[1].step, own[1].state))
    if found is None:
        trainer.announce(f"no checkpoint is in {str(config.folder)!r} yet; training starts at step 0")
        processes.main_alone(lambda: trainer.curve.keep_up_to(0))
        return None
    name, step, state = found
    flat: dict[Any, Any] | None = (
        None if own is None else {(part, key): v for part, t in own[1].tensors.items() for key, v in t.items()}
    )
    tensors: dict[str, dict[str, Any]] = {}
    for (part, key), value in processes.tensors_from_main(flat).items():
        tensors.setdefault(part, {})[key] = value
    checkpoint = Checkpoint(step, tensors, state)
    positions = processes.together(lambda: _restore(trainer, checkpoint, name))
    trainer.step = step

    def tidy() -> None:
        set_aside_after(config.folder, step)
        trainer.curve.keep_up_to(step)

    processes.main_alone(tidy)
    return positions


def _restore(trainer: Trainer, checkpoint: Checkpoint, name: str) -> list[Any]:
    processes, config = trainer.processes, trainer.config
    if checkpoint.step > config.max_train_steps:
        raise ValueError(
            f"max_train_steps is {config.max_train_steps}, and {name} has more; give at least {checkpoint.step}, or an "
            f"earlier checkpoint as resume_from_checkpoint"
        )
    positions = trainer.state.restore(checkpoint, name)
    trainer.curve.window = checkpoint.state.get("window", [0, 0.0])
    earlier = checkpoint.state.get("data")
    change = None if earlier is None else Fingerprint(**trainer.data).change_from(earlier)
    if change is not None and not config.allow_changed_data:
        raise CheckpointError(
            f"train_data {config.train_data!r} has changed since {name}: {change}; "
            f"allow_changed_data continues all the same"
        )
    if change is not None:
        trainer.announce(f"train_data {config.train_data!r} has changed since {name}: {change}")
    try:
        place = processes.process_index, processes.num_processes
        trainer.lanes = Lanes.shared(len(positions), *place, config.train_batch_size)
    except ValueError as error:
        raise CheckpointError(f"{name} cannot be resumed: {error}") from error
    if len(positions) != processes.num_processes:
        trainer.announce(f"begun by {len(positions)} processes, the run continues with {processes.num_processes}")
    return positions


def _short(value: Any) -> str:
    """The value itself, or a digest of a long one, which serves for comparison as well."""
    text = json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= 80 else hashlib.sha256(text.encode()).hexdigest()[:12]
