"""Results that the studio returns to the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.making import Made
from selfcascade.options import Options

if TYPE_CHECKING:
    from PIL import Image

    from selfcascade.pipeline import SelfCascade


@dataclass(frozen=True)
class BaseSample:
    """A base sample that can be enlarged.

    Attributes:
        image: Picture of the sample.
        options: Options that made it.
        latents: z_0 of the base stage.
        generator_state: State of its random generator after the base stage.
        entry: The stage's entry for a record.
    """

    image: Image.Image
    options: Options
    latents: Any
    generator_state: Any
    entry: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The result of a request.

    Attributes:
        stages: Picture, or a clip's first frame, of each finished stage, with a caption.
        path: The saved file, with its record next to it; None if the visitor stopped it.
    """

    made: Made
    stages: list[tuple[Image.Image, str]]
    path: Path | None


def decoded(cascade: SelfCascade, latents: Any) -> Image.Image:
    """Decodes the latents of one sample to a picture, or to a clip's first frame."""
    import torch

    from selfcascade.base_models.decoding import decode_latents

    with torch.no_grad():
        pictures = decode_latents(cascade.family, latents, "pil").pictures
    return pictures[0][0] if cascade.family.video else pictures[0]


def caption(entry: dict[str, Any]) -> str:
    """A caption for a stage in a record; on a narrow page it breaks after its commas only."""
    start = "" if entry["pivot_step"] is None else f"K = {entry['pivot_step']}, "
    words = f"{entry['width']} x {entry['height']}, {start}{entry['seconds']:.1f} s"
    return words.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
