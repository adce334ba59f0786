"""Makes a picture or clip, and shows its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfcascade import making
from selfcascade.cli.console import note, stage_progress
from selfcascade.making import Made
from selfcascade.options import Options

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade


def tell_strength(cascade: SelfCascade, options: Options) -> None:
    """Prints the K that a strength stands for: plans, records and the paper use K."""
    if options.strength is not None:
        from selfcascade.pipeline.pivot_steps import steps_of

        limit = cascade.schedules.training_steps
        found, said = (
            value if isinstance(value, tuple) else (value,)
            for value in (steps_of(options.strength, limit), options.strength)
        )
        words = (f"strength {share:g} is K = {step}" for share, step in zip(said, found, strict=True))
        note(f"{', '.join(words)} of {limit} training timesteps")


def make(cascade: SelfCascade, options: Options, source: Any = None) -> Made:
    """Like `making.make`, with a progress bar for each stage, and a note if a safety checker blacked it out."""
    with stage_progress() as callback:
        made = making.make(cascade, options, source, callback)
    if made.flagged:
        note("the model's own safety checker has blacked this picture out")
    return made
