"""A picture or clip with its progress in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfcascade import making
from selfcascade.cli.console import note, stage_progress
from selfcascade.making import Made
from selfcascade.options import Options

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade


def make(cascade: SelfCascade, options: Options, source: Any = None) -> Made:
    """As `making.make`, with a progress bar for each stage, and a remark where a safety checker has struck."""
    with stage_progress() as callback:
        made = making.make(cascade, options, source, callback)
    if made.flagged:
        note("the model's own safety checker has blacked this picture out")
    return made
