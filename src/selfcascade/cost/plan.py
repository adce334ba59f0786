"""What a cascade will cost, before anything runs: TFLOPs and memory from shapes alone, seconds from a short timing."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from selfcascade.base_models import family_of
from selfcascade.base_models.autoencoders import full_precision
from selfcascade.base_models.stage_scheduler import stage_scheduler
from selfcascade.base_models.stage_schedules import linear_sigmas
from selfcascade.base_models.stage_values import scheduler_of
from selfcascade.cascade import Size, Stage
from selfcascade.cost.coding import Coders, Coding
from selfcascade.cost.forward import (
    CLIP_TOKENS,
    MeasuredNetwork,
    clip_forward,
    has_known_inputs,
    unet_cost,
    unet_forward,
)
from selfcascade.cost.timing import Shape
from selfcascade.options.checks import is_whole
from selfcascade.pipeline import TILING_AREA

PIPELINES = {
    "StableDiffusionPipeline": "UNet2DConditionModel",
    "StableDiffusionXLPipeline": "UNet2DConditionModel",
    "AnimateDiffPipeline": "UNetMotionModel",
    "TextToVideoSDPipeline": "UNet3DConditionModel",
}
CLIP_NETWORKS = ("UNetMotionModel", "UNet3DConditionModel")
DEFAULT_FRAMES = 16  # AnimateDiff's and ModelScope's


@dataclass(frozen=True)
class StageCost:
    """What one stage is expected to cost; None where the pipeline's family is not known well enough to say.

    Attributes:
        stage: Its plan.
        steps: Model evaluations that are scheduled.
        tflops: TFLOPs of all of them and of the VAE's work; two operations a multiply-add.
        seconds: On the pipeline's device, without prompt encoding and upsampling; None for an offloaded pipeline too.
        peak_bytes: The pipeline's weights and the most activations alive at once, with attention in a fused kernel.
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
) -> list[StageCost]:
    """The cost of each stage of a plan; nothing is sampled, but the networks run for under a second to be timed.

    Adapters inside the denoiser (LoRAs) are not counted, nor is a kernel's workspace.

    Args:
        pipe: A pipeline; Stable Diffusion 1.x, 2.x and XL, AnimateDiff and ModelScope's text-to-video are known, of
            others only the steps.
        stages: From `SelfCascade.plan`.
        batch: Pictures or clips made together.
        guided: Whether classifier-free guidance doubles the batch, at stages whose guidance scale is None or over 1.
        frames: Number of frames in a clip; None is 16, AnimateDiff's and ModelScope's default. Pictures have none.
        upsampling: How pivots are enlarged; "rgb" decodes and encodes each, None and others do not.

    Raises:
        ValueError: `batch` or `frames` is not a positive whole number.
    """
    for name, value in (("batch", batch), ("frames", DEFAULT_FRAMES if frames is None else frames)):
        if not is_whole(value):
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    shift = _base_shift(pipe, stages)
    plan = [(stage, scheduled_steps(scheduler_of(pipe, stage), stage, shift)) for stage in stages]
    if not plan or not _is_known(pipe):
        return [StageCost(stage, steps) for stage, steps in plan]
    # Among these families only SDXL's pipeline decodes in float32 where its VAE asks for it.
    upcasts = hasattr(pipe, "upcast_vae")
    with torch.no_grad(), full_precision(pipe.vae) if upcasts else contextlib.nullcontext(pipe.vae) as vae:
        video = type(pipe.unet).__name__ in CLIP_NETWORKS
        return _known_costs(pipe, vae, plan, batch, guided, (frames or DEFAULT_FRAMES) if video else None, upsampling)


def scheduled_steps(scheduler: Any, stage: Stage, base_shift: float = 0.0) -> int:
    """Model evaluations of a stage: timesteps scheduled at or below K.

    Args:
        scheduler: The pipeline's.
        stage: Its plan.
        base_shift: The base stage's dynamic shift, where it may be larger than the scheduler's largest.
    """
    tail = stage_scheduler(scheduler, stage.pivot_step, base_shift)
    if not scheduler.config.get("use_dynamic_shifting"):
        tail.set_timesteps(stage.num_inference_steps)
        return len(tail.timesteps)
    if stage.pivot_step is None:
        return stage.num_inference_steps
    tail.set_timesteps(sigmas=linear_sigmas(stage.num_inference_steps), mu=math.inf)  # cut to the largest
    return len(tail.timesteps)


def _base_shift(pipe: Any, stages: Sequence[Stage]) -> float:
    """The dynamic shift of the first stage by its family's own rule."""
    if not stages or not pipe.scheduler.config.get("use_dynamic_shifting"):
        return 0.0
    return family_of(pipe).shift(stages[0].size, stages[0].num_inference_steps)


def unet_tflops(unet_config: Mapping[str, Any], height_latent: int, width_latent: int, batch: int = 1) -> float:
    """TFLOPs of one forward pass, without weights; arguments and errors as in `forward_cost.unet_cost`."""
    return unet_cost(unet_config, height_latent, width_latent, batch).flops / 1e12


def _is_known(pipe: Any) -> bool:
    wanted = next((PIPELINES[kind.__name__] for kind in type(pipe).__mro__ if kind.__name__ in PIPELINES), None)
    if wanted is None or (type(pipe.unet).__name__, type(pipe.vae).__name__) != (wanted, "AutoencoderKL"):
        return False
    same_latents = pipe.unet.config.in_channels == pipe.vae.config.latent_channels
    return same_latents and has_known_inputs(pipe.unet.config)


def _known_costs(
    pipe: Any,
    vae: Any,
    plan: Sequence[tuple[Stage, int]],
    batch: int,
    guided: bool,
    frames: int | None,
    upsampling: str | None,
) -> list[StageCost]:
    tokens = getattr(pipe.tokenizer, "model_max_length", CLIP_TOKENS)
    forward = unet_forward(tokens) if frames is None else clip_forward(frames, tokens)
    denoiser = MeasuredNetwork(pipe.unet, forward, frames)
    weights = sum(_nbytes(part) for part in pipe.components.values() if isinstance(part, nn.Module))
    shapes = [_denoiser_shape(pipe, stage, batch, guided) for stage, _ in plan]
    last = plan[-1][0].size
    coders = Coders(pipe, vae, batch, frames, tiled=vae.use_tiling or last.area >= TILING_AREA)
    codings = _codings(coders, [stage for stage, _ in plan], upsampling)
    # An offloaded network would be timed with its transfer, which a run pays once for many steps.
    resident = pipe.unet.device == vae.device == pipe._execution_device
    step_seconds = denoiser.seconds(shapes) if resident else {}
    coding_seconds = iter(coders.seconds([coding for own in codings for coding in own])) if resident else None
    results = []
    for (stage, steps), shape, own in zip(plan, shapes, codings, strict=True):
        flops = steps * denoiser.cost(shape).flops + sum(coding.flops for coding in own)
        made = 0 if frames is None or not stage.is_last else 3 * batch * frames * last.area  # bytes of finished frames
        peak = max([denoiser.cost(shape).peak_bytes, *(made + coding.peak_bytes for coding in own)])
        seconds = None
        if coding_seconds is not None:
            seconds = steps * step_seconds[shape] + sum(next(coding_seconds) for _ in own)
        results.append(StageCost(stage, steps, flops / 1e12, seconds, weights + peak))
    return results


def _codings(coders: Coders, stages: Sequence[Stage], upsampling: str | None) -> list[list[Coding]]:
    """What the VAE does in each stage: pivots decoded and encoded for RGB, the user's own encoded, the end decoded."""
    found: list[list[Coding]] = [[] for _ in stages]
    for index, stage in enumerate(stages):
        if stage.pivot_step is not None and (stage.index == 0 or upsampling == "rgb"):
            if index > 0:
                found[index].append(coders.decoding(stages[index - 1].size))
            found[index].append(coders.encoding(stage.size))
        if stage.is_last:
            found[index].append(coders.decoding(stage.size))
    return found


def _denoiser_shape(pipe: Any, stage: Stage, batch: int, guided: bool) -> Shape:
    doubled = guided and (stage.guidance_scale is None or stage.guidance_scale > 1)
    height, width = (side // pipe.vae_scale_factor for side in stage.size)
    return (2 * batch if doubled else batch, height, width)


def _nbytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in itertools.chain(network.parameters(), network.buffers()))
