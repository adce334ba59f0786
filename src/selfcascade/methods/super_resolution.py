"""A second model: the base sample, then a diffusion super-resolver (the paper's row SD + SR)."""

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


class SuperResolution(Method):
    """The base sample through a `StableDiffusionUpscalePipeline`, which was trained for four times a side.

    It makes four times the base sample's side, or of a sample enlarged so far that this is enough; the result is
    brought to the size wanted with Lanczos windows.

    `weights` are a `StableDiffusionUpscalePipeline`, or its folder or Hub id; "bundled" is the bundled model's.
    `noise_level` is 20 unless given, the pipeline's default, or the most that it knows. The prompts, the negative
    prompt, the steps, the guidance and the generator are the super-resolver's too, as the base stage has them where
    there is one for each stage.
    """

    name = "sr"
    summary = "the base sample enlarged by a diffusion super-resolver, a second model"
    from_base = True
    takes = frozenset({"weights", "noise_level"})
    needs = frozenset({"weights"})

    def make(self, request: MethodRequest) -> SelfCascadeOutput:
        """One stage, the base sample's; "latent" gives the picture encoded again.

        Raises:
            ValueError: There is no super-resolver in the weights; the pipeline makes video; the prompt is not text,
                which is all that two models have in common; the pivot has no whole number of samples a prompt.
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
        image = base.clamp(-1, 1)
        image = image if enough == small else lanczos(image, enough).clamp(-1, 1)
        noise_level = request.arguments.get("noise_level", min(20, resolver.config.max_noise_level))
        given |= {"prompt": _one_each("prompt", prompt, len(base)), "image": image, "noise_level": noise_level}
        made = resolver(**given, output_type="pt").images
        return finish(cascade, output, lanczos(made * 2 - 1, target), request.arguments.get("output_type", "pil"))


def _resolver(request: MethodRequest) -> Any:
    """The super-resolver, loaded where it is named, on the base model's device and in its precision."""
    weights, pipe = request.arguments["weights"], request.pipe
    if not isinstance(weights, (str, Path)):
        return weights
    dtype = str(denoiser(pipe).dtype).removeprefix("torch.")
    return load_super_resolver(str(weights), str(pipe.device), dtype)


def _one_each(name: str, words: str | list[str], count: int) -> list[str]:
    """The words of each of `count` base samples; every prompt has equally many, one after the other."""
    words = [words] if isinstance(words, str) else words
    if not words or count % len(words):
        raise ValueError(f"{name} has {len(words)} entries, and there are {count} base samples; give as many, or one")
    return [text for text in words for _ in range(count // len(words))]
