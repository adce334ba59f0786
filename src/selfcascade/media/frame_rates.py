"""Frame rates: the default, the limits, and the even rate of frames that each have a duration of their own."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_FPS = 8.0  # AnimateDiff's and ModelScope's own
# A GIF's frame lasts 655 seconds at most.
MIN_FPS, MAX_FPS = 0.01, 240.0


def even_rate(lengths: Sequence[float], unit: float) -> tuple[int, float]:
    """How many frames of one length the pictures stand for, and how many of them there are a second.

    Encoders join frames that are equal to one picture that is shown longer: the shortest pictures are single frames,
    and the others are taken for as many as fit best. Pictures shown for any times get the rate of the shortest.

    Args:
        lengths: Seconds that each picture is shown, all above 0.
        unit: Seconds that they are rounded to, so that single frames' lengths differ by as much.
    """
    longest = max(1.5 * min(lengths), min(lengths) + 1.01 * unit)
    single = [length for length in lengths if length < longest]
    mean = sum(single) / len(single)
    count = sum(round(length / mean) for length in lengths)
    return count, count / sum(lengths)
