"""What a cascade will cost, before anything runs: TFLOPs and memory from shapes alone, seconds from a short timing."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from selfcascade.base_models.family import full_precision_vae
from selfcascade.base_models.frames import frames_at_once
from selfcascade.base_models.stage_scheduler import stage_scheduler, training_steps
from selfcascade.cascade import Size, Stage
from selfcascade.checks import is_whole
from selfcascade.cost.forward import (
    CLIP_TOKENS,
    MeasuredNetwork,
    clip_forward,
    has_known_inputs,
    unet_cost,
    unet_forward,
    vae_decode,
)
from selfcascade.cost.timing import Shape
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
        tflops: Of all of them and, in the last stage, of decoding; two operations a multiply-add.
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
    pipe: Any, stages: Sequence[Stage], batch: int = 1, guided: bool = True, frames: int | None = None
) -> list[StageCost]:
    """The cost of each stage of a plan; nothing is sampled, but the networks run for under a second to be timed.

    Adapters inside the denoiser (LoRAs) are not counted, nor is a kernel's workspace.

    Args:
        pipe: A pipeline; Stable Diffusion 1.x, 2.x and XL, AnimateDiff and ModelScope's text-to-video are known, of
            others only the steps.
        stages: From `SelfCascade.plan`.
        batch: Pictures or clips made together.
        guided: Whether classifier-free guidance doubles the batch, at stages whose guidance scale is None or over 1.
        frames: Of a clip; None is 16, AnimateDiff's and ModelScope's default. Pictures have none.

    Raises:
        ValueError: `batch` or `frames` is not a positive whole number.
    """
    for name, value in (("batch", batch), ("frames", DEFAULT_FRAMES if frames is None else frames)):
        if not is_whole(value):
            raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    plan = [(stage, scheduled_steps(pipe.scheduler, stage)) for stage in stages]
    if not plan or not _is_known(pipe):
        return [StageCost(stage, steps) for stage, steps in plan]
    # Of these families only SDXL's pipeline decodes in float32 where its VAE asks for it.
    upcasts = hasattr(pipe, "upcast_vae")
    with torch.no_grad(), full_precision_vae(pipe) if upcasts else contextlib.nullcontext(pipe.vae) as vae:
        video = type(pipe.unet).__name__ in CLIP_NETWORKS
        return _known_costs(pipe, vae, plan, batch, guided, (frames or DEFAULT_FRAMES) if video else None)


def scheduled_steps(scheduler: Any, stage: Stage) -> int:
    """Model evaluations of a stage: timesteps scheduled at or below K, or ceil(n K / T) if only the pipeline knows."""
    tail = stage_scheduler(scheduler, stage.pivot_step)
    if not scheduler.config.get("use_dynamic_shifting"):
        tail.set_timesteps(stage.num_inference_steps)
        return len(tail.timesteps)
    limit = training_steps(scheduler)
    return math.ceil(stage.num_inference_steps * (stage.pivot_step or limit) / limit)


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
    pipe: Any, vae: Any, plan: Sequence[tuple[Stage, int]], batch: int, guided: bool, frames: int | None
) -> list[StageCost]:
    tokens = getattr(pipe.tokenizer, "model_max_length", CLIP_TOKENS)
    forward = unet_forward(tokens) if frames is None else clip_forward(frames, tokens)
    denoiser, decoder = MeasuredNetwork(pipe.unet, forward, frames), MeasuredNetwork(vae, vae_decode)
    weights = sum(_nbytes(part) for part in pipe.components.values() if isinstance(part, nn.Module))
    shapes = [_denoiser_shape(pipe, stage, batch, guided) for stage, _ in plan]
    size = plan[-1][0].size
    at_once = 1 if frames is None else min(frames, frames_at_once(batch, size))
    tiles = _tiles(pipe, vae, size, batch * at_once)  # of one part of the clips, for pictures of all there is
    pieces = _pieces(pipe, vae, size, batch, frames or 1, at_once)
    # An offloaded network would be timed with its transfer, which a run pays once for many steps.
    resident = pipe.unet.device == vae.device == pipe._execution_device
    step_seconds = denoiser.seconds(shapes) if resident else {}
    tile_seconds = decoder.seconds(pieces) if resident else {}
    results = []
    for (stage, steps), shape in zip(plan, shapes, strict=True):
        flops, peak = steps * denoiser.cost(shape).flops, denoiser.cost(shape).peak_bytes
        seconds = steps * step_seconds[shape] if resident else None
        if stage.is_last:
            flops += sum(number * decoder.cost(tile).flops for tile, number in pieces.items())
            made = 0 if frames is None else 3 * batch * frames * size.area  # bytes of the frames that are done
            peak = max(peak, made + _decoding_peak(pipe, decoder, tiles))
            if seconds is not None:
                seconds += sum(number * tile_seconds[tile] for tile, number in pieces.items())
        results.append(StageCost(stage, steps, flops / 1e12, seconds, weights + peak))
    return results


def _denoiser_shape(pipe: Any, stage: Stage, batch: int, guided: bool) -> Shape:
    doubled = guided and (stage.guidance_scale is None or stage.guidance_scale > 1)
    height, width = (side // pipe.vae_scale_factor for side in stage.size)
    return (2 * batch if doubled else batch, height, width)


def _tiles(pipe: Any, vae: Any, size: Size, batch: int) -> Counter[Shape]:
    """The pieces that the last stage's latents are decoded in, as `AutoencoderKL.tiled_decode` cuts them."""
    height, width = (side // pipe.vae_scale_factor for side in size)
    tile = vae.tile_latent_min_size
    if not (vae.use_tiling or size.area >= TILING_AREA) or max(height, width) <= tile:
        return Counter({(batch, height, width): 1})
    stride = int(tile * (1 - vae.tile_overlap_factor))
    rows, columns = ([min(tile, side - start) for start in range(0, side, stride)] for side in (height, width))
    return Counter((batch, row, column) for row, column in itertools.product(rows, columns))


def _pieces(pipe: Any, vae: Any, size: Size, batch: int, frames: int, at_once: int) -> Counter[Shape]:
    """All that the decoder is given in the end: `at_once` frames of each clip together, in tiles."""
    pieces: Counter[Shape] = Counter()
    for length, number in ((at_once, frames // at_once), (frames % at_once, 1)):
        for tile, count in _tiles(pipe, vae, size, batch * length).items() if length else ():
            pieces[tile] += number * count
    return pieces


def _decoding_peak(pipe: Any, decoder: MeasuredNetwork, tiles: Counter[Shape]) -> int:
    largest = max(decoder.cost(tile).peak_bytes for tile in tiles)
    if tiles.total() == 1:
        return largest
    # All decoded tiles are kept until the last is there.
    pixel = decoder.real.config.out_channels * decoder.real.dtype.itemsize * pipe.vae_scale_factor**2
    return largest + sum(number * math.prod(tile) * pixel for tile, number in tiles.items())


def _nbytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in itertools.chain(network.parameters(), network.buffers()))
