"""Reads the options from the record of an earlier picture or clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfcascade.making.made import BESIDE_OPTIONS, CLIP_KIND, KIND, has_preset
from selfcascade.media.read_records import read_record
from selfcascade.options import Options
from selfcascade.options.checks import shown
from selfcascade.options.methods import METHOD_OPTIONS
from selfcascade.options.presets import preset_named

RECORD_KEYS = frozenset({"schema", "kind", "settings", "result", "versions"})
# Keys that only records of a batch have.
BATCH_KEYS = frozenset({"key", "caption", "status", "width", "height", "row", "line", "flagged", "unread_tokens"})
RENAMED = {"frames": "num_frames"}  # in records of versions before 0.2
# What presets of these names said before records told it.
ONCE: Mapping[str, Mapping[str, Any]] = {
    "quality": {"step_share": 1.0, "guided": True},
    "fast": {"step_share": 0.5, "guided": True},
}


def read_options(path: Path, kind: type[Options] = Options) -> tuple[Options, str | None]:
    """Reads the options from a sidecar or a PNG, and the SHA-256 of the pixels they gave.

    Raises:
        ValueError: The file cannot be read, has an unknown key, or a value is out of range; the message names it.
    """
    record = read_record(path, KIND, CLIP_KIND)
    given = record.get("settings")
    if not isinstance(given, dict):
        raise ValueError(f"{str(path)!r} has no settings")
    unknown = sorted((set(record) - RECORD_KEYS - BATCH_KEYS) | (set(given) - set(kind.model_fields) - set(RENAMED)))
    if unknown:
        raise ValueError(f"{str(path)!r} has unknown keys: {', '.join(map(shown, unknown))}")
    try:
        options = kind(**{RENAMED.get(str(name), str(name)): value for name, value in given.items()})
        if set(RENAMED) & set(given):
            options = migrated(options)
        if options.preset is None and has_preset(options):
            options = options.changed(preset="paper")  # the default of the versions that did not record it
        result = record.get("result")
        result = result if isinstance(result, dict) else {}
        options = with_recorded_preset(options, result)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    sha256 = result.get("sha256")
    return options, sha256 if isinstance(sha256, str) else None


def with_recorded_preset(options: Options, result: Mapping[str, Any]) -> Options:
    """The options with what their preset said when the record was made, if it says something else now.

    Args:
        options: Options of a record. They hold what a preset says of K, the pivot and attention.
        result: The record's result, with what else the preset said. Older ones lack it, and attention was full then.

    Raises:
        ValueError: The record has a value that no preset can have.
    """
    if not isinstance(options.preset, str):
        return options
    now, told = preset_named(options.preset), result.get("preset")
    if told is None and options.preset in ONCE:
        told, options = ONCE[options.preset], options.changed(attention=options.attention or "full")
    if told is None:
        return options
    if not isinstance(told, Mapping) or set(told) != set(BESIDE_OPTIONS):
        raise ValueError(f"its preset must say {' and '.join(BESIDE_OPTIONS)}, not {shown(told)}")
    then = replace(now, **told)
    return options if then == now else options.changed(preset=then)


def migrated(options: Options) -> Options:
    """The options without those that the method does not take, which old versions recorded too."""
    return options.changed(**dict.fromkeys(not_taken(options.method, options)))


def not_taken(name: str, options: Options) -> list[str]:
    """Names of the given options that this method does not take."""
    method = METHOD_OPTIONS.get(name)
    return [] if method is None else [option for option in options.given() if not method.accepts(option)]
