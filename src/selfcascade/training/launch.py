"""Runs training from its settings: loads model and data, and validates; used by `selfcascade train`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from selfcascade.cascade import Size
from selfcascade.data import Stream, bucket_sizes, open_source
from selfcascade.media.frame_rates import DEFAULT_FPS, MAX_FPS, MIN_FPS
from selfcascade.media.save_clips import save_clip
from selfcascade.media.save_pictures import check_place
from selfcascade.models import load_model
from selfcascade.pipeline import SelfCascade
from selfcascade.processes import OutputLock, Processes, join
from selfcascade.training.agreement import refuse_other_engines
from selfcascade.training.config import TrainingConfig
from selfcascade.training.extras import check_extras
from selfcascade.training.loop import Trainer
from selfcascade.training.samples import check_model

VALIDATION_STEPS = 25


def run_training(config: TrainingConfig, announce: Callable[[str], None] = lambda _: None) -> Trainer:
    """Loads the model and the data, trains, and returns the trainer.

    Args:
        config: Settings of the run.
        announce: Called with a line about what will be trained.

    Raises:
        ValueError: The model, the data or a setting cannot be used; the message names it.
    """
    check_extras(config)
    refuse_other_engines()
    processes = join()
    with ExitStack() as held:
        processes.main_alone(lambda: check_place(config.folder / "run.json", "output_dir"))
        processes.main_alone(lambda: held.enter_context(OutputLock(config.folder)))
        pipe, stream, held_out, validate = processes.together(lambda: _loaded(config, processes))
        trainer = Trainer(pipe, config, stream, validate, held_out, announce)
        if processes.is_main_process:
            announce(description(trainer))
        trainer.run()
    trainer.accelerator.state.destroy_process_group()
    return trainer


def _loaded(config: TrainingConfig, processes: Processes) -> tuple[Any, Stream, Stream | None, Any]:
    """The model, the data, the held-out data, and the function that makes validation pictures."""
    size = Size(*config.resolution)
    source = open_source(config.train_data, size, clips=config.clips)  # first, as it takes less than a model
    pipe = load_model(config.model, str(processes.device) if processes.num_processes > 1 else None, "float32")
    check_model(pipe, config)
    pipe.set_progress_bar_config(disable=True)
    cascade = SelfCascade(pipe)
    if size.height % cascade.multiple or size.width % cascade.multiple:
        raise ValueError(f"resolution must be multiples of {cascade.multiple}, not {size}")
    if config.validation_prompt and config.method == "upsamplers" and len(cascade.plan(*size)) == 1:
        raise ValueError(
            f"validation_prompt needs a resolution above the model's own, {cascade.native_size}, not {size}: "
            f"upsamplers only work in a cascade"
        )
    multiple = cascade.multiple
    sizes = (
        bucket_sizes(size, max(multiple, min(size) // 8 // multiple * multiple)) if config.aspect_buckets else (size,)
    )
    settings = (config.max_skip_share, config.cache_latents is not None)
    ahead = {"workers": config.dataloader_num_workers, "may_change": config.allow_changed_data}
    stream = Stream(source, sizes, config.seed, *settings, **ahead)
    held_out = None
    if config.validation_data is not None:  # scenes are endless; another seed gives other ones
        source = open_source(config.validation_data, size, clips=config.clips, option="validation_data")
        held_out = Stream(source, sizes, config.seed + 1, *settings)
    validate = None
    if config.validation_prompt:
        # With a stride, clips have a fraction of their files' rate.
        known = None if config.clips is None else config.clips.rate_in(stream.source.entries(config.seed, 0))
        validate = ValidationPictures(config, known)
    return pipe, stream, held_out, validate


def description(trainer: Trainer) -> str:
    """One line on what is trained, on how many samples per step, and on which devices."""
    config, count = trainer.config, sum(weight.numel() for weight in trainer.trained.values())
    what = {"upsamplers": f"{config.preset} upsamplers", "lora": f"a rank-{config.rank} LoRA", "full": "the U-Net"}
    processes = trainer.accelerator.num_processes
    samples = config.samples(config.train_batch_size * config.gradient_accumulation_steps * processes)
    precision = {"no": "float32"}.get(config.mixed_precision, config.mixed_precision)
    precision += ", channels last" * config.channels_last
    return (
        f"training {what[config.method]} ({count:,} parameters) at {Size(*config.resolution)} with t up to "
        f"{trainer.pivot_step}{', local attention' * (config.attention == 'local')}, {samples} a step, {precision} on "
        f"{trainer.accelerator.device.type}{f', {processes} processes' * (processes > 1)}; Ctrl-C saves and ends"
    )


class ValidationPictures:
    """Makes pictures or clips of the validation prompts, from the same seeds at each validation.

    LoRAs and whole U-Nets are sampled directly at the large size, as in the paper; upsamplers, and all that is trained
    with local attention, in a cascade.

    Args:
        config: Settings of the run.
        rate: Frame rate of the training clips; None means that of moving scenes.
    """

    def __init__(self, config: TrainingConfig, rate: float | None = None) -> None:
        rate = config.fps or rate or DEFAULT_FPS / (config.stride or 1)
        self.config, self.rate = config, min(max(rate, MIN_FPS), MAX_FPS)

    def __call__(self, step: int, pipe: Any, upsamplers: Any) -> dict[str, float]:
        """Writes `validation/STEP-NUMBER.png`, or for clips a lossless `.webp` with its record."""
        config, size = self.config, Size(*self.config.resolution)
        folder = config.folder / "validation"
        folder.mkdir(exist_ok=True)
        in_cascade = config.method == "upsamplers" or config.attention == "local"
        cascade = SelfCascade(pipe, upsamplers, None if in_cascade else size)
        length = {} if config.frames is None else {"num_frames": config.frames}
        for number, prompt in enumerate(config.validation_prompt):
            settings: dict[str, Any] = {**size._asdict(), "num_inference_steps": VALIDATION_STEPS, **length}
            settings |= {"attention": "local"} if config.attention == "local" else {}
            seed, name = config.seed + number, f"{step:06d}-{number}"
            output: Any = cascade(prompt, generator=torch.Generator().manual_seed(seed), **settings)
            if config.frames is None:
                output.images[0].save(folder / f"{name}.png")
                continue
            record = {"prompt": prompt, "seed": seed, "training_step": step, **settings, "fps": self.rate}
            save_clip(output.frames[0], self.rate, record, folder / f"{name}.webp", prompt, force=True)
        return {"pictures" if config.frames is None else "clips": float(len(config.validation_prompt))}
