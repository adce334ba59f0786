"""Named sets of captions and seeds that share none: what is tuned on, what is chosen on, what is reported.

Levers, designs and learning rates are tried on `tuning`. Presets and defaults are chosen on `validation`. `test` is for
tables alone, once they are chosen.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple, cast, get_args

Split = Literal["tuning", "validation", "test"]
SPLITS = cast("tuple[Split, ...]", get_args(Split))


class Numbers(NamedTuple):
    """The first numbers of a set of drawn descriptions; a picture's noise has its description's number as its seed.

    Attributes:
        prompt: Of the captions of seed 0; each further seed's begin `SEED_STEP` later.
        base: Of other captions, whose base samples FID_b and KID_b are measured from.
    """

    prompt: int
    base: int


NUMBERS: dict[Split, Numbers] = {
    "tuning": Numbers(50_000_000, 55_000_000),
    "validation": Numbers(80_000_000, 85_000_000),
    "test": Numbers(90_000_000, 95_000_000),
}


def split_of_caption(caption: str) -> Split:
    """The set that a caption of one's own data belongs to, by its words alone: half are for tests.

    Equal captions are in one set, whatever files they come from.
    """
    share = int.from_bytes(hashlib.sha256(caption.strip().casefold().encode()).digest()[:4]) / 2**32
    return "test" if share < 0.5 else "validation" if share < 0.75 else "tuning"
