"""`SelfCascade`: the algorithm on the user's own diffusers pipeline."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from selfcascade.base_models.autoencoders import in_tiles, tiling
from selfcascade.base_models.decoding import decode_latents
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample, StageContext
from selfcascade.base_models.finite import checking_pixels
from selfcascade.base_models.given_pivot import taken_up
from selfcascade.base_models.image_pivot import image_pivot
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.request import Request
from selfcascade.base_models.saving_memory import WHOLE, Saving, one_model_at_a_time, saving, tiles
from selfcascade.base_models.stage_attention import attending_locally, attention_of
from selfcascade.base_models.stage_values import check_values
from selfcascade.cascade import Size, Stage, StageResult, self_cascade
from selfcascade.cost.fitting import fitted
from selfcascade.media.images import Clips, Pictures, clips_of, pixels_of
from selfcascade.options import Options, OutputType
from selfcascade.options.checks import Upscaler
from selfcascade.options.presets import Attention, Preset, Upsampling
from selfcascade.pipeline.calls import (
    SelfCascadeOutput,
    check_call,
    check_clips,
    check_has_pivot,
    check_length,
    read_call,
    signed_as_overloaded,
    warn_of_negative_prompt,
)
from selfcascade.pipeline.named_upscalers import upscaler_of
from selfcascade.pipeline.planning import Planner, enlarged_size, sizes_from
from selfcascade.upsamplers.skip_features import adding_skip_features, check_hookable

# What a call needs to run: the base model, the stages that are left, what makes their pivot, and the options.
Prepared = tuple[PipelineBaseModel, Sequence[Stage], Callable[[], PipelineSample] | None, Options]


class SelfCascade(Planner):
    """A text-to-image or text-to-video pipeline that makes larger pictures than its model was trained for.

    The pipeline is used as it is, with its LoRAs, ControlNet, adapters, offloading and callbacks, and left unchanged.

    Args:
        pipe: A diffusers pipeline of a supported family.
        upsamplers: Feature upsamplers for this pipeline's U-Net (the tuned version); None for the tuning-free version.
        native_size: (height, width) in pixels the model was trained at; None reads it from its folder or the pipeline.
        family: A subclass of `selfcascade.Family` for this pipeline; None takes the one registered for its class.

    Attributes:
        defaults: Steps, guidance and preset from the model's own `selfcascade.json` (`presets.ModelDefaults`).

    Raises:
        ValueError: The pipeline, its scheduler or an argument is not supported; the message says what to use.
    """

    @overload
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        scale: float | None = None,
        pixels: float | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        strength: float | Sequence[float] | None = None,
        stage_prompt: str | Sequence[str] | None = None,
        stage_negative_prompt: str | Sequence[str] | None = None,
        stage_scheduler: str | Sequence[str] | None = None,
        stage_lora_scale: float | Sequence[float] | None = None,
        preset: str | Preset | None = None,
        upsampling: Upsampling | None = None,
        pivot_upscaler: Upscaler | None = None,
        anchor: float | None = None,
        energy: float | None = None,
        attention: Attention | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: OutputType = "pil",
        return_dict: Literal[True] = True,
        vae_tiling: bool | None = None,
        upsampler_scale: float | None = None,
        shared_noise: float | None = None,
        pivot: Tensor | None = None,
        max_memory: str | None = None,
        **arguments: Any,
    ) -> SelfCascadeOutput: ...

    @overload
    def __call__(
        self, prompt: str | list[str] | None = None, *, return_dict: Literal[False], **arguments: Any
    ) -> tuple[Any, list[StageResult[PipelineSample]]]: ...

    @signed_as_overloaded
    def __call__(
        self, prompt: str | list[str] | None = None, **given: Any
    ) -> SelfCascadeOutput | tuple[Any, list[StageResult[PipelineSample]]]:
        """Makes pictures of the prompt at any size, stage by stage.

        Args:
            prompt: One text or several; None if `prompt_embeds` are given.
            height, width, scale, pixels, num_inference_steps, guidance_scale, stage_scheduler: See `plan`.
            pivot_step, strength, preset, upsampling, anchor, energy, attention: See `plan`.
            pivot_upscaler: What enlarges pivots as pictures (docs/guides/upscaler.md): a callable from pixels (1, 3, H,
                W) in [0, 1] to (1, 3, s H, s W), such as a spandrel model; a StableDiffusionUpscalePipeline; or a name.
            stage_prompt, stage_negative_prompt: Texts for stages with a pivot, one for all of them or one each; None
                uses the base stage's. They apply to every prompt.
            stage_lora_scale: Factor for the strengths of the pipeline's LoRAs in stages with a pivot.
            generator: Source of all random numbers; a list gives each picture its own.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: False returns the tuple (pictures, stages).
            vae_tiling: Whether the VAE works in tiles; None: if it does already, and from 2048 x 2048 pixels on.
            upsampler_scale: Strength of the feature upsamplers; None means 1, and 0 is the tuning-free version, bit
                for bit.
            shared_noise: For video, the share in [0, 1] of the renoise variance that all frames have in common
                (`base_models.renoising.mixed_noise`); None means 0. The base stage's noise is the pipeline's own.
            pivot: z_0 of an earlier call's stage, `out.stages[r].latents`. That stage and those before it are skipped,
                so you can pick a base sample first and enlarge it afterwards.
            max_memory: Most memory for weights and activations, such as "8GB". A call that would take more runs in the
                parts that `cost.fitting.fitted` chooses; `SelfCascadeOutput.saving` has them.
            arguments: Keywords of the pipeline's own call, passed on unchanged at every stage. A
                `callback_on_step_end` finds the `Stage` under "stage" in its keyword arguments.

        Raises:
            ValueError: An argument is out of range or unknown.
        """
        return self._run(*self.prepared(prompt, given))

    @overload
    def upscale(
        self,
        image: Pictures | Clips,
        /,
        prompt: str | list[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        scale: float | None = None,
        pixels: float | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        strength: float | Sequence[float] | None = None,
        stage_prompt: str | Sequence[str] | None = None,
        stage_negative_prompt: str | Sequence[str] | None = None,
        stage_scheduler: str | Sequence[str] | None = None,
        stage_lora_scale: float | Sequence[float] | None = None,
        preset: str | Preset | None = None,
        upsampling: Upsampling | None = None,
        pivot_upscaler: Upscaler | None = None,
        anchor: float | None = None,
        energy: float | None = None,
        attention: Attention | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: OutputType = "pil",
        return_dict: Literal[True] = True,
        vae_tiling: bool | None = None,
        upsampler_scale: float | None = None,
        shared_noise: float | None = None,
        max_memory: str | None = None,
        **arguments: Any,
    ) -> SelfCascadeOutput: ...

    @overload
    def upscale(
        self,
        image: Pictures | Clips,
        /,
        prompt: str | list[str] | None = None,
        *,
        return_dict: Literal[False],
        **arguments: Any,
    ) -> tuple[Any, list[StageResult[PipelineSample]]]: ...

    @signed_as_overloaded
    def upscale(
        self, image: Pictures | Clips, /, prompt: str | list[str] | None = None, **given: Any
    ) -> SelfCascadeOutput | tuple[Any, list[StageResult[PipelineSample]]]:
        """Enlarges an image or clip, with new detail in the same composition; it serves as the first pivot.

        Args:
            image: A picture, a list of pictures of one size, or (B, 3, H, W) in [0, 1]. For a video model a clip: a
                list of frames, (F, H, W, 3) bytes, a list of such clips, or (B, F, 3, H, W) in [0, 1]. It is cropped at
                the centre to the target's ratio, with a warning, and enlarged in RGB for the first stage.
            prompt: What the image shows; None is the empty prompt, unless `prompt_embeds` are given.
            height, width: Target size in pixels. If only one is given, the other follows from the image's ratio; if
                neither is, the image's sides are doubled.
            scale, pixels: Instead of height and width, a factor for the image's sides or for its number of pixels.
            Other arguments: see `__call__`.

        Raises:
            ValueError: An argument is out of range, or the target has fewer pixels than the image.
        """
        options, arguments = read_call(self.family, "upscale", given)
        clip, picture = cast("Clips", image), cast("Pictures", image)
        pixels = clips_of(clip).transpose(1, 2) if self.family.video else pixels_of(picture)
        if self.family.video:
            check_length(arguments, pixels.shape[2])
            arguments["num_frames"] = pixels.shape[2]
        own = Size(*pixels.shape[-2:])
        target = enlarged_size(own, self.multiple, options)
        sizes, before = sizes_from(own, target, self.native_size, self.multiple)
        stages = self._stages(sizes, 0, options)
        embedded = any(name.startswith("prompt_embeds") for name in arguments)
        words = prompt or "" if prompt is not None or not embedded else None
        request = Request(words, options.generator, options.output_type, arguments)
        request = request.for_pictures(len(pixels), self.family.video)
        check_values(self.pipe, request, stages)
        base = self._base(request, options, stages)
        given_too = (sizes[0], before, self._tuned(options), base.settings.upscaler)
        pivot = functools.partial(image_pivot, self.family, request, pixels, *given_too)
        return self._run(base, stages, pivot, options)

    def prepared(self, prompt: str | list[str] | None, given: Mapping[str, Any]) -> Prepared:
        """A call with these keywords, checked as far as possible, up to its first step."""
        options, arguments = read_call(self.family, "__call__", given)
        stages = self._plan(options)
        request = Request(prompt, options.generator, options.output_type, arguments)
        pivot = cast("Tensor", options.pivot)
        after, request = taken_up(pivot, stages, request, self.family)
        check_values(self.pipe, request, after)
        base = self._base(request, options, stages)
        check_has_pivot(options, stages)
        start = None if options.pivot is None else lambda: base.resume(pivot, stages[0])
        return base, after, start, options

    def _base(self, request: Request, options: Options, stages: Sequence[Stage]) -> PipelineBaseModel:
        preset, scale = self.chosen_preset(options), 1.0 if options.upsampler_scale is None else options.upsampler_scale
        shared_noise = options.shared_noise or 0.0
        check_call(request, scale, tuned=self.upsamplers is not None)
        check_clips(self.family, request.arguments.get("num_frames"), shared_noise)
        attention = attention_of(self.family, preset.attention, asked=options.attention is not None)
        upscaler = upscaler_of(self.family, request, options)
        settings = PivotSettings(preset.upsampling, preset.anchor, preset.energy, shared_noise, attention, upscaler)
        contexts, measures = self._contexts(options, scale, attention), self._measures(request, options, stages)
        if measures != WHOLE:
            contexts.append(functools.partial(saving, self.family, measures, request.prompts * request.copies))
        return PipelineBaseModel(self.family, request, settings, contexts, measures)

    def _measures(self, request: Request, options: Options, stages: Sequence[Stage]) -> Saving:
        """In which parts the call is done, so that it fits into its `max_memory`."""
        arguments = {**request.arguments, "prompt": request.prompt}
        return fitted(self, stages, options, request.prompts, arguments, self._tuned(options))

    def _tuned(self, options: Options) -> bool:
        return self.upsamplers is not None and options.upsampler_scale != 0

    def _contexts(self, options: Options, upsampler_scale: float, attention: str) -> list[StageContext]:
        """Contexts that change the denoiser during a stage; each is made from the stage and its pivot."""
        contexts: list[StageContext] = []
        if self.upsamplers is not None and self._tuned(options):
            unet = self.family.denoiser
            check_hookable(unet)
            upsamplers = self.upsamplers
            torch.nn.Module.to(upsamplers, self.pipe._execution_device)

            def tuned(stage: Stage, pivot: Tensor | None) -> contextlib.AbstractContextManager[None]:
                if pivot is None:
                    return contextlib.nullcontext()
                return adding_skip_features(unet, upsamplers, pivot, scale=upsampler_scale)

            contexts.append(tuned)
        if attention == "local":  # after the upsamplers, whose pass on the pivot then precedes each step of the stage
            contexts.append(functools.partial(attending_locally, self.family, Size(*self.native_size)))
        return contexts

    def _run(
        self,
        base: PipelineBaseModel,
        stages: Sequence[Stage],
        pivot: Callable[[], PipelineSample] | None,
        options: Options,
    ) -> SelfCascadeOutput | tuple[Any, list[StageResult[PipelineSample]]]:
        warn_of_negative_prompt(self.chosen_preset(options), options, base.request, stages)
        vae, side, offload = self.family.vae, base.measures.tile, base.measures.offload
        placed = one_model_at_a_time(self.pipe, offload)
        tiled = tiling(vae, in_tiles(vae, options.vae_tiling, stages[-1].size.area))
        with placed, tiled, tiles(vae, side), checking_pixels(self.family), torch.no_grad():
            stages = base.with_steps(stages, options.pivot_chosen_by)
            results = list(self_cascade(base, stages, None if pivot is None else pivot()))
            last = results[-1].sample
            chunk = base.arguments.get("decode_chunk_size")
            decoded = last.decoded or decode_latents(self.family, last.latents, base.request.output_type, chunk)
        if not options.return_dict:
            return decoded.pictures, results
        images, frames = (None, decoded.pictures) if self.family.video else (decoded.pictures, None)
        settings = None if stages[-1].pivot_step is None else base.settings
        return SelfCascadeOutput(images, frames, results, last.interrupted, decoded.flagged, settings, base.measures)
