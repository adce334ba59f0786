"""What the studio hands to the page."""

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
        image: To choose it by.
        options: What it was made with.
        latents: z_0 of the base stage.
        generator_state: Of its source of random draws, after the base stage.
        entry: The stage in a record.
    """

    image: Image.Image
    options: Options
    latents: Any
    generator_state: Any
    entry: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What was made, and where it is.

    Attributes:
        stages: The picture, or a clip's first frame, of each finished stage, with its caption.
        path: The file, with its record beside it; None where the visitor stopped it.
    """

    made: Made
    stages: list[tuple[Image.Image, str]]
    path: Path | None


def decoded(cascade: SelfCascade, latents: Any) -> Image.Image:
    """The picture, or a clip's first frame, that latents of one sample are."""
    import torch

    from selfcascade.base_models.decoding import decode_latents

    with torch.no_grad():
        pictures = decode_latents(cascade.family, latents, "pil").pictures
    return pictures[0][0] if cascade.family.video else pictures[0]


def caption(entry: dict[str, Any]) -> str:
    """A stage of a record in words."""
    start = "" if entry["pivot_step"] is None else f"K = {entry['pivot_step']}, "
    return f"{entry['width']} x {entry['height']}, {start}{entry['seconds']:.1f} s"
