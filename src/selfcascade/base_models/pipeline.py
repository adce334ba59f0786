"""The base model behind one call of the cascade: the user's pipeline, its prompt and its random generators."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.base_models.family import Family, denoiser, full_precision_vae
from selfcascade.base_models.frames import frames_at_once, joined, mixed_noise, over_frames
from selfcascade.base_models.levers import Anchor, Levers, restored
from selfcascade.base_models.remembering import remembering
from selfcascade.base_models.resizing import as_floats, cropped, lanczos
from selfcascade.base_models.stage_scheduler import ScheduleKnown, add_noise_at_start, stage_scheduler
from selfcascade.cascade import Size, Stage

UPSAMPLINGS = ("latent-bilinear", "latent-bicubic", "rgb")
WORDS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "prompt_3", "negative_prompt_3")
ABSENT = object()


class PipelineBaseModel:
    """Drives an untouched diffusers pipeline as the algorithm's `BaseModel`.

    Args:
        pipe: Any pipeline of a supported family. During a stage it holds a stage scheduler and a prompt encoder that
            remembers; both are taken out again, after an exception too.
        family: Its family.
        arguments: Keyword arguments of every call (prompt, negative prompt, adapters, callbacks, ...).
        upsampling: phi: "latent-bilinear" (the paper), "latent-bicubic", or "rgb" (decode, Lanczos, encode).
        output_type: What the last stage's call returns.
        tuned: Makes a context from the pivot's clean latents, in which the denoiser sees its skip features; None for
            the tuning-free version.
        shared_noise: The share of the renoise variance that all frames of a clip have in common.
        levers: How far stages are held to their pivots.

    Attributes:
        made: What the last stage made in the asked output type, and what the safety checker says of it; None before.
    """

    def __init__(
        self,
        pipe: Any,
        family: Family,
        arguments: dict[str, Any],
        upsampling: str,
        output_type: str,
        tuned: Callable[[Tensor], contextlib.AbstractContextManager[None]] | None = None,
        shared_noise: float = 0.0,
        levers: Levers | None = None,
    ) -> None:
        self.pipe, self.family, self.upsampling, self.output_type = pipe, family, upsampling, output_type
        accepted = inspect.signature(pipe.__call__).parameters
        fixed = {name: value for name, value in family.fixed_arguments.items() if name in accepted}
        self.arguments = {**fixed, **arguments}
        self.encode_prompt = remembering(pipe.encode_prompt) if hasattr(pipe, "encode_prompt") else None
        self.scheduler: Any = None
        self.made: tuple[Any, list[bool] | None] | None = None
        self.base_mu = 0.0
        self.tuned, self.shared_noise, self.levers = tuned, shared_noise, levers or Levers()
        self.image_pivot: Tensor | None = None
        self.image_band: Size | None = None
        self.enlarged: Tensor | None = None

    @property
    def steps(self) -> int:
        """Denoising steps of the last call."""
        return self.scheduler.steps_run

    @property
    def interrupted(self) -> bool:
        """Whether the last call was interrupted (`pipe._interrupt`, as diffusers has it)."""
        return bool(getattr(self.pipe, "_interrupt", False))

    def sample(self, stage: Stage) -> Tensor:
        """The pipeline's own sample at the stage's size: (B, C, h, w) or (B, C, F, h, w)."""
        self.scheduler = stage_scheduler(self.pipe.scheduler, None)
        latents = self._call(stage, None)
        self.base_mu = self.scheduler.mu
        return latents

    def take_up(self, pivot: Tensor, first: Stage) -> Tensor:
        """Latents of an earlier call as the pivot; learns what `sample` would have learnt of the schedule."""
        factor = self.family.factor(self.pipe)
        height, width = first.size.height // factor, first.size.width // factor
        self.scheduler = stage_scheduler(self.pipe.scheduler, None)
        self._find_schedule(first, pivot.new_zeros(*pivot.shape[:-2], height, width))
        self.base_mu = self.scheduler.mu
        return pivot.to(self.pipe._execution_device)

    def upsample(self, pivot: Tensor, size: Size) -> Tensor:
        """The pivot at the size's latents, each frame by itself; unchanged where it has that size already."""
        factor = self.family.factor(self.pipe)
        target = (size.height // factor, size.width // factor)
        if tuple(pivot.shape[-2:]) == target:
            return pivot
        return restored(self._enlarged(pivot, size, target), pivot, self.levers.energy)

    def _enlarged(self, pivot: Tensor, size: Size, target: tuple[int, int]) -> Tensor:
        if self.upsampling == "rgb":

            def enlarged(z: Tensor) -> Tensor:
                return self.family.encode(self.pipe, lanczos(self.family.decode(self.pipe, z), size)).to(pivot.dtype)

            return self._in_parts(enlarged, pivot, size)
        folded = pivot.transpose(1, 2).flatten(0, 1) if pivot.ndim == 5 else pivot  # (B F, C, h, w)
        mode = self.upsampling.removeprefix("latent-")
        larger = interpolate(folded.float(), size=target, mode=mode, align_corners=False).to(pivot.dtype)
        return larger.unflatten(0, (len(pivot), -1)).transpose(1, 2) if pivot.ndim == 5 else larger

    def renoise(self, z_0: Tensor, stage: Stage) -> Tensor:
        """z_K at the first scheduled step at or below K, with noise from the caller's generators."""
        self.scheduler = stage_scheduler(self.pipe.scheduler, stage.pivot_step, self.base_mu)
        self._find_schedule(stage, z_0)
        self.enlarged = z_0
        swapped, generator = self.family.frames_first, self.arguments.get("generator")
        shape = z_0.transpose(1, 2).shape if swapped else z_0.shape  # as the pipeline draws its own
        noise = randn_tensor(shape, generator, z_0.device, z_0.dtype)
        noise = noise.transpose(1, 2) if swapped else noise
        if self.shared_noise > 0:
            one_frame = randn_tensor((*z_0.shape[:2], 1, *z_0.shape[3:]), generator, z_0.device, z_0.dtype)
            noise = mixed_noise(noise, one_frame, self.shared_noise)
        return add_noise_at_start(self.scheduler, z_0, noise).to(z_0.dtype)

    def denoise(self, z_K: Tensor, stage: Stage, pivot: Tensor) -> Tensor:
        """The pipeline run over the tail of the schedule, from the given latents."""
        if stage.index == 0 and self.image_pivot is not None:
            pivot = self.image_pivot
        if self.levers.anchor > 0:
            self.scheduler.anchor = self._anchor(stage, pivot)
        with self.tuned(pivot) if self.tuned is not None else contextlib.nullcontext():
            return self._call(stage, self.family.from_spatial(self.pipe, z_K))

    def _anchor(self, stage: Stage, pivot: Tensor) -> Anchor:
        """Holds the stage's predicted x_0 to the enlarged pivot, below the size that the pivot had."""
        enlarged, pipe, family = self.enlarged, self.pipe, self.family
        assert enlarged is not None
        height, width = pivot.shape[-2:]
        if stage.index == 0 and self.image_band is not None:
            height, width = (side // family.factor(pipe) for side in self.image_band)

        def to_spatial(latents: Tensor) -> Tensor:
            return family.to_spatial(pipe, family.from_step(pipe, latents, len(enlarged)), stage.size)

        return Anchor(enlarged, height, width, self.levers.anchor, to_spatial, functools.partial(family.to_step, pipe))

    def encode_image(self, pixels: Tensor, size: Size, pivot_size: Size) -> Tensor:
        """The first pivot from a user's picture or clip: cropped at the centre to the size's ratio, resized, encoded.

        Args:
            pixels: (B, 3, H, W) or (B, 3, F, H, W), bytes or in [0, 1]; bytes are made floats part by part.
            size: Of the first stage.
            pivot_size: Of the stage before it, had there been one; tuned, the pivot's features are read at that size.

        Raises:
            ValueError: There are as many pictures as neither one nor the prompts, or as many generators as neither one
                nor the results.
        """
        prompt, embeds, generator = (self.arguments.get(name) for name in ("prompt", "prompt_embeds", "generator"))
        copies = self.arguments.get("num_images_per_prompt", 1)
        kind, things = ("clip", "clips") if self.family.video else ("image", "pictures")
        prompts = len(prompt) if isinstance(prompt, list) else 1 if embeds is None else len(embeds)
        if prompts == 1 and len(pixels) > 1 and isinstance(prompt, (str, list)):
            prompts = len(pixels)
            for name in WORDS:  # pipelines want as many of each, or none
                words = self.arguments.get(name)
                if isinstance(words, str) or (isinstance(words, list) and len(words) == 1):
                    self.arguments[name] = [words if isinstance(words, str) else words[0]] * prompts
        if len(pixels) not in (1, prompts):
            raise ValueError(
                f"{kind} has {len(pixels)} {things}, and there are {prompts} prompts; give one, or as many"
            )
        if isinstance(generator, list) and len(generator) != prompts * copies:
            raise ValueError(f"generator has {len(generator)} entries, and there are {prompts * copies} results")

        def latents(size: Size) -> Tensor:
            def encoded(part: Tensor) -> Tensor:
                resized = lanczos(as_floats(cropped(part, size)), size).clamp(0, 1) * 2 - 1
                return self.family.encode(self.pipe, resized.to(self.pipe._execution_device))

            z_0 = self._in_parts(encoded, pixels, size)
            return torch.cat([z_0] * (prompts // len(pixels))).repeat_interleave(copies, 0)

        self.image_band = pivot_size
        if self.tuned is not None:
            self.image_pivot = latents(pivot_size)
        return latents(size)

    def postprocess(self, latents: Tensor) -> tuple[Any, list[bool] | None]:
        """Latents of any stage in the asked output type, and what the pipeline's safety checker says."""
        if self.output_type == "latent":
            return latents, None
        if self.family.framewise:
            return self._decoded_frames(latents), None
        pixels = self.family.decode(self.pipe, latents).float()
        if self.family.video:
            return self.pipe.video_processor.postprocess_video(pixels, output_type=self.output_type), None
        flagged = [False] * len(pixels)
        if getattr(self.pipe, "safety_checker", None) is not None:
            pixels, flagged = self.pipe.run_safety_checker(pixels, pixels.device, denoiser(self.pipe).dtype)
        shown = [not flag for flag in flagged]  # a flagged picture comes back black already
        shown = self.pipe.image_processor.postprocess(pixels, output_type=self.output_type, do_denormalize=shown)
        return shown, flagged if getattr(self.pipe, "safety_checker", None) is not None else None

    def _decoded_frames(self, z: Tensor) -> Any:
        """The pipeline's own decoding of clips, a few frames at a time up to the asked output type."""
        factor, chunk = self.family.factor(self.pipe), self.arguments.get("decode_chunk_size")
        size = Size(z.shape[-2] * factor, z.shape[-1] * factor)
        count = frames_at_once(len(z), size) if chunk is None else max(1, chunk // len(z))
        asked = {} if chunk is None else {"decode_chunk_size": chunk}
        frames = z.shape[2]
        # Pipelines that decode in float32 where their VAE asks for it have this method.
        upcasts = hasattr(self.pipe, "upcast_vae")
        with full_precision_vae(self.pipe) if upcasts else contextlib.nullcontext(self.pipe.vae) as vae:

            def shown(start: int) -> Any:
                pixels = self.pipe.decode_latents(z[:, :, start : start + count].to(vae.dtype), **asked)
                return self.pipe.video_processor.postprocess_video(pixels, output_type=self.output_type)

            made = joined((shown(start) for start in range(0, frames, count)), frames, axis=1)
        self.pipe.maybe_free_model_hooks()
        return made

    def _in_parts(self, function: Callable[[Tensor], Tensor], clip: Tensor, size: Size) -> Tensor:
        """`function(clip)`, a few frames at a time where the VAE knows single pictures only."""
        return over_frames(function, clip, frames_at_once(len(clip), size)) if self.family.framewise else function(clip)

    def _find_schedule(self, stage: Stage, z_0: Tensor) -> None:
        # Only the pipeline knows which sigmas and shift it asks for at this size, so it is asked, and stopped there.
        self.scheduler.probing = True
        with self._borrowed(stage), contextlib.suppress(ScheduleKnown):
            latents = self.family.from_spatial(self.pipe, z_0)
            self.pipe(**self._stage_arguments(stage), latents=latents, output_type="latent")
        self.scheduler.probing = False

    def _call(self, stage: Stage, latents: Tensor | None) -> Tensor:
        final = stage.is_last and self.output_type != "latent"
        extra = {} if latents is None else {"latents": latents}
        at_once = final and not self.family.framewise
        with self._borrowed(stage):
            output_type = self.output_type if at_once else "latent"
            output = self.pipe(**self._stage_arguments(stage), **extra, output_type=output_type)
        result = getattr(output, "frames" if self.family.video else "images")
        z_0 = self.family.to_spatial(self.pipe, self.scheduler.stage_latents if at_once else result, stage.size)
        if stage.is_last:
            decoded = final and not at_once
            flagged = getattr(output, "nsfw_content_detected", None)
            self.made = (self._decoded_frames(z_0), None) if decoded else (result, flagged)
        return z_0

    def _stage_arguments(self, stage: Stage) -> dict[str, Any]:
        arguments = {**self.arguments, "height": stage.size.height, "width": stage.size.width}
        arguments["num_inference_steps"] = stage.num_inference_steps
        if stage.guidance_scale is not None:
            arguments["guidance_scale"] = stage.guidance_scale
        callback = arguments.get("callback_on_step_end")
        if callback is not None:
            if hasattr(callback, "tensor_inputs"):  # diffusers' own callback objects say what they need
                arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
            arguments["callback_on_step_end"] = self._staged(callback, stage)
        return arguments

    def _staged(self, callback: Callable[..., dict], stage: Stage) -> Callable[..., dict]:
        def told_the_stage(pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict:
            outputs = callback(pipe, step, timestep, {**callback_kwargs, "stage": stage})
            self.scheduler.stage_latents = outputs.get("latents", self.scheduler.stage_latents)
            return outputs

        return told_the_stage

    @contextlib.contextmanager
    def _borrowed(self, stage: Stage) -> Iterator[None]:
        """Within it the pipeline has the stage's scheduler; afterwards it is as it was."""
        config = dict(getattr(self.pipe, "_progress_bar_config", {}))
        if stage.count > 1:
            config = {"desc": f"stage {stage.index} of {stage.count - 1}, {stage.size}", **config}
        changes = {"scheduler": self.scheduler, "_progress_bar_config": config}
        if self.encode_prompt is not None:
            changes["encode_prompt"] = self.encode_prompt
        if stage.pivot_step is not None and getattr(self.pipe, "_free_init_num_iters", None) is not None:
            changes["_free_init_num_iters"] = None  # it would start again from pure noise; the base stage has had it
        held = vars(self.pipe)
        before = {name: held.get(name, ABSENT) for name in changes}
        held.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is ABSENT:
                    held.pop(name, None)
                else:
                    held[name] = value
