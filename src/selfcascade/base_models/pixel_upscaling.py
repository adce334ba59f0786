"""Enlarges pictures with a super-resolution model that the user has: a network, a callable, or a diffusers pipeline.

Axis letters: B pictures or clips, F frames, H, W pixels; s is the model's own factor.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from selfcascade.base_models.frames import fold, unfold
from selfcascade.base_models.pixel_tiles import in_tiles
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.options.checks import OptionError, shown

MOST_TIMES = 3  # one after the other for one stage
STEPS = 25  # of a diffusion upscaler
NOISE_LEVEL = 20  # as StableDiffusionUpscalePipeline has it
ENOUGH = 0.95  # of a stage's side: what is missing is rounding, for which no model runs again
RANGE = (-0.5, 1.5)  # of a result; networks go a little beyond [0, 1]

Network = Callable[[Tensor], Tensor]


def check_upscaler(model: object, name: str | None = None) -> None:
    """Raises OptionError, with the name or else the class, if a model cannot enlarge pictures.

    Args:
        model: A callable. What spandrel loads says its channels and its scale; of others only the results tell.
        name: The name that it was given by.
    """
    found = f"of class {type(model).__name__}" if name is None else shown(name)
    if hasattr(model, "components") and not is_diffusion(model):
        words = "is a pipeline, but not a StableDiffusionUpscalePipeline"
        raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words)
    given = (getattr(model, "input_channels", 3), getattr(model, "output_channels", 3))
    if isinstance(model, type):
        found, words = model.__name__, "is a class; give an object of it"
    elif given != (3, 3) or getattr(model, "purpose", "SR") == "Inpainting":
        words = "is not a super-resolution model that makes pictures in RGB of pictures in RGB"
    elif getattr(model, "input_channels", None) is not None and not getattr(model, "scale", 0) > 1:
        words = f"has a scale of {getattr(model, 'scale', None)}, so it does not enlarge"
    else:
        return
    raise OptionError("{pivot_upscaler} {found} {words}", found=found, words=words)


def is_diffusion(model: object) -> bool:
    """Whether a model is a `StableDiffusionUpscalePipeline`, which reads a prompt and draws noise."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_upscale import StableDiffusionUpscalePipeline

    return isinstance(model, StableDiffusionUpscalePipeline)


@dataclass(frozen=True)
class PixelUpscaler:
    """Enlarges decoded pivots with a model, one picture or frame at a time, so that batches change no picture.

    Attributes:
        model: Maps pixels (1, 3, H, W) in [0, 1] to (1, 3, s H, s W), or a `StableDiffusionUpscalePipeline`.
        device: Where it runs; it is moved there when it is first used.
        request: The call's prompts and generators, for a diffusion upscaler.
    """

    model: object
    device: torch.device
    request: Request

    def check(self) -> None:
        """Raises OptionError if the model cannot be used for this call (`check_upscaler`)."""
        check_upscaler(self.model)
        if is_diffusion(self.model) and self.request.prompt is None:
            raise OptionError("{pivot_upscaler} of this class reads a prompt as text; give {prompt}, not embeddings")

    @torch.no_grad()
    def __call__(self, pixels: Tensor, size: Size) -> Tensor:
        """Pixels of this size in [0, 1] and in float32, on the device where they came from.

        The model runs while a picture is smaller than the size in a side, by more than rounding, and three times at
        most. Lanczos windows do the rest.

        Args:
            pixels: (B, 3, H, W) or (B, 3, F, H, W), in [0, 1].
            size: The size wanted.

        Raises:
            OptionError: The model's result is not larger in both sides by one factor, or not in [0, 1].
            FloatingPointError: It has values that are not finite.
        """
        pictures, results = fold(pixels) if pixels.ndim == 5 else pixels, len(pixels)
        made: list[Tensor] = []
        with _evaluating(self.model):
            for index in range(len(pictures)):
                network = self._network(index * results // len(pictures), results)
                made.append(_enlarged(network, pictures[index : index + 1].to(self.device), size))
        larger = torch.cat(made).to(pixels.device)
        return unfold(larger, results) if pixels.ndim == 5 else larger

    def _network(self, result: int, results: int) -> Network:
        """The model on its device, for a picture or frame of the result of this index."""
        model = cast("Any", self.model)
        if is_diffusion(model):
            if model._execution_device != self.device:  # an offloaded pipeline is there already, and cannot be moved
                model.to(self.device)
            return functools.partial(self._diffused, result=result, results=results)
        if hasattr(model, "to"):
            model.to(self.device)
        network, dtype = in_tiles(cast("Network", model)), _dtype_of(model)
        return lambda picture: network(picture.to(dtype))

    def _diffused(self, picture: Tensor, result: int, results: int) -> Tensor:
        """What a StableDiffusionUpscalePipeline makes of a picture, with the prompt and generator of its result."""
        model, words, generator = cast("Any", self.model), self.request.prompt, self.request.generator
        texts = words if isinstance(words, list) else [words]
        height, width = picture.shape[-2:]
        # The pipeline would shrink a picture to sides that its autoencoder takes.
        over = (-width % model.vae_scale_factor, -height % model.vae_scale_factor)
        padded = nn.functional.pad(picture, (0, over[0], 0, over[1]), mode="replicate")
        made: Tensor = model(
            prompt=texts[result * len(texts) // results],
            image=padded,
            num_inference_steps=STEPS,
            noise_level=min(NOISE_LEVEL, model.config.max_noise_level),
            generator=generator[result] if isinstance(generator, list) else generator,
            output_type="pt",
        ).images
        factor = made.shape[-1] // padded.shape[-1]
        return made[..., : height * factor, : width * factor]


def _enlarged(network: Network, picture: Tensor, size: Size) -> Tensor:
    picture = picture.float().clamp(0, 1)
    for _ in range(MOST_TIMES):
        if picture.shape[-2] >= ENOUGH * size.height and picture.shape[-1] >= ENOUGH * size.width:
            break
        larger = network(picture)
        _check_result(larger, picture)
        picture = larger.float()
    return lanczos(picture, size).clamp(0, 1)


def _dtype_of(model: object) -> torch.dtype:
    """Precision of a network's weights; float32 for a callable that does not say it."""
    own = getattr(model, "dtype", None)
    if own is None and isinstance(model, nn.Module):
        own = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)
    return own if isinstance(own, torch.dtype) else torch.float32


def _check_result(larger: object, picture: Tensor) -> None:
    height, width = picture.shape[-2:]
    shape = [*larger.shape] if isinstance(larger, Tensor) else []
    as_wanted = shape[:2] == [1, 3] and len(shape) == 4 and shape[2] > height and shape[3] > width
    # Up to a pixel, to which a factor like 1.5 is rounded.
    if not as_wanted or abs(shape[2] * width - shape[3] * height) > max(height, width):
        found = str(shape) if isinstance(larger, Tensor) else type(larger).__name__
        raise OptionError(
            "{pivot_upscaler} made {found} of [1, 3, {height}, {width}]; it must make both sides larger by one factor",
            found=found,
            height=height,
            width=width,
        )
    low, high = (float(value) for value in cast("Tensor", larger).aminmax())
    if not math.isfinite(low + high):
        raise FloatingPointError(f"pivot_upscaler made values that are not finite, in {cast('Tensor', larger).dtype}")
    if low < RANGE[0] or high > RANGE[1]:
        found = f"{low:.3g} to {high:.3g}"
        raise OptionError(
            "{pivot_upscaler} made values from {found}; they must be in [0, 1], as its input", found=found
        )


@contextlib.contextmanager
def _evaluating(model: object) -> Generator[None]:
    """A network in evaluation mode, in which it neither draws nor learns; afterwards each layer is as before."""
    network = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    training = [part for part in network.modules() if part.training] if isinstance(network, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
