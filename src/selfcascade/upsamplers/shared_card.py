"""What a model card, the README.md beside shared weights, says for all kinds of weights alike, and for upsamplers."""

from __future__ import annotations

import re
from pathlib import Path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE = "Licence: that of the base model and of the data, to be stated by whoever publishes these weights."


def front_matter(base_model: str) -> list[str]:
    """The lines that the Hub reads; it takes its own ids alone for the base model."""
    on_hub = HUB_ID.fullmatch(base_model) and not Path(base_model).exists()
    return [
        "---",
        "library_name: diffusers",
        *([f"base_model: {base_model}"] if on_hub else []),
        "tags: [selfcascade, high-resolution]",
        "---",
    ]


def snippet(base_model: str, load: list[str], call: str, result: str = "images[0]", parts: str = "pipe") -> list[str]:
    """A program that makes a picture with the weights, as a fenced block.

    Args:
        base_model: As `load_model` takes it.
        load: The lines that put the weights on `pipe`, or read them.
        call: The arguments of a cascade's call, after the prompt.
        result: Where the picture is in its output.
        parts: What the cascade is made of.
    """
    return [
        "```python",
        "import selfcascade",
        "",
        f'pipe = selfcascade.load_model("{base_model}")',
        *load,
        f'out = selfcascade.SelfCascade({parts})("a lighthouse in a storm", {call})',
        f'out.{result}.save("lighthouse.png")',
        "```",
    ]


def loading(place: str) -> str:
    """The line that reads upsamplers from a folder or the Hub."""
    return f'upsamplers = selfcascade.FeatureUpsamplers.from_pretrained("{place}")'


def loading_from(card: str, place: str) -> str:
    """The card with that line reading from another place."""
    return re.sub(re.escape(loading("@")).replace("@", '[^"]*'), lambda _: loading(place), card)


def upsamplers_card(place: str, base_model: str, settings: dict[str, object], weights: int) -> str:
    """The card of upsamplers of which nothing is known beside their settings.

    Args:
        place: The Hub id that they are loaded by.
        base_model: The model that they were made for.
        settings: Their config.
        weights: How many numbers they have.
    """
    lines = [
        *front_matter(base_model),
        "",
        f"# Feature upsamplers for {base_model}",
        "",
        *snippet(base_model, [loading(place)], "scale=2", parts="pipe, upsamplers"),
        "",
        f"{weights:,} parameters of preset `{settings['preset']}`, trained for a K of {settings['pivot_step']} "
        f"and pivots enlarged by `{settings['upsampling']}`.",
        "",
        LICENCE,
        "",
    ]
    return "\n".join(lines)
