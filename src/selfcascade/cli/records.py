"""Combines options from the command line with those in the record of an earlier picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfcascade.cli.sources import is_clip
from selfcascade.making import OF_CLIPS, TUNED, not_taken, read_options, upsamplers_of
from selfcascade.media.endings import ending_of
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.methods import method_options
from selfcascade.options.presets import Preset

# A preset's settings that a record states, and that another preset must replace.
OF_PRESETS = frozenset({"pivot_step", "strength"} | {field.name for field in dataclasses.fields(Preset)}) & set(
    Options.model_fields
)


def gather(
    given: Mapping[str, Any], source: Path | None = None, output: Path | None = None, kind: type[Options] = Options
) -> tuple[Options, str | None]:
    """Options from a record, or the defaults, replaced by those given.

    If no model is named, options for clips choose the bundled video model.

    Args:
        given: The given options, by name.
        source: File of the record; None for the defaults.
        output: Path of the picture or clip.
        kind: The class of options.

    Returns:
        The options, and the SHA-256 of the pixels that they gave before, if nothing was changed.

    Raises:
        OptionError: An option cannot be used.
        ValueError: The record cannot be used; the message names the file.
    """
    given = dict(given)
    if "upsamplers" in given:
        if given.get("method", TUNED) != TUNED:
            raise OptionError("{upsamplers} is for method {tuned}, not for {found}", tuned=TUNED, found=given["method"])
        given["method"] = TUNED
    if source is None and "model" not in given and _of_clips(output, given):
        given["model"] = "bundled-video"
    options, sha256 = (kind(**given), None) if source is None else read_options(source, kind)
    replaced: dict[str, Any] = {name: None for name in OF_PRESETS} if "preset" in given else {}
    if {"height", "width", "scale", "pixels", "strength"} & set(given):
        replaced["pivot_step"] = None  # it has one value per stage, and another size may have other stages
    if {"scale", "pixels"} & set(given):
        replaced |= {"height": None, "width": None}
    if "method" in given:
        replaced |= dict.fromkeys(not_taken(given["method"], options))
    options = options.changed(**{**replaced, **given})
    return options, None if {*replaced, *given} - {"device"} else sha256


def check_prompt(options: Options) -> None:
    """Refuses an empty prompt, which is more often a mistake in a script than intended.

    Raises:
        OptionError: The prompt is empty and there is no image.
    """
    if options.image is None and not options.prompt.strip():
        raise OptionError("{prompt} must not be empty")


def check_method(options: Options) -> None:
    """Checks, before a model is loaded, that the method exists and takes the options.

    Raises:
        OptionError: It does not; the message names the option.
    """
    if options.method == TUNED:
        options = options.changed(upsamplers=upsamplers_of(options))
    method_options(options.method).check(options.given())


def _of_clips(output: Path | None, given: Mapping[str, Any]) -> bool:
    """Whether an option is for clips only. A .gif to enlarge and a .webp to write may be a picture."""
    read = "image" in given and is_clip(Path(given["image"]))
    written = "" if output is None else ending_of(output)
    return read or written in (".mp4", ".gif") or any(name in given for name in OF_CLIPS)
