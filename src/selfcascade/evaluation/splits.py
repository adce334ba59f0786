"""Named, disjoint sets of captions and seeds.

- `tuning`: levers, designs and learning rates are tried on it.
- `validation`: presets and defaults are chosen on it.
- `test`: only for tables, once everything is chosen.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple, cast, get_args

Split = Literal["tuning", "validation", "test"]
SPLITS = cast("tuple[Split, ...]", get_args(Split))


class Numbers(NamedTuple):
    """The first numbers of a set of drawn descriptions. The number of a description is also the seed of its noise.

    Attributes:
        prompt: First number of the captions of seed 0. Those of each further seed begin `SEED_STEP` later.
        base: First number of the captions whose base samples FID_b and KID_b are measured from.
    """

    prompt: int
    base: int


NUMBERS: dict[Split, Numbers] = {
    "tuning": Numbers(50_000_000, 55_000_000),
    "validation": Numbers(80_000_000, 85_000_000),
    "test": Numbers(90_000_000, 95_000_000),
}


def split_of_caption(caption: str) -> Split:
    """The set that a caption of the user's own data belongs to. Half of them are for tests.

    Only the words count, so equal captions are in one set whatever files they come from.
    """
    share = int.from_bytes(hashlib.sha256(caption.strip().casefold().encode()).digest()[:4]) / 2**32
    return "test" if share < 0.5 else "validation" if share < 0.75 else "tuning"
