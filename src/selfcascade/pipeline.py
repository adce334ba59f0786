"""`SelfCascade`: the algorithm on the user's own diffusers pipeline."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfcascade.arguments import (
    check_call,
    check_clips,
    default_preset,
    planned,
    sizes_from,
    target_size,
    trained_preset,
    with_changes,
)
from selfcascade.base_models import family_of
from selfcascade.base_models.decoding import decode_latents
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample, StageContext
from selfcascade.base_models.family import Family, vae_tiling
from selfcascade.base_models.finite import checking_pixels
from selfcascade.base_models.given_pivot import taken_up
from selfcascade.base_models.image_pivot import image_pivot
from selfcascade.base_models.pivot_controls import PivotSettings, check_anchorable
from selfcascade.base_models.protocols import Pipeline
from selfcascade.base_models.request import Request
from selfcascade.base_models.stage_scheduler import stage_scheduler
from selfcascade.cascade import Size, Stage, StageResult, plan_stages, self_cascade
from selfcascade.media.images import clips_of, pixels_of
from selfcascade.presets import Preset, defaults_of, preset_named
from selfcascade.upsamplers.model import FeatureUpsamplers
from selfcascade.upsamplers.skip_features import adding_skip_features, check_hookable

# From here on a decoded picture alone takes gigabytes inside a VAE, so it is decoded in tiles unless told otherwise.
TILING_AREA = 2048 * 2048


@dataclass
class SelfCascadeOutput:
    """What a cascade made.

    Attributes:
        images: Pictures in the asked `output_type`; None for video.
        frames: Clips in the asked `output_type`; None for pictures.
        stages: What each stage did: size, pivot_step, steps, seconds, latents.
        interrupted: Whether the caller stopped it; the pictures are then those of the last stage that ran.
        nsfw_content_detected: As the pipeline reports it; None where it does not.
        pivot_settings: How pivots were enlarged and stages held to them; None where no stage had one.
    """

    images: Any
    frames: Any
    stages: list[StageResult[PipelineSample]]
    interrupted: bool = False
    nsfw_content_detected: list[bool] | None = None
    pivot_settings: PivotSettings | None = None


class SelfCascade:
    """A text-to-image or text-to-video pipeline that makes larger pictures than its model was trained for.

    The pipeline is used as it is, with its LoRAs, ControlNet, adapters, offloading and callbacks, and left as it was.

    Args:
        pipe: A diffusers pipeline of a supported family.
        upsamplers: Feature upsamplers made for this pipeline's U-Net, the tuned version; None, the tuning-free one.
        native_size: (height, width) in pixels the model was trained at; None: as its folder or the pipeline says.
        family: A subclass of `selfcascade.Family` for this pipeline; None takes the one registered for its class.

    Attributes:
        defaults: What the model's own `selfcascade.json` says of steps, guidance and preset (`presets.ModelDefaults`).

    Raises:
        ValueError: The pipeline, its scheduler or an argument is not supported; the sentence says what to use.
    """

    def __init__(
        self,
        pipe: Pipeline,
        upsamplers: FeatureUpsamplers | None = None,
        native_size: Sequence[int] | None = None,
        family: type[Family] | None = None,
    ) -> None:
        self.pipe, self.upsamplers, self.family = pipe, upsamplers, family_of(pipe, family)
        if isinstance(upsamplers, FeatureUpsamplers):
            check_hookable(self.family.denoiser)
            upsamplers.check_unet(self.family.denoiser)
        elif upsamplers is not None:
            raise ValueError(f"upsamplers must be FeatureUpsamplers or None, not {type(upsamplers).__name__}")
        stage_scheduler(pipe.scheduler, None)
        self.multiple, self.defaults = self.family.multiple, defaults_of(pipe)
        size = native_size if native_size is not None else self.defaults.native_size or self.family.native_size
        self.native_size = plan_stages(size, size, self.multiple)[0]

    def plan(
        self,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        preset: str | Preset | None = None,
        guidance_scale: float | Sequence[float] | None = None,
    ) -> tuple[Stage, ...]:
        """The stages of a call with these arguments; nothing runs.

        Args:
            height: Pixels; None is twice the native height.
            width: Pixels; None is twice the native width.
            num_inference_steps: Steps of the whole schedule, for all or one value a stage; None: the model's default.
            pivot_step: K, a training timestep in (0, T], for all up-scaling stages or one each; None: the preset's.
            preset: A name of `selfcascade.PRESETS`, or a `Preset`; None: `default_preset`, or the upsamplers' own.
            guidance_scale: For all stages or one value a stage; None is the model's default, or else the pipeline's.

        Raises:
            ValueError: An argument is out of range; the sentence names it.
        """
        target = target_size(self.native_size, self.multiple, height, width)
        sizes = plan_stages(self.native_size, target, self.multiple)
        return self._stages(sizes, 1, num_inference_steps, pivot_step, self.preset(preset), guidance_scale)

    def _stages(self, sizes: Sequence[Size], *settings: Any) -> tuple[Stage, ...]:
        self.family.check_size(sizes[-1])
        return planned(self.pipe.scheduler, self.native_size, self.defaults, sizes, *settings)

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        preset: str | Preset | None = None,
        upsampling: str | None = None,
        anchor: float | None = None,
        energy: float | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        vae_tiling: bool | None = None,
        upsampler_scale: float = 1.0,
        shared_noise: float = 0.0,
        pivot: Tensor | None = None,
        **arguments: Any,
    ) -> SelfCascadeOutput | tuple:
        """Pictures of the prompt at any size, stage by stage.

        Args:
            prompt: One or several; None where `prompt_embeds` are given.
            height, width, num_inference_steps, pivot_step, preset, guidance_scale: As in `plan`.
            upsampling: "latent-bilinear", "latent-bicubic" or "rgb"; None: the preset's.
            anchor: Share of a stage's steps, the first, whose low band is the pivot's, in [0, 1]; None: the preset's.
            energy: Strength in [0, 1] at which the enlarged pivot's high band gets its energy back; None: the preset's.
            generator: Source of every random draw; a list gives each picture its own.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: False returns the tuple (pictures, stages).
            vae_tiling: Whether the last stage is decoded in tiles; None: from 2048 x 2048 pixels on.
            upsampler_scale: Strength of the feature upsamplers; 0 is the tuning-free version, bit for bit.
            shared_noise: For video, the share in [0, 1] of the renoise variance that all frames have in common: 0, each
                frame has noise of its own; 1, all have the same (`base_models.frames.mixed_noise`). The base stage
                starts from no pivot, so its noise is always the pipeline's own.
            pivot: z_0 of an earlier call's stage, `out.stages[r].latents`: that stage and those before are not run
                again. So a base sample can be chosen first, and enlarged afterwards.
            arguments: Passed to the pipeline as they are, at every stage. `callback_on_step_end` finds the `Stage`
                under "stage" in its keyword arguments.

        Raises:
            ValueError: An argument is out of range; the sentence names it.
        """
        stages = self.plan(height, width, num_inference_steps, pivot_step, preset, guidance_scale)
        request = Request(prompt, generator, output_type, arguments)
        chosen = with_changes(self.preset(preset), upsampling=upsampling, anchor=anchor, energy=energy)
        after, request = taken_up(pivot, stages, request, self.family)
        base = self._base(request, chosen, upsampler_scale, shared_noise)
        if shared_noise and stages[-1].pivot_step is None:
            raise ValueError(f"shared_noise, here {shared_noise}, is for stages above the base, and there is none")
        start = None if pivot is None else lambda: base.resume(pivot, stages[0])
        return self._run(base, after, start, vae_tiling, return_dict)

    def upscale(
        self,
        image: Any,
        /,
        prompt: str | list[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | Sequence[int] | None = None,
        pivot_step: int | Sequence[int] | None = None,
        preset: str | Preset | None = None,
        upsampling: str | None = None,
        anchor: float | None = None,
        energy: float | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        vae_tiling: bool | None = None,
        upsampler_scale: float = 1.0,
        shared_noise: float = 0.0,
        **arguments: Any,
    ) -> SelfCascadeOutput | tuple:
        """The user's own image or clip as the first pivot: larger, with new detail, in the same composition.

        Args:
            image: A picture, a list of pictures of one size, or (B, 3, H, W) in [0, 1]. For a video model a clip: its
                frames in a list, (F, H, W, 3) bytes, a list of such clips, or (B, F, 3, H, W) in [0, 1]. It is cropped
                at the centre to the target's ratio and enlarged in RGB for the first stage.
            prompt: What the image shows; None is the empty prompt, unless `prompt_embeds` are given.
            height, width: Pixels; None is twice the image's.
            The others: as in `__call__`.

        Raises:
            ValueError: An argument is out of range, or the target has fewer pixels than the image.
        """
        pixels = clips_of(image).transpose(1, 2) if self.family.video else pixels_of(image)
        if self.family.video:
            frames = arguments.setdefault("num_frames", pixels.shape[2])
            if frames != pixels.shape[2]:
                raise ValueError(f"num_frames is the clip's, {pixels.shape[2]}, not {frames!r}; leave it out")
            if arguments.get("num_videos_per_prompt", 1) != 1:  # some pipelines take it, and others pass over it
                words = "cannot be given with a clip; give a list with the clip in it twice"
                raise ValueError(f"num_videos_per_prompt {words}")
        own = Size(*pixels.shape[-2:])
        doubled = (self.multiple * max(1, round(2 * side / self.multiple)) for side in own)
        given = zip((height, width), doubled, strict=True)
        wanted = (default if side is None else side for side, default in given)
        target = target_size(self.native_size, self.multiple, *wanted)
        sizes, before = sizes_from(own, target, self.native_size, self.multiple)
        chosen = with_changes(self.preset(preset), upsampling=upsampling, anchor=anchor, energy=energy)
        stages = self._stages(sizes, 0, num_inference_steps, pivot_step, chosen, guidance_scale)
        words = prompt or "" if prompt is not None or "prompt_embeds" not in arguments else None
        request = Request(words, generator, output_type, arguments).for_pictures(len(pixels), self.family.video)
        base = self._base(request, chosen, upsampler_scale, shared_noise)
        pivot = functools.partial(image_pivot, self.family, request, pixels, sizes[0], before, bool(base.contexts))
        return self._run(base, stages, pivot, vae_tiling, return_dict)

    def _base(self, request: Request, preset: Preset, scale: float, shared_noise: float) -> PipelineBaseModel:
        check_call(request, preset.upsampling, scale, tuned=self.upsamplers is not None)
        check_clips(self.family, request.arguments.get("num_frames"), shared_noise)
        if preset.anchor > 0:
            check_anchorable(self.pipe.scheduler)
        settings = PivotSettings(preset.upsampling, preset.anchor, preset.energy, shared_noise)
        return PipelineBaseModel(self.family, request, settings, self._contexts(scale))

    def _contexts(self, upsampler_scale: float) -> list[StageContext]:
        """What changes the denoiser for the length of a stage; each is made anew from the stage and its pivot."""
        contexts: list[StageContext] = []
        if self.upsamplers is not None and upsampler_scale != 0:
            unet = self.family.denoiser
            check_hookable(unet)
            upsamplers = self.upsamplers.to(self.pipe._execution_device)

            def tuned(stage: Stage, pivot: Tensor | None) -> contextlib.AbstractContextManager[None]:
                if pivot is None:
                    return contextlib.nullcontext()
                return adding_skip_features(unet, upsamplers, pivot, scale=upsampler_scale)

            contexts.append(tuned)
        return contexts

    @property
    def default_preset(self) -> str:
        """Name of the preset of a call that names none: the model's own, or "quality"; "rgb" where it cannot anchor."""
        return default_preset(self.defaults, self.pipe.scheduler)

    def preset(self, name: str | Preset | None = None) -> Preset:
        """The settings of this name; None: those that the upsamplers were trained for, or `default_preset`."""
        if name is None and self.upsamplers is not None:
            return trained_preset(self.upsamplers.config, self.pipe.scheduler)
        return preset_named(self.default_preset if name is None else name)

    def _run(
        self,
        base: PipelineBaseModel,
        stages: Sequence[Stage],
        pivot: Callable[[], PipelineSample] | None,
        tiling: bool | None,
        named: bool,
    ) -> SelfCascadeOutput | tuple:
        tiled = stages[-1].size.area >= TILING_AREA if tiling is None else tiling
        with vae_tiling(self.pipe, tiled), checking_pixels(self.pipe), torch.no_grad():
            base.check_schedules(stages)
            results = list(self_cascade(base, stages, None if pivot is None else pivot()))
            last = results[-1].sample
            chunk = base.arguments.get("decode_chunk_size")
            decoded = last.decoded or decode_latents(self.family, last.latents, base.request.output_type, chunk)
        if not named:
            return decoded.pictures, results
        images, frames = (None, decoded.pictures) if self.family.video else (decoded.pictures, None)
        settings = None if stages[-1].pivot_step is None else base.settings
        return SelfCascadeOutput(images, frames, results, last.interrupted, decoded.flagged, settings)
