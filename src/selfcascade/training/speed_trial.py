"""`speed="auto"`: precision and memory format of a run, chosen by timing a pass with each before it begins."""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from selfcascade.base_models.precision import has_bfloat16
from selfcascade.cascade import Size
from selfcascade.media.whole_files import write_whole
from selfcascade.processes import Processes
from selfcascade.training.checkpoints import find_checkpoint, load_checkpoint
from selfcascade.training.conditions import encode_captions, unet_arguments
from selfcascade.training.config import TrainingConfig
from selfcascade.training.pass_attention import PassAttention
from selfcascade.training.samples import encode_with_pivot
from selfcascade.training.trainables import cast_frozen, make_trainable

CHOSEN = ("mixed_precision", "channels_last")
REPEATS, ENOUGH = 3, 10.0  # passes of a combination after the first, and seconds after which no other is begun
GAIN = 0.95  # a later combination, which changes more, has to take at most this share of the time
RECORD = "speed_trial.json"
Combination = dict[str, Any]


def with_speed(
    config: TrainingConfig, pipe: Any, processes: Processes, announce: Callable[[str], None]
) -> TrainingConfig:
    """The settings, with the fastest precision and memory format if `speed` is "auto"; what is given is kept.

    The main process times them for all, and writes what it found into `speed_trial.json`. A run that is continued keeps
    the choice of its checkpoint, on any machine.

    Args:
        config: Settings of the run.
        pipe: The base model's pipeline; unchanged, apart from its device.
        processes: The run's processes.
        announce: Called with a line about the choice.

    Raises:
        ValueError: No combination fits into the memory.
    """
    if config.speed != "auto":
        return config

    def choose() -> Combination:
        place = None
        if config.resume_from_checkpoint is not None:
            place = find_checkpoint(config.folder, config.resume_from_checkpoint)
        if place is not None:
            earlier = load_checkpoint(place).state["config"]
            return {name: earlier[name] for name in CHOSEN if name in earlier and name not in config.model_fields_set}
        taken = {name(each): (each, seconds_of(pipe, config, each)) for each in combinations(config, processes.device)}
        chosen = fastest(taken)
        seconds = {label: value for label, (_, value) in taken.items()}
        told = ", ".join(f"{label} {'-' if value is None else f'{value:.3g}'}" for label, value in seconds.items())
        announce(f"seconds of a pass: {told}; the run takes {name(chosen)}")
        text = json.dumps({"seconds": seconds, "chosen": chosen, "device": str(processes.device)}, indent=1) + "\n"
        config.folder.mkdir(parents=True, exist_ok=True)
        write_whole(config.folder / RECORD, lambda aside: aside.write_text(text))
        return chosen

    pipe.to(processes.device)
    return config.model_copy(update=processes.of_main(choose))


def combinations(config: TrainingConfig, device: torch.device) -> list[Combination]:
    """What is tried, the least change first; settings that were given have one value."""
    values: dict[str, tuple[Any, ...]] = {"mixed_precision": ("no",), "channels_last": (False, True)}
    if has_bfloat16(str(device)):
        values["mixed_precision"] = ("no", "bf16")
    for setting in config.model_fields_set & values.keys():
        values[setting] = (getattr(config, setting),)
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def name(combination: Combination) -> str:
    """'bf16, channels last'."""
    precision = combination["mixed_precision"].replace("no", "float32")
    return f"{precision}, channels last" if combination["channels_last"] else precision


def fastest(taken: Mapping[str, tuple[Combination, float | None]]) -> Combination:
    """The first combination that no later one clearly beats.

    Args:
        taken: Combinations with their seconds; None for those that do not fit into the memory.

    Raises:
        ValueError: None fits.
    """
    best: tuple[Combination, float] | None = None
    for combination, seconds in taken.values():
        if seconds is not None and (best is None or seconds <= GAIN * best[1]):
            best = combination, seconds
    if best is None:
        raise ValueError(f"speed 'auto' found no memory for a pass, tried with {'; '.join(taken)}")
    return best[0]


def seconds_of(pipe: Any, config: TrainingConfig, combination: Combination) -> float | None:
    """Seconds of a forward and backward pass on a copy of the U-Net, the least of some; None if it does not fit."""
    try:
        return _seconds(pipe, config.model_copy(update=combination))
    except torch.OutOfMemoryError:
        return None


def _seconds(pipe: Any, config: TrainingConfig) -> float:
    unet, attention = copy.deepcopy(pipe.unet), PassAttention(pipe, config)
    trainable, device = make_trainable(unet, config, 1), unet.device
    cast_frozen(unet, config.frozen_dtype)
    attention.unet = unet
    size, count = Size(*config.resolution), config.train_batch_size
    pixels = torch.zeros(count, *([] if config.frames is None else [config.frames]), 3, *size, device=device)
    latents = {key: value.to(unet.dtype) for key, value in encode_with_pivot(pipe, pixels, config.scale).items()}
    noise = torch.randn(latents["z_0"].shape, generator=torch.Generator().manual_seed(config.seed)).to(latents["z_0"])
    embeds = encode_captions(pipe, [""] * count)
    sizes = torch.tensor(list(size)).expand(count, 2)
    conditions = unet_arguments(pipe, embeds, sizes, torch.zeros_like(sizes), size, config.frames or 1)
    timestep, dtype = torch.ones(count, dtype=torch.long, device=device), {"fp16": torch.float16}
    mixed, seconds = config.mixed_precision != "no", list[float]()
    while len(seconds) <= REPEATS and sum(seconds) <= ENOUGH:
        began = time.perf_counter()
        with attention.at(pixels, 0, trainable):
            with torch.autocast(device.type, dtype.get(config.mixed_precision, torch.bfloat16), enabled=mixed):
                prediction = trainable(noise, timestep, conditions, latents["pivot"])
            prediction.float().square().mean().backward()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - began)
        trainable.zero_grad()
    return min(seconds)
