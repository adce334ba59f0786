"""The numbers that say by which code a result was made.

A digest of the source would change with every comment and make all results old at once, so nobody would heed it.

The numbers are raised by hand. `tests/test_canaries.py` says when: it compares small pictures of every method, their
features and their figures with stored ones.
"""

from __future__ import annotations

PROTOCOL = 2  # raised when captions, seeds, sampling or figures of all methods change
REVISIONS: dict[str, int] = {}  # by method, if only its samples changed; other methods are at 1
PRESET_REVISIONS = {"quality": 2, "fast": 2}  # by preset, raised when its values change; other presets are at 1
CASCADE, TUNED = "self-cascade", "self-cascade-tuned"


def revision_of(method: str) -> int:
    """The revision of a method. With feature upsamplers, it also rises with the cascade's own."""
    own = REVISIONS.get(method, 1)
    return own + REVISIONS.get(CASCADE, 1) - 1 if method == TUNED else own


def preset_revision(name: str) -> int:
    """The revision of a preset's values."""
    return PRESET_REVISIONS.get(name, 1)
