"""Makes a picture or clip, and shows its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfcascade import making
from selfcascade.cli.console import note, stage_progress
from selfcascade.making import Made
from selfcascade.options import Options

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade

MOST_USUAL = 64  # times the native pixels: 8 times a side


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


def tell_size(cascade: SelfCascade, options: Options, source: Any = None) -> None:
    """Warns where the target is far larger than what the model was trained at: a photograph with the bundled model.

    Args:
        cascade: The model.
        options: The options with the target size, or as given if there is a source.
        source: The picture, or frames (F, H, W, 3), to enlarge.
    """
    native = cascade.native_size
    if source is None:
        area = float((options.height or native.height) * (options.width or native.width))
    else:
        height, width = source.shape[1:3] if hasattr(source, "shape") else (source.height, source.width)
        sides = [given / own for given, own in ((options.height, height), (options.width, width)) if given is not None]
        area = height * width * max(sides, default=options.side_scale or 2.0) ** 2
    times = area / native.area
    if times > MOST_USUAL:
        note(
            f"the target has {times:,.0f} times the pixels that model {options.model!r} was trained at ({native}), "
            "which can take hours and much memory; `selfcascade plan` estimates both for a --height and --width"
        )


def make(cascade: SelfCascade, options: Options, source: Any = None) -> Made:
    """Like `making.make`, with a progress bar for each stage, and a note if a safety checker blacked it out."""
    with stage_progress() as callback:
        made = making.make(cascade, options, source, callback)
    if made.flagged:
        note("the model's own safety checker has blacked this picture out")
    return made
