"""Writes the first pictures or clips of a result side by side into a file next to it, for the report.

Axis letters: N pictures or clips, F frames, H, W pixels.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from selfcascade.evaluation import PromptSet
from selfcascade.media.save_clips import write_webp
from selfcascade.media.save_pictures import WEBP_SIDE
from selfcascade.media.whole_files import write_whole

PICTURES, CLIPS = 12, 5
QUALITY = 85
# Clips have many frames, so they are kept small: at most this many bytes each, at the best of these qualities.
CLIP_SIDE, CLIP_BYTES, CLIP_QUALITIES = 128, 20_000, (65, 50, 35, 20, 5)


def write_sheet(path: Path, made: Tensor, prompts: PromptSet, fps: float) -> None:
    """Writes a WebP, animated for clips, and a text file with one caption per line.

    Args:
        path: Path of the WebP.
        made: Pictures (N, 3, H, W), or clips (N, F, 3, H, W), in [0, 1].
        prompts: The prompts of the samples.
        fps: Frame rate of the clips.
    """
    if prompts.frames is None:
        shown = _within(made[:PICTURES])
        sheet = _images(torch.cat(list(shown), -1)[None])[0]
        write_whole(path, lambda aside: sheet.save(aside, format="WEBP", quality=QUALITY, method=6))
    else:
        shown = _small(made[:CLIPS])
        encoded = _encoded(_images(torch.cat(list(shown), -1)), fps, len(shown) * CLIP_BYTES)
        write_whole(path, lambda aside: aside.write_bytes(encoded))
    captions = [" ".join(caption.split()) for caption in prompts.captions(range(len(shown)))]
    write_whole(path.with_suffix(".txt"), lambda aside: aside.write_text("\n".join(captions) + "\n"))


def _encoded(frames: list[Image.Image], fps: float, most: int) -> bytes:
    for quality in CLIP_QUALITIES:
        held = io.BytesIO()
        write_webp(frames, fps, held, quality=quality)
        if held.tell() <= most:
            break
    return held.getvalue()


def _small(clips: Tensor) -> Tensor:
    height, width = clips.shape[-2:]
    scale = min(1.0, CLIP_SIDE / min(height, width))
    size = (round(scale * height), round(scale * width))
    return interpolate(clips.flatten(0, 1), size=size, mode="area").unflatten(0, clips.shape[:2])


def _within(pictures: Tensor) -> Tensor:
    """The pictures, smaller if they would not fit into a WebP side by side."""
    height, width = pictures.shape[-2:]
    scale = min(1.0, WEBP_SIDE / height, WEBP_SIDE // len(pictures) / width)
    size = int(scale * height), int(scale * width)
    return pictures if scale == 1 else interpolate(pictures, size=size, mode="area")


def _images(pixels: Tensor) -> list[Image.Image]:
    """Frames (F, 3, H, W) in [0, 1] as pictures."""
    return [Image.fromarray(one) for one in pixels.permute(0, 2, 3, 1).mul(255).round().byte().numpy()]
