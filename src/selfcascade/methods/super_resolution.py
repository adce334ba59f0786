"""A second model: the base sample, then a diffusion super-resolver (the paper's row SD + SR)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from selfcascade.base_models.family import denoiser
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.direct import of_first_stage
from selfcascade.methods.enlargement import base_pixels, finish
from selfcascade.models import load_super_resolver
from selfcascade.pipeline import SelfCascade

FACTOR = 4
PASSED_ON = ("num_inference_steps", "guidance_scale", "generator")


class SuperResolution:
    """The base sample through a `StableDiffusionUpscalePipeline`, which was trained for four times a side."""

    name = "sr"
    from_base = True
    summary = "the base sample enlarged by a diffusion super-resolver, a second model"

    def __call__(
        self,
        pipe: Any,
        prompt: str | list[str],
        *,
        height: int,
        width: int,
        native_size: tuple[int, int] | None = None,
        output_type: str = "pil",
        pivot: Tensor | None = None,
        weights: Any = None,
        noise_level: int | None = None,
        **arguments: Any,
    ) -> Any:
        """A `SelfCascadeOutput` with one stage, the base sample's; "latent" gives the picture encoded again.

        It makes four times the base sample's side, or of a sample enlarged so far that this is enough; the result
        is brought to the size wanted with Lanczos windows.

        Args:
            pipe: The base model's pipeline.
            prompt: One or several; the super-resolver gets them too.
            height, width: Of the pictures, in pixels.
            native_size: As in `SelfCascade`.
            output_type: As in diffusers.
            pivot: The base sample's latents, where they are there already.
            weights: A `StableDiffusionUpscalePipeline`, or its folder, as text or path, or Hub id; "bundled" is the
                bundled model's.
            noise_level: Added to the base sample, in the super-resolver's own schedule; None is 20, the pipeline's
                default, or the most that it knows.
            arguments: Of the base model's pipeline; the negative prompt, the number of steps, the guidance scale and
                the generator are the super-resolver's too, as the base stage has them where there is one a stage.

        Raises:
            ValueError: There are no weights, or no super-resolver in them; the pipeline makes video; the prompt is no
                text, which is all that two models have in common; the pivot has no whole number of samples a prompt.
        """
        if weights is None:
            raise ValueError(f"method {self.name} needs weights: --weights DIR_OR_HUB_ID, or weights=")
        cascade = SelfCascade(pipe, native_size=native_size)
        if cascade.family.video:
            raise ValueError(f"method {self.name} enlarges pictures, and {type(pipe).__name__} makes video")
        if not isinstance(prompt, (str, list)):
            raise ValueError(f"method {self.name} needs prompt as text, which two models can read, not {prompt!r}")
        resolver = weights
        if isinstance(weights, (str, Path)):
            dtype = str(denoiser(pipe).dtype).removeprefix("torch.")
            resolver = load_super_resolver(str(weights), str(pipe.device), dtype)
        output, base = base_pixels(cascade, prompt, Size(height, width), pivot, arguments)
        small = Size(*base.shape[-2:])
        enough = Size(max(small.height, -(-height // FACTOR)), max(small.width, -(-width // FACTOR)))
        first = of_first_stage(arguments)
        given = {name: first[name] for name in PASSED_ON if first.get(name) is not None}
        if first.get("negative_prompt") is not None:
            given["negative_prompt"] = _one_each("negative_prompt", first["negative_prompt"], len(base))
        image = base.clamp(-1, 1)
        image = image if enough == small else lanczos(image, enough).clamp(-1, 1)
        noise_level = min(20, resolver.config.max_noise_level) if noise_level is None else noise_level
        given |= {"prompt": _one_each("prompt", prompt, len(base)), "image": image, "noise_level": noise_level}
        made = resolver(**given, output_type="pt").images
        return finish(cascade, output, lanczos(made * 2 - 1, Size(height, width)), output_type)


def _one_each(name: str, words: str | list[str], count: int) -> list[str]:
    """The words of each of so many base samples, of which each prompt has equally many, one after the other."""
    words = [words] if isinstance(words, str) else words
    if not words or count % len(words):
        raise ValueError(f"{name} has {len(words)} entries, and there are {count} base samples; give as many, or one")
    return [text for text in words for _ in range(count // len(words))]
