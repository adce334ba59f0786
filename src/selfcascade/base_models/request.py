"""What one call of the cascade asks of the pipeline, the same at every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

# Beside the prompt; pipelines want as many of each, or none.
WORDS = ("negative_prompt", "prompt_2", "negative_prompt_2", "prompt_3", "negative_prompt_3")

Words = str | list[str]
Generators = torch.Generator | list[torch.Generator]


@dataclass(frozen=True)
class Request:
    """A prompt, and how its pictures are to be drawn and given out.

    Attributes:
        prompt: One or several; None where `arguments` hold embeddings.
        generator: Source of every random draw; a list has one for each picture.
        output_type: "pil", "np", "pt" or "latent".
        arguments: Everything else for the pipeline, passed on as it is: negative prompt, adapters, callbacks, ...
    """

    prompt: Words | None = None
    generator: Generators | None = None
    output_type: str = "pil"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        if isinstance(self.prompt, list):
            return len(self.prompt)
        # Some pipelines name their embeddings after what made them, as Kandinsky 5 does.
        given = (value for name, value in self.arguments.items() if name.startswith("prompt_embeds"))
        embeds = next((value for value in given if value is not None), None)
        return 1 if self.prompt is not None or embeds is None else len(embeds)

    @property
    def copies(self) -> int:
        """How many pictures or clips each prompt gets; some pipelines of clips speak of images here."""
        given = (self.arguments.get(name) for name in ("num_videos_per_prompt", "num_images_per_prompt"))
        return next((count for count in given if count is not None), 1)

    def cloned_generator(self) -> Generators | None:
        """Generators that draw the same without moving the caller's on."""
        if isinstance(self.generator, list):
            return [_clone(generator) for generator in self.generator]
        return None if self.generator is None else _clone(self.generator)

    def for_pictures(self, count: int, video: bool = False) -> Request:
        """The request with a prompt for each of this many pictures or clips, where it has only one.

        Raises:
            ValueError: There are as many pictures as neither one nor the prompts, or as many generators as neither one
                nor the results.
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
        """Keyword arguments of the pipeline's call; what is None is left out, for the pipeline's own default."""
        named = {"prompt": self.prompt, "generator": self.generator}
        return {**self.arguments, **{name: value for name, value in named.items() if value is not None}}


def _clone(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def _repeated(words: Words, count: int) -> Words:
    """One prompt as many times; several as they are."""
    if isinstance(words, list):
        return words * count if len(words) == 1 else words
    return [words] * count
