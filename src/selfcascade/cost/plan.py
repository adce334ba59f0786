"""Estimates a cascade's cost before it runs: TFLOPs and memory from shapes alone, seconds from a short timing."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from selfcascade.base_models import family_of
from selfcascade.base_models.autoencoders import full_precision, in_tiles
from selfcascade.base_models.family import Family
from selfcascade.base_models.last_timesteps import linear_sigmas
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.saving_memory import WHOLE, Saving, tiles
from selfcascade.base_models.stage_attention import attention_of
from selfcascade.base_models.stage_scheduler import stage_scheduler
from selfcascade.base_models.stage_values import scheduler_of
from selfcascade.cascade import Size, Stage
from selfcascade.cost.coding import Coders, CodingT, PictureCoders
from selfcascade.cost.forward import CannotCount, unet_cost
from selfcascade.cost.steps import Kind, StepCosts
from selfcascade.cost.weights import weights_of
from selfcascade.cost.whole_coding import FamilyCoders
from selfcascade.options import Options
from selfcascade.options.checks import is_whole
from selfcascade.options.presets import Preset


class Cascade(Protocol):
    """The part of `SelfCascade` that an estimate uses."""

    pipe: Pipeline
    family: Family
    native_size: Size

    def chosen_preset(self, options: Options) -> Preset:
        """Settings of a call with these options."""
        ...


@dataclass(frozen=True)
class StageCost:
    """The expected cost of one stage; None if the pipeline cannot be counted without running it.

    Attributes:
        stage: Plan of the stage.
        steps: Number of scheduled model evaluations.
        tflops: TFLOPs of all evaluations and of the VAE; two operations per multiply-add.
        seconds: Seconds on the pipeline's device, without prompt encoding and upsampling; None also for an offloaded
            pipeline.
        peak_bytes: Bytes of the pipeline's weights and the peak of activations, with attention in a fused kernel.
    """

    stage: Stage
    steps: int
    tflops: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None

    @property
    def size(self) -> Size:
        """Size of the stage's images."""
        return self.stage.size


def estimate(
    pipe: Any,
    stages: Sequence[Stage],
    batch: int = 1,
    guided: bool = True,
    frames: int | None = None,
    upsampling: str | None = None,
    attention: str = "full",
    native: Size | None = None,
    arguments: Mapping[str, Any] | None = None,
    family: type[Family] | None = None,
    vae_tiling: bool | None = None,
    measures: Saving = WHOLE,
    timed: bool = True,
) -> list[StageCost]:
    """The cost of each stage of a plan. Nothing is sampled, but the networks run for under a second to be timed.

    Not counted are LoRAs, feature upsamplers, prompt encoding and workspaces of kernels other than the CPU's.

    Args:
        pipe: A pipeline of a supported family.
        stages: The plan from `SelfCascade.plan`.
        batch: Pictures or clips made together.
        guided: Whether stages use classifier-free guidance if their guidance scale is None or over 1.
        frames: Number of frames in a clip; None means the pipeline's default, or pictures.
        upsampling: How pivots are enlarged; "rgb" decodes and encodes each, others and None do not.
        attention: Attention of the stages above the base, "local" or "full".
        native: Size that the model was trained at, for windows of local attention; None asks the family.
        arguments: Keywords for the pipeline's call, such as embeddings if it has no text encoder.
        family: A subclass of `selfcascade.Family` for this pipeline; None takes the one registered for its class.
        vae_tiling: Whether the VAE works in tiles; None: if it does already, and from 2048 x 2048 pixels on.
        measures: The parts in which the call runs.
        timed: Whether seconds are estimated; without them no network runs.

    Raises:
        ValueError: `batch` or `frames` is not a positive whole number, or the pipeline is not supported.

    Warns:
        UserWarning: The pipeline cannot be counted, so only the steps are known.
    """
    for name, value in (("batch", batch), ("frames", frames)):
        if not is_whole(value) and (name, value) != ("frames", None):
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    if not stages:
        return []
    own = family_of(pipe, family)
    shift = _base_shift(own, stages)
    plan = [(stage, scheduled_steps(scheduler_of(pipe, stage), stage, shift)) for stage in stages]
    try:
        with torch.no_grad():
            costs = StepCosts(own, batch, frames if own.video else None, native, dict(arguments or {}), measures)
            with tiles(own.vae, measures.tile):
                return _costs(own, costs, plan, guided, upsampling, attention, vae_tiling, timed)
    except CannotCount as error:
        words = f"the FLOPs, time and memory of {own.name} cannot be estimated before it runs"
        warnings.warn(f"{words}: {error}", UserWarning, stacklevel=2)
        return [StageCost(stage, steps) for stage, steps in plan]


def estimate_call(
    cascade: Cascade,
    stages: Sequence[Stage],
    options: Options,
    batch: int = 1,
    arguments: Mapping[str, Any] | None = None,
    measures: Saving = WHOLE,
    timed: bool = True,
) -> list[StageCost]:
    """The cost of each stage of a call with these options.

    Args:
        cascade: The cascade to call.
        stages: The plan of the call.
        options: Options of the call; the preset supplies what they leave out.
        batch: Pictures or clips made together.
        arguments: Keywords for the pipeline's call, such as pictures that steer it.
        measures, timed: See `estimate`.
    """
    preset = cascade.chosen_preset(options)
    attention = attention_of(cascade.family, preset.attention, asked=options.attention is not None)
    return estimate(
        cascade.pipe,
        stages,
        batch,
        frames=options.num_frames,
        upsampling=preset.upsampling,
        attention=attention,
        native=cascade.native_size,
        arguments=arguments,
        family=type(cascade.family),
        vae_tiling=options.vae_tiling,
        measures=measures,
        timed=timed,
    )


def scheduled_steps(scheduler: Any, stage: Stage, base_shift: float = 0.0) -> int:
    """Number of model evaluations of a stage: timesteps scheduled at or below K.

    Args:
        scheduler: The pipeline's scheduler.
        stage: Plan of the stage.
        base_shift: The base stage's dynamic shift, if it can exceed the scheduler's `max_shift`.
    """
    tail = stage_scheduler(scheduler, stage.pivot_step, base_shift)
    if not scheduler.config.get("use_dynamic_shifting"):
        tail.set_timesteps(stage.num_inference_steps)
        return len(tail.timesteps)
    if stage.pivot_step is None:
        return stage.num_inference_steps
    tail.set_timesteps(sigmas=linear_sigmas(stage.num_inference_steps), mu=math.inf)  # cut to the largest
    return len(tail.timesteps)


def _base_shift(family: Family, stages: Sequence[Stage]) -> float:
    """The first stage's dynamic shift from its family's own rule."""
    if not family.pipe.scheduler.config.get("use_dynamic_shifting"):
        return 0.0
    return family.shift(stages[0].size, stages[0].num_inference_steps)


def unet_tflops(unet_config: Mapping[str, Any], height_latent: int, width_latent: int, batch: int = 1) -> float:
    """TFLOPs of one forward pass; arguments and errors are those of `forward.unet_cost`."""
    return unet_cost(unet_config, height_latent, width_latent, batch).flops / 1e12


def _costs(
    family: Family,
    costs: StepCosts,
    plan: Sequence[tuple[Stage, int]],
    guided: bool,
    upsampling: str | None,
    attention: str,
    vae_tiling: bool | None,
    timed: bool,
) -> list[StageCost]:
    pipe: Any = family.pipe
    weights = weights_of(family)
    kinds = [kind_of(stage, guided, attention) for stage, _ in plan]
    keys = [(stage.size, kind) for (stage, _), kind in zip(plan, kinds, strict=True)]
    last = plan[-1][0].size
    with as_decoding(pipe, [stage for stage, _ in plan], upsampling):
        coders = coders_of(family, costs.latents(*keys[0]), last, vae_tiling)
        codings = codings_of(coders, [stage for stage, _ in plan], upsampling)
        # An offloaded network would be timed with its transfer, which a run pays once for many steps.
        resident = timed and family.denoiser.device == family.vae.device == pipe._execution_device
        step_seconds = costs.seconds(keys) if resident else {}
        coding_seconds = iter(coders.seconds([one for own in codings for one in own])) if resident else None
    results = []
    for (stage, steps), key, own in zip(plan, keys, codings, strict=True):
        network = costs.flops(*key, steps)
        flops = network + sum(coding.flops for coding in own)
        frames = family.frames_of(costs.latents(*key)[2]) if family.video and stage.is_last else 0
        made = 3 * costs.batch * frames * last.area  # bytes of finished frames
        coded = max((made + coding.peak_bytes for coding in own), default=0)
        peak = weights.with_activations(costs.peak_bytes(*key), coded, costs.measures.offload)
        seconds = None
        if coding_seconds is not None:
            seconds = step_seconds[key] * network / costs.cost(*key).flops + sum(next(coding_seconds) for _ in own)
        results.append(StageCost(stage, steps, flops / 1e12, seconds, peak))
    return results


def as_decoding(pipe: Any, stages: Sequence[Stage], upsampling: str | None) -> contextlib.AbstractContextManager[Any]:
    """Context in which the VAE has the highest precision that these stages use it in."""
    # Families whose pipelines decode in float32 where their VAE asks for it have this method; pivots always do.
    upcasts = hasattr(pipe, "upcast_vae") or any(_encodes(stage, upsampling) for stage in stages)
    return full_precision(pipe.vae) if upcasts else contextlib.nullcontext(pipe.vae)


def _encodes(stage: Stage, upsampling: str | None) -> bool:
    """Whether the stage's pivot is encoded: one that is enlarged in RGB, or a user's image."""
    return stage.pivot_step is not None and (stage.index == 0 or upsampling == "rgb")


def coders_of(family: Family, latents: torch.Size, last: Size, vae_tiling: bool | None = None) -> Coders[Any]:
    """The VAE's decoder and encoder.

    Args:
        family: Family of the pipeline.
        latents: Shape of any stage's latents.
        last: Size of the last stage.
        vae_tiling: See `estimate`.
    """
    vae, pipe = family.vae, family.pipe
    tiled = in_tiles(vae, vae_tiling, last.area)
    if type(vae).__name__ == "AutoencoderKL" and getattr(pipe, "vae_scale_factor", None) == family.factor:
        return PictureCoders(pipe, vae, latents[0], latents[2] if family.video else None, tiled)
    return FamilyCoders(family, latents, tiled)


def kind_of(stage: Stage, guided: bool, attention: str) -> Kind:
    """What makes the steps of this stage differ from others'."""
    scale = stage.guidance_scale if guided else 1.0
    return Kind(scale, attention == "local" and stage.pivot_step is not None)


def codings_of(coders: Coders[CodingT], stages: Sequence[Stage], upsampling: str | None) -> list[list[CodingT]]:
    """The VAE's work in each stage: pivots are decoded and encoded for RGB, a user's image encoded, the end decoded."""
    found: list[list[CodingT]] = [[] for _ in stages]
    for index, stage in enumerate(stages):
        if _encodes(stage, upsampling):
            if index > 0:
                found[index].append(coders.decoding(stages[index - 1].size))
            found[index].append(coders.encoding(stage.size))
        if stage.is_last:
            found[index].append(coders.decoding(stage.size))
    return found
