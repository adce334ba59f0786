"""Makes pictures or clips with their records from options, and reads options back from records."""

from selfcascade.making.made import (
    CLIP_KIND,
    KIND,
    OF_CLIPS,
    TUNED,
    Made,
    completed,
    has_preset,
    load,
    load_cascade,
    make,
    make_together,
    steering,
    upsamplers_of,
)
from selfcascade.making.other_libraries import quiet_libraries
from selfcascade.making.recorded import not_taken, read_options

__all__ = [
    "CLIP_KIND",
    "KIND",
    "OF_CLIPS",
    "TUNED",
    "Made",
    "completed",
    "has_preset",
    "load",
    "load_cascade",
    "make",
    "make_together",
    "not_taken",
    "quiet_libraries",
    "read_options",
    "steering",
    "upsamplers_of",
]
