"""Frame rates: the default, the limits, and the even rate of frames with different durations."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_FPS = 8.0  # the rate of AnimateDiff and ModelScope
# A frame of a GIF lasts at most 655 seconds.
MIN_FPS, MAX_FPS = 0.01, 240.0


def even_rate(lengths: Sequence[float], unit: float) -> tuple[int, float]:
    """The number of frames of equal length that pictures stand for, and frames per second.

    Encoders join equal frames to one picture that is shown longer. So the shortest pictures count as single frames, and
    others as the number that fits best. Pictures with arbitrary durations get the rate of the shortest.

    Args:
        lengths: Duration of each picture in seconds, above 0.
        unit: Unit in seconds that durations are rounded to, by which single frames may differ.
    """
    longest = max(1.5 * min(lengths), min(lengths) + 1.01 * unit)
    single = [length for length in lengths if length < longest]
    mean = sum(single) / len(single)
    count = sum(round(length / mean) for length in lengths)
    return count, count / sum(lengths)
