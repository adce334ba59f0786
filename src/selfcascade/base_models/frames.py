"""Processes clips a few frames at a time, so that memory does not grow with their length.

Axis letters: B clips, C channels, F frames, h, w latent pixels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from torch import Tensor

from selfcascade.cascade import Size

# A VAE's largest activations are those of its output. So at most a megapixel of frames is processed at once, and never
# more frames than AnimateDiff's pipelines decode at once by default.
PIXELS_AT_ONCE = 1024 * 1024
FRAMES_AT_ONCE = 16


def frames_at_once(clips: int, size: Size) -> int:
    """Frames per clip to put through a frame-wise VAE together, for this many clips of this size in pixels."""
    return max(1, min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // size.area) // clips)


def over_frames(function: Callable[[Tensor], Tensor], clip: Tensor, count: int) -> Tensor:
    """`function(clip)`, computed `count` frames at a time; only the result and one part are kept in memory.

    Kernels split batches by their length, so the result differs from that of the whole clip in the last bits of
    float32: 1e-6 on pixels of the bundled VAE, a ten-thousandth of an 8-bit level.

    Args:
        function: Maps a clip to a clip, each frame by itself.
        clip: (B, C, F, h, w).
        count: Frames per part, at least 1.
    """
    frames = clip.shape[2]
    if count >= frames:
        return function(clip)
    parts = (function(clip[:, :, start : start + count]) for start in range(0, frames, count))
    return join_parts(parts, frames, axis=2)


def fold(z: Tensor) -> Tensor:
    """Folds frames into the batch: (B, C, F, h, w) to (B F, C, h, w)."""
    return z.transpose(1, 2).flatten(0, 1)


def unfold(z: Tensor, clips: int) -> Tensor:
    """The inverse of `fold`, for this many clips."""
    return z.reshape(clips, -1, *z.shape[1:]).transpose(1, 2)  # (B F, C, h, w) -> (B, C, F, h, w)


def join_parts(parts: Iterable[Any], frames: int, axis: int) -> Any:
    """Joins consecutive parts of clips as they come, so that no part is in memory twice.

    Args:
        parts: All tensors, all arrays, or all lists with a list of frames for each clip.
        frames: Number of frames in a whole clip.
        axis: Axis of the frames in tensors and arrays.
    """
    whole: Any = None
    start = 0
    for part in parts:
        if isinstance(part, list):
            clips = cast("list[list[Any]]", part)
            whole = clips if whole is None else [[*clip, *more] for clip, more in zip(whole, clips, strict=True)]
            continue
        if whole is None:
            shape = (*part.shape[:axis], frames, *part.shape[axis + 1 :])
            whole = part.new_empty(shape) if isinstance(part, Tensor) else np.empty(shape, part.dtype)
        end = start + part.shape[axis]
        whole[(slice(None),) * axis + (slice(start, end),)] = part
        start = end
    return whole
