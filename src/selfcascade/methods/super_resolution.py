"""The base sample enlarged by a second model, a diffusion super-resolver (the paper's row SD + SR)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.direct import of_first_stage
from selfcascade.methods.enlargement import base_pixels, finish
from selfcascade.methods.method import Method, MethodRequest
from selfcascade.models import load_super_resolver
from selfcascade.pipeline.calls import SelfCascadeOutput

FACTOR = 4
PASSED_ON = ("num_inference_steps", "guidance_scale", "generator")


class SuperResolution(Method, options="sr"):
    """Enlarges the base sample with a `StableDiffusionUpscalePipeline`, which was trained for 4x a side.

    If 4x is too small for the target, the base sample is first enlarged. The result is resized to the target with
    Lanczos windows.

    `weights` is a `StableDiffusionUpscalePipeline`, or its folder or Hub id; "bundled" names the bundled one.
    `noise_level` is 20 by default, as in the pipeline, or the largest that it supports. The super-resolver also gets
    the base stage's prompts, negative prompts, steps, guidance and generator.
    """

    summary = "the base sample enlarged by a diffusion super-resolver, a second model"

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """One stage, the base sample; output type "latent" gives the enlarged picture, encoded again.

        Raises:
            ValueError: The weights are not a super-resolver's, the pipeline makes video, the prompt is not text (two
                models share no embeddings), or the pivot's samples are not a multiple of the prompts.
        """
        cascade, prompt, target = request.cascade, request.prompt, request.target
        if cascade.family.video:
            raise ValueError(f"method {self.name} enlarges pictures, and {type(cascade.pipe).__name__} makes video")
        if not isinstance(prompt, (str, list)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"method {self.name} needs prompt as text, which two models can read, not {prompt!r}")
        resolver = _resolver(request)
        arguments = request.without("output_type", "pivot", "weights", "noise_level")
        output, base = base_pixels(request, arguments)
        small = Size(*base.shape[-2:])
        enough = Size(max(small.height, -(-target.height // FACTOR)), max(small.width, -(-target.width // FACTOR)))
        first = of_first_stage(arguments)
        given = {name: first[name] for name in PASSED_ON if name in first}
        if "negative_prompt" in first:
            given["negative_prompt"] = _one_each("negative_prompt", first["negative_prompt"], len(base))
        image = base.clamp(-1, 1) / 2 + 0.5  # in [-1, 1] the pipeline takes pictures without dark pixels for [0, 1]
        image = image if enough == small else lanczos(image, enough).clamp(0, 1)
        noise_level = request.arguments.get("noise_level", min(20, resolver.config.max_noise_level))
        given |= {"prompt": _one_each("prompt", prompt, len(base)), "image": image, "noise_level": noise_level}
        made = resolver(**given, output_type="pt").images
        return finish(cascade, output, lanczos(made * 2 - 1, target), request.arguments.get("output_type", "pil"))


def _resolver(request: MethodRequest) -> Any:
    """The super-resolver, loaded if it is given by name, on the base model's device and in its precision."""
    weights, pipe = request.arguments["weights"], request.pipe
    if not isinstance(weights, (str, Path)):
        return weights
    dtype = str(denoiser(pipe).dtype).removeprefix("torch.")
    return load_super_resolver(str(weights), str(pipe.device), dtype)


def _one_each(name: str, words: str | list[str], count: int) -> list[str]:
    """The text of each of `count` base samples; each prompt has equally many, one after the other."""
    words = [words] if isinstance(words, str) else words
    if not words or count % len(words):
        raise ValueError(f"{name} has {len(words)} entries, and there are {count} base samples; give as many, or one")
    return [text for text in words for _ in range(count // len(words))]
