"""A ComfyUI model as the algorithm's `BaseModel`: the loop over the stages is the library's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from selfcascade.base_models.pivot_controls import Anchor, restore_energy
from selfcascade.base_models.pixel_upscaling import PixelUpscaler, check_upscaler
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import lanczos, resize_latents
from selfcascade.cascade import Sample, Size, Stage, StageResult, self_cascade
from selfcascade.options.presets import Preset

from . import coder
from .anchoring import anchored
from .local_attention import attending_locally
from .noise import Noises
from .schedules import ComfySchedules
from .skips import ATTACHED, Attached, with_skips

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class ComfySample(Sample):
    """The result of a stage, in the VAE's scale, like ComfyUI's LATENT.

    Attributes:
        features: Latents whose skip features the next stage gets; None means `latents`.
        band: (h, w) in latent pixels of the detail that the picture contains; None means the size of `latents`.
    """

    features: Tensor | None = None
    band: tuple[int, int] | None = None


@dataclass(frozen=True)
class Start:
    """The starting point of a stage; ComfyUI adds the noise itself, by the model's own `noise_scaling` (eq. 6)."""

    z_up: Tensor
    noise: Tensor
    sigmas: Tensor


@dataclass(frozen=True)
class Setting:
    """Settings of all stages.

    Attributes:
        model: A `ModelPatcher` with all of the user's patches.
        vae: The VAE.
        positive, negative: CONDITIONING, made for pictures of the size `conditioned`.
        conditioned: Size that the conditioning was made for.
        native: Size that the model was trained at.
        schedules: The model's schedules for a sampler and a scheduler.
        preset: How pivots are enlarged and used.
        seed: Seed, as for KSampler.
        upscaler: Enlarges the decoded pivots of "rgb"; None means Lanczos windows.
    """

    model: Any
    vae: Any
    positive: Conditioning
    negative: Conditioning
    conditioned: Size
    native: Size
    schedules: ComfySchedules
    preset: Preset
    seed: int
    upscaler: PixelUpscaler | None = None


class ComfyBaseModel:
    """Runs the stages on ComfyUI's samplers, with its previews, progress and interruption.

    Args:
        setting: What the stages share.
        stages: The plan.
        noises: Source of their noise.
    """

    def __init__(self, setting: Setting, stages: Sequence[Stage], noises: Noises) -> None:
        self.setting, self.noises, self.factor = setting, noises, coder.factor(setting.vae)
        self.sigmas = [setting.schedules.sigmas(stage.num_inference_steps, stage.pivot_step) for stage in stages]
        self.first = stages[0].index
        self.steps = [len(sigmas) - 1 for sigmas in self.sigmas]
        self.show = latent_preview.prepare_callback(setting.model, sum(self.steps))

    def sample(self, stage: Stage) -> ComfySample:
        """z_0^0: what KSampler makes of the same seed, at the stage's size."""
        height, width = self.latent_size(stage.size)
        channels = self.setting.model.get_model_object("latent_format").latent_channels
        empty = torch.zeros(len(self.noises.numbers), channels, height, width)
        return self._run(self.setting.model, stage, Start(empty, self.noises.draw(empty), self._sigmas(stage)))

    def upsample(self, pivot: ComfySample, size: Size) -> Tensor:
        """phi(z_0^(r-1)): the pivot at the size's latents; unchanged where it has that size already."""
        z_0, target = pivot.latents, self.latent_size(size)
        if tuple(z_0.shape[-2:]) == target:
            return z_0
        preset, vae = self.setting.preset, self.setting.vae
        comfy.model_management.throw_exception_if_processing_interrupted()
        if preset.upsampling == "rgb":
            pixels, upscaler = coder.decode(vae, z_0), self.setting.upscaler
            larger = lanczos(pixels, size) if upscaler is None else upscaler(pixels.float() / 2 + 0.5, size) * 2 - 1
            z_up = coder.encode(vae, larger).to(z_0)
        else:
            z_up = resize_latents(z_0, target, preset.upsampling.removeprefix("latent-"))
        _check_finite(z_up, f"the pivot enlarged to {size}")
        return restore_energy(z_up, z_0, preset.energy)

    def renoise(self, z_up: Tensor, stage: Stage, pivot: ComfySample) -> Start:
        """z_K at the first scheduled step at or below K; the noise is the stage's own."""
        return Start(z_up, self.noises.draw(z_up), self._sigmas(stage))

    def denoise(self, z_K: Start, stage: Stage, pivot: ComfySample) -> ComfySample:
        """z_0^r: the tail of the schedule, anchored, with local attention and skip features where that is asked for."""
        setting, preset, model = self.setting, self.setting.preset, self.setting.model
        scaled = model.model.process_latent_in  # latents as the network knows them
        attached: Attached | None = model.get_attachment(ATTACHED)
        if attached is not None:
            features = pivot.latents if pivot.features is None else pivot.features
            model = with_skips(model, attached, scaled(features), self.latent_size(stage.size))
        if preset.attention == "local" and stage.size.area > setting.native.area:
            model = attending_locally(model, setting.native, stage.size, z_K.z_up, z_K.sigmas)
        if preset.anchor > 0:
            height, width = pivot.band or pivot.latents.shape[-2:]
            model = anchored(model, Anchor(scaled(z_K.z_up), height, width, preset.anchor, _same, _same), z_K.sigmas)
        return self._run(model, stage, z_K)

    def latent_size(self, size: Size) -> tuple[int, int]:
        """(h, w) of the latents of pictures of this size."""
        return size.height // self.factor, size.width // self.factor

    def _sigmas(self, stage: Stage) -> Tensor:
        return self.sigmas[stage.index - self.first]

    def _run(self, model: Any, stage: Stage, start: Start) -> ComfySample:
        setting, done = self.setting, sum(self.steps[: stage.index - self.first])

        def shown(step: int, x_0: Tensor, x: Tensor, count: int) -> None:
            self.show(done + step, x_0, x, sum(self.steps))

        ratio = stage.size.height / setting.conditioned.height, stage.size.width / setting.conditioned.width
        latents = comfy.sample.sample_custom(
            model,
            start.noise,
            stage.guidance_scale,
            comfy.samplers.sampler_object(setting.schedules.sampler_name),
            start.sigmas,
            with_areas(setting.positive, *ratio),
            with_areas(setting.negative, *ratio),
            start.z_up,
            callback=shown,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=(setting.seed + stage.index) % 2**64,  # of samplers that draw noise of their own
        )
        _check_finite(latents, f"the stage of {stage.size}")
        return ComfySample(latents, len(start.sigmas) - 1)


def run(
    setting: Setting, stages: Sequence[Stage], noises: Noises, pivot: Callable[[], ComfySample] | None = None
) -> list[StageResult[ComfySample]]:
    """All stages, the library's loop over them."""
    try:
        with torch.no_grad():
            base = ComfyBaseModel(setting, stages, noises)
            return list(self_cascade(base, stages, None if pivot is None else pivot()))
    finally:
        if setting.upscaler is not None:  # ComfyUI's memory management does not know of it
            setting.upscaler.model.to("cpu")


def upscaler_of(upscale_model: Any) -> PixelUpscaler | None:
    """What an UPSCALE_MODEL, a spandrel model, makes of pivots; None without one.

    Raises:
        ValueError: It does not enlarge pictures.
    """
    if upscale_model is None:
        return None
    check_upscaler(upscale_model)
    return ComfyUpscaler(upscale_model, comfy.model_management.get_torch_device(), Request())


class ComfyUpscaler(PixelUpscaler):
    """Has ComfyUI unload other models first, as it does not know of this one."""

    def __call__(self, pixels: Tensor, size: Size) -> Tensor:
        """As in the library; memory as ComfyUI's own upscaling node counts it."""
        model: Any = self.model
        side, share = 512, 384
        needed = comfy.model_management.module_size(model.model) + side * side * 3 * 4 * max(model.scale, 1) * share
        comfy.model_management.free_memory(needed + size.area * 3 * 4, self.device)
        return super().__call__(pixels, size)


def with_areas(conditioning: Conditioning, down: float, across: float) -> Conditioning:
    """Conditioning whose places in latent pixels, (height, width, top, left), are those of a larger stage.

    These are the areas of prompts and the boxes of GLIGEN. ComfyUI itself resizes masks and the hints of ControlNets.
    """
    factors = (down, across, down, across)

    def box(sides: Sequence[int]) -> tuple[int, ...]:
        return tuple(round(side * by) for side, by in zip(sides, factors, strict=True))

    def boxes(given: Sequence[Any]) -> list[Any]:
        """A list for each picture of the batch, or one of (embedding, height, width, top, left)."""
        return [boxes(one) if isinstance(one, list) else (one[0], *box(one[1:])) for one in given]

    def entry(values: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        area = values.get("area")
        if area is not None and area[0] != "percentage" and len(area) == len(factors):
            changed["area"] = box(area)
        if "gligen" in values:
            kind, network, given = values["gligen"]
            changed["gligen"] = (kind, network, boxes(given))
        return {**values, **changed}

    return [[embedding, entry(values)] for embedding, values in conditioning]


def _same(latents: Tensor) -> Tensor:
    return latents


def _check_finite(latents: Tensor, what: str) -> None:
    if not torch.isfinite(latents).all():
        raise ValueError(f"{what} has values that are not finite; run the model and its VAE in another precision")
