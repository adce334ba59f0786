"""The arguments of one call for the pipeline, the same at every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

# Besides the prompt; pipelines take one for each prompt, or none.
WORDS = ("negative_prompt", "prompt_2", "negative_prompt_2", "prompt_3", "negative_prompt_3")

Words = str | list[str]
Generators = torch.Generator | list[torch.Generator]


@dataclass(frozen=True)
class Request:
    """A prompt, with the random generators, the output type and all other arguments for the pipeline.

    Attributes:
        prompt: One text or several; None if `arguments` has embeddings.
        generator: Source of all random numbers; a list has one for each picture.
        output_type: "pil", "np", "pt" or "latent".
        arguments: All other keywords, passed on unchanged: negative prompt, adapters, callbacks, ...
    """

    prompt: Words | None = None
    generator: Generators | None = None
    output_type: str = "pil"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        if isinstance(self.prompt, list):
            return len(self.prompt)
        # Some pipelines name their embeddings after the text encoder, such as Kandinsky 5.
        given = (value for name, value in self.arguments.items() if name.startswith("prompt_embeds"))
        embeds = next((value for value in given if value is not None), None)
        return 1 if self.prompt is not None or embeds is None else len(embeds)

    @property
    def copies(self) -> int:
        """Number of pictures or clips per prompt; some video pipelines use the keyword for images."""
        given = (self.arguments.get(name) for name in ("num_videos_per_prompt", "num_images_per_prompt"))
        return next((count for count in given if count is not None), 1)

    def cloned_generator(self) -> Generators | None:
        """Copies of the generators: they draw the same numbers without advancing the caller's."""
        if isinstance(self.generator, list):
            return [cloned(generator) for generator in self.generator]
        return None if self.generator is None else cloned(self.generator)

    def for_pictures(self, count: int, video: bool = False) -> Request:
        """The request, with its one prompt repeated for this many pictures or clips.

        Raises:
            ValueError: There are several pictures but not one per prompt, or several generators but not one per result.
        """
        asked = self
        if self.prompt is not None and self.prompts == 1 and count > 1:
            given = {name: self.arguments[name] for name in WORDS if self.arguments.get(name) is not None}
            words = {name: _repeated(value, count) for name, value in given.items()}
            asked = replace(self, prompt=_repeated(self.prompt, count), arguments={**self.arguments, **words})
        if count not in (1, asked.prompts):
            kind, things = ("clip", "clips") if video else ("image", "pictures")
            raise ValueError(
                f"{kind} has {count} {things}, and there are {asked.prompts} prompts; give one, or as many"
            )
        results = asked.prompts * asked.copies
        if isinstance(self.generator, list) and len(self.generator) != results:
            raise ValueError(f"generator has {len(self.generator)} entries, and there are {results} results")
        return asked

    def pipeline_arguments(self) -> dict[str, Any]:
        """Keyword arguments for the pipeline's call; None is left out, for the pipeline's own default."""
        named = {"prompt": self.prompt, "generator": self.generator}
        return {**self.arguments, **{name: value for name, value in named.items() if value is not None}}


def cloned(generator: torch.Generator) -> torch.Generator:
    """One that draws the same, without moving the caller's on."""
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def _repeated(words: Words, count: int) -> Words:
    """A list with one prompt repeated; several prompts are returned as they are."""
    if isinstance(words, list):
        return words * count if len(words) == 1 else words
    return [words] * count
