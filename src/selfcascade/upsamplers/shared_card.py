"""Parts of a model card (the README.md beside shared weights): those for all kinds of weights, and for upsamplers."""

from __future__ import annotations

import re
from pathlib import Path

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE = "Licence: that of the base model and of the data, to be stated by whoever publishes these weights."


def front_matter(base_model: str) -> list[str]:
    """The lines that the Hub reads. They name the base model only if it is a Hub id."""
    on_hub = HUB_ID.fullmatch(base_model) and not Path(base_model).exists()
    return [
        "---",
        "library_name: diffusers",
        *([f"base_model: {base_model}"] if on_hub else []),
        "tags: [selfcascade, high-resolution]",
        "---",
    ]


def snippet(base_model: str, load: list[str], call: str, result: str = "images[0]", parts: str = "pipe") -> list[str]:
    """A fenced program that makes a picture with the weights.

    Args:
        base_model: Name, folder or Hub id for `load_model`.
        load: Lines that read the weights or put them on `pipe`.
        call: Arguments of the cascade's call, after the prompt.
        result: Expression for the picture in the output.
        parts: Arguments of `SelfCascade`.
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
    """The card with that line changed to read from another place."""
    return re.sub(re.escape(loading("@")).replace("@", '[^"]*'), lambda _: loading(place), card)


def upsamplers_card(place: str, base_model: str, settings: dict[str, object], weights: int) -> str:
    """The card of upsamplers, from their settings alone.

    Args:
        place: Hub id that they are loaded by.
        base_model: The model that they were made for.
        settings: Their config.
        weights: Number of parameters.
    """
    lines = [
        *front_matter(base_model),
        "",
        f"# Feature upsamplers for {base_model}",
        "",
        *snippet(base_model, [loading(place)], "scale=2", parts="pipe, upsamplers"),
        "",
        f"{weights:,} parameters of preset `{settings['preset']}`, trained for a K of {settings['pivot_step']} "
        f"and pivots enlarged by `{settings['upsampling']}`; sampled with preset `{settings['sampling_preset']}`.",
        "",
        LICENCE,
        "",
    ]
    return "\n".join(lines)
