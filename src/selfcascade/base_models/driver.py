"""The base model of one call of the cascade: an untouched pipeline, run one stage at a time."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from selfcascade.base_models.borrowing import (
    plain_class,
    remembering,
    replacing_attributes,
    restored_on_failure,
    stage_attributes,
)
from selfcascade.base_models.decoding import Decoded, as_asked, decode_clips
from selfcascade.base_models.family import Family
from selfcascade.base_models.finite import check_finite
from selfcascade.base_models.global_draws import seeded_by, unmoved
from selfcascade.base_models.image_prompts import check_image_prompt, own_copies
from selfcascade.base_models.last_timesteps import lowest_pivot, takes_sigmas
from selfcascade.base_models.pivot_controls import Anchor, PivotSettings, restore_energy
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.renoising import add_noise_at_start, noise_like
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import lanczos, resize_latents
from selfcascade.base_models.saving_memory import WHOLE, Saving
from selfcascade.base_models.stage_controls import controls_at
from selfcascade.base_models.stage_scheduler import (
    NoStepLeft,
    ScheduleKnown,
    StageScheduler,
    stage_scheduler,
    training_steps,
)
from selfcascade.base_models.stage_values import scheduler_of, values_of
from selfcascade.cascade import Sample, Size, Stage

# `callback_on_step_end`: takes the pipeline, step, timestep and the step's tensors, and returns those it changes.
StepCallback = Callable[[Pipeline, int, Tensor, dict[str, Any]], dict[str, Any]]

# Takes a stage and its pivot's latents (None for the base stage); returns a context that changes the denoiser for the
# length of the stage.
StageContext = Callable[[Stage, Tensor | None], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class PipelineSample(Sample):
    """What a stage made, with what later stages need to know about it.

    Attributes:
        base_shift: mu, the dynamic shift of the base stage's schedule; 0 without one.
        decoded: The last stage's pictures, if the pipeline decoded them.
        features: Latents whose skip features the next stage gets; None means `latents`.
        band: (h, w) in latent pixels of the detail that the picture contains; None means the size of `latents`.
    """

    base_shift: float = 0.0
    decoded: Decoded | None = None
    features: Tensor | None = None
    band: tuple[int, int] | None = None


@dataclass(frozen=True)
class NoisyLatents:
    """The starting point of a stage.

    Attributes:
        z_K: Latents at the schedule's first noise level, (B, C, h, w) or (B, C, F, h, w).
        z_up: The enlarged pivot that was noised, the same shape.
        scheduler: The rest of the schedule (`stage_scheduler`).
    """

    z_K: Tensor
    z_up: Tensor
    scheduler: StageScheduler


class PipelineBaseModel:
    """Drives an untouched diffusers pipeline as the algorithm's `BaseModel`.

    Args:
        family: The pipeline's family. During a stage the pipeline has a stage scheduler and a caching prompt encoder;
            both are removed afterwards, also after an exception.
        request: The call's arguments.
        settings: How pivots are enlarged, and how closely stages follow them.
        contexts: Contexts entered for every stage, in this order.
        measures: The parts in which the call runs; kept for the caller, who applies them.
    """

    def __init__(
        self,
        family: Family,
        request: Request,
        settings: PivotSettings | None = None,
        contexts: Sequence[StageContext] = (),
        measures: Saving = WHOLE,
    ) -> None:
        self.family, self.pipe, self.request, self.measures = family, family.pipe, request, measures
        self.settings, self.contexts = settings or PivotSettings(), tuple(contexts)
        check_image_prompt(self.pipe, request.arguments)
        accepted = inspect.signature(self.pipe.__call__).parameters
        fixed = {name: value for name, value in family.fixed_arguments.items() if name in accepted}
        self.arguments: dict[str, Any] = {**fixed, **request.pipeline_arguments()}
        if "num_frames" in self.arguments:
            self.arguments[family.frames_name] = self.arguments.pop("num_frames")
        has_encoder = hasattr(self.pipe, "encode_prompt")
        self.encode_prompt = remembering(self.pipe.encode_prompt) if has_encoder else None

    def sample(self, stage: Stage) -> PipelineSample:
        """The pipeline's own sample at the stage's size: (B, C, h, w) or (B, C, F, h, w)."""
        scheduler = stage_scheduler(self.pipe.scheduler, None)
        with self._contexts(stage, None):
            made = self._run(stage, scheduler, None)
        return replace(made, base_shift=scheduler.mu)

    def resume(self, latents: Tensor, first: Stage) -> PipelineSample:
        """Makes latents of an earlier call the pivot, with the schedule's shift that `sample` would have found.

        Args:
            latents: z_0 of any stage.
            first: The base stage.
        """
        scheduler = stage_scheduler(self.pipe.scheduler, None)
        size = self.family.latent_size(first.size)
        zeros = self.family.from_spatial(latents.new_zeros(*latents.shape[:-2], *size))
        self._find_schedule(scheduler, first, {"latents": zeros})
        # Some pipelines of transformers keep latents in float32 with half-precision weights; those of U-Nets do not.
        kept = latents.dtype == torch.float32 and not hasattr(self.pipe, "unet")
        dtype = latents.dtype if kept else self.family.denoiser.dtype
        return PipelineSample(latents.to(self.pipe._execution_device, dtype), base_shift=scheduler.mu)

    def with_steps(self, stages: Sequence[Stage], chosen_by: str | None) -> Sequence[Stage]:
        """The stages, each with at least one step to run; nothing is sampled.

        If the scheduler alone does not determine a stage's schedule, the pipeline is asked for it.

        Args:
            stages: The plan.
            chosen_by: The option by which the caller chose K, which is then not changed. If None, K is raised to the
                lowest value that leaves a step.

        Raises:
            OptionError: A stage would have no step to run, or only one from pure noise.
        """
        asked = {"timesteps", "sigmas"} & self.arguments.keys()
        of_flows = any(takes_sigmas(scheduler_of(self.pipe, stage)) for stage in stages)
        if stages[-1].pivot_step is None or not (asked or of_flows):
            return stages
        known: list[Stage] = []
        limit = training_steps(self.pipe.scheduler)
        mu = 0.0
        for stage in stages:
            scheduler = stage_scheduler(scheduler_of(self.pipe, stage), stage.pivot_step, mu)
            try:
                self._find_schedule(scheduler, stage, {})
            except NoStepLeft as error:
                if chosen_by:
                    raise NoStepLeft(stage.pivot_step or limit, error.steps, error.last, chosen_by) from None
                lowest = lowest_pivot(limit, stage.num_inference_steps, error.last)
                stage = replace(stage, pivot_step=lowest)
            mu = scheduler.mu if stage.pivot_step is None else mu
            known.append(stage)
        return known

    def upsample(self, pivot: PipelineSample, size: Size) -> Tensor:
        """The pivot enlarged to the size's latents, frame by frame; unchanged if it has that size already."""
        z_0, target = pivot.latents, self.family.latent_size(size)
        if tuple(z_0.shape[-2:]) == target:
            return z_0
        if self.settings.upsampling == "rgb":
            z_up = self.family.in_parts(functools.partial(self._enlarge_in_rgb, size=size), z_0, size)
        else:
            z_up = resize_latents(z_0, target, self.settings.upsampling.removeprefix("latent-"))
        check_finite(z_up, self.pipe, f"the pivot enlarged to {size}")
        return restore_energy(z_up, z_0, self.settings.energy)

    def _enlarge_in_rgb(self, z_0: Tensor, size: Size) -> Tensor:
        pixels, upscaler = self.family.decode(z_0), self.settings.upscaler
        larger = lanczos(pixels, size) if upscaler is None else upscaler(pixels.float() / 2 + 0.5, size) * 2 - 1
        return self.family.encode(larger).to(z_0.dtype)

    def renoise(self, z_up: Tensor, stage: Stage, pivot: PipelineSample) -> NoisyLatents:
        """z_K at the first scheduled step at or below K (eq. 6), with noise from the caller's generators."""
        scheduler = stage_scheduler(scheduler_of(self.pipe, stage), stage.pivot_step, pivot.base_shift)
        self._find_schedule(scheduler, stage, {"latents": self.family.from_spatial(z_up)})
        noise = noise_like(z_up, self.request.generator, self.family.frames_first, self.settings.shared_noise)
        return NoisyLatents(add_noise_at_start(scheduler, z_up, noise).to(z_up.dtype), z_up, scheduler)

    def denoise(self, z_K: NoisyLatents, stage: Stage, pivot: PipelineSample) -> PipelineSample:
        """Runs the pipeline over the tail of the schedule, from the given latents."""
        scheduler = z_K.scheduler
        if self.settings.anchor > 0:
            scheduler.anchor = self._anchor(stage, z_K.z_up, pivot)
        features = pivot.latents if pivot.features is None else pivot.features
        with self._contexts(stage, features):
            made = self._run(stage, scheduler, self.family.from_spatial(z_K.z_K))
        return replace(made, base_shift=pivot.base_shift)

    def _anchor(self, stage: Stage, z_up: Tensor, pivot: PipelineSample) -> Anchor:
        """Holds the stage's predicted x_0 to the enlarged pivot in the band below the pivot's own size."""
        family = self.family

        def to_spatial(latents: Tensor) -> Tensor:
            return family.to_spatial(family.from_step(latents, len(z_up)), stage.size)

        height, width = pivot.band or pivot.latents.shape[-2:]
        return Anchor(z_up, height, width, self.settings.anchor, to_spatial, family.to_step)

    def _contexts(self, stage: Stage, pivot: Tensor | None) -> contextlib.ExitStack:
        with contextlib.ExitStack() as stack:
            for context in self.contexts:
                stack.enter_context(context(stage, pivot))
            return stack.pop_all()

    def _find_schedule(self, scheduler: StageScheduler, stage: Stage, more: Mapping[str, Any]) -> None:
        # Only the pipeline knows which sigmas and shift it asks for at this size: it is called, and stopped there.
        # What it draws before that, it draws again when it runs.
        scheduler.probing, random = True, self.request.cloned_generator()
        drawing = {} if random is None else {"generator": random}
        with unmoved(self.pipe._execution_device), contextlib.suppress(ScheduleKnown):
            self._call(scheduler, stage, {**more, **drawing, "output_type": "latent"})
        scheduler.probing = False

    def _run(self, stage: Stage, scheduler: StageScheduler, latents: Tensor | None) -> PipelineSample:
        family, output_type = self.family, self.request.output_type
        final = stage.is_last and output_type != "latent"
        at_once = final and not family.framewise
        given = {} if latents is None else {"latents": latents}
        pipe: Any = self.pipe
        if getattr(pipe, "_interrupt", False):  # left by an earlier call; most pipelines reset it themselves
            pipe._interrupt = False
        output = self._call(scheduler, stage, {**given, "output_type": output_type if at_once else "latent"})
        result = family.latents_of(output)
        # A pipeline that decodes does not return its latents: they are the result of the scheduler's last step.
        stepped = scheduler.stage_latents
        # Interrupted before its first step, a stage is left with what it began with.
        made = latents if stepped is None else family.from_step(stepped, len(result))
        latents = made if at_once and made is not None else result
        z_0 = family.to_spatial(latents, stage.size)
        check_finite(z_0, self.pipe, f"stage {stage.index} of {stage.count - 1}, {stage.size},")
        decoded = None
        if final and not at_once:
            decoded = Decoded(decode_clips(family, z_0, output_type, self.arguments.get("decode_chunk_size")))
        elif stage.is_last:
            decoded = Decoded(as_asked(result, output_type), getattr(output, "nsfw_content_detected", None))
        interrupted = bool(getattr(self.pipe, "_interrupt", False))  # as diffusers has it
        return PipelineSample(z_0, scheduler.steps_run, interrupted, decoded=decoded)

    def _call(self, scheduler: StageScheduler, stage: Stage, more: Mapping[str, Any]) -> Any:
        """The pipeline's output for the stage, with this scheduler in place of its own."""
        own = self.family.lent_attributes(stage.size)
        lent = {**stage_attributes(self.pipe, stage), **own, "scheduler": scheduler}
        if self.encode_prompt is not None:
            lent["encode_prompt"] = self.encode_prompt
        scheduler.generator = self.request.generator
        drawing = seeded_by(scheduler.generator, self.pipe._execution_device)
        restored = restored_on_failure(self.family.denoiser, self.family.vae)
        with replacing_attributes(self.pipe, lent), drawing, restored:
            call = plain_class(type(self.pipe)).__call__
            return call(self.pipe, **{**self._stage_arguments(scheduler, stage), **more})

    def _stage_arguments(self, scheduler: StageScheduler, stage: Stage) -> dict[str, Any]:
        arguments: dict[str, Any] = {**self.arguments, **self.family.size_arguments(stage.size)}
        arguments |= {**controls_at(self.pipe, arguments, stage.size), **own_copies(arguments)}
        arguments["num_inference_steps"] = stage.num_inference_steps
        if stage.guidance_scale is not None:
            arguments["guidance_scale"] = stage.guidance_scale
        arguments |= values_of(self.pipe, self.request, stage, arguments)
        callback = arguments.get("callback_on_step_end")
        if callback is not None:
            if hasattr(callback, "tensor_inputs"):  # diffusers' own callback objects say what they need
                arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
            arguments["callback_on_step_end"] = _with_stage(callback, scheduler, stage)
        return arguments


def _with_stage(callback: StepCallback, scheduler: StageScheduler, stage: Stage) -> StepCallback:
    """The user's callback, which also gets the stage; latents that it changes become the stage's."""

    def told_the_stage(pipe: Pipeline, step: int, timestep: Tensor, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        outputs = callback(pipe, step, timestep, {**callback_kwargs, "stage": stage})
        made, held = outputs.get("latents"), scheduler.stage_latents
        if made is not None and held is not None and made.shape[:-1] == held.shape[:-1]:
            made = made[..., : held.shape[-1]]  # some pipelines' latents have more channels, which are no sample
        scheduler.stage_latents = held if made is None else made
        return outputs

    return told_the_stage
