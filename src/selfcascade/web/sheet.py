"""Puts the pictures of a comparison on one captioned sheet, which records what made each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfcascade.making import Made
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.save_pictures import SCHEMA, parameters_text, save_picture, versions

KIND = "selfcascade.comparison"
LEAST_PANEL, MAX_PANEL, COLUMNS = 256, 1024, 4


def save_sheet(ways: Sequence[tuple[str, Made]], folder: Path) -> Path:
    """Saves a sheet like that of `selfcascade compare` and returns its path.

    Args:
        ways: Name and picture of each way, with one prompt and seed. At least one.
        folder: Folder where it is saved, under the first free name.
    """
    pictures, first = [made for _, made in ways], ways[0][1]
    side = min(MAX_PANEL, max(LEAST_PANEL, *first.image.size))
    panels = [Panel(made.image, way, _note(made)) for way, made in ways]
    heading = f"{first.options.prompt}  (seed {first.options.seed})"
    sheet = picture_grid(panels, min(len(panels), COLUMNS), side, heading)
    entries = [{name: made.record()[name] for name in ("settings", "result")} for made in pictures]
    record = {"schema": SCHEMA, "kind": KIND, "pictures": entries, "versions": versions()}
    fields = {"Seed": first.options.seed, "Model": first.options.model, "Methods": " ".join(way for way, _ in ways)}
    text = parameters_text(first.options.prompt, first.options.negative_prompt, fields)
    return save_picture(sheet, record, folder / f"compare-{first.options.seed}.png", text)[0]


def _note(made: Made) -> str:
    return f"{made.image.width} x {made.image.height} pixels, {made.seconds:.1f} s"
