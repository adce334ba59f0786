"""Reads the options from the record of an earlier picture or clip."""

from __future__ import annotations

from pathlib import Path

from selfcascade.making.made import CLIP_KIND, KIND, has_preset
from selfcascade.media.read_records import read_record
from selfcascade.options import Options
from selfcascade.options.checks import OptionError, shown
from selfcascade.options.methods import METHOD_OPTIONS

RECORD_KEYS = frozenset({"schema", "kind", "settings", "result", "versions"})
# Keys that only records of a batch have.
BATCH_KEYS = frozenset({"key", "caption", "status", "width", "height", "row", "line", "flagged", "unread_tokens"})
RENAMED = {"frames": "num_frames"}  # in records of versions before 0.2


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
    except OptionError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    result = record.get("result")
    sha256 = result.get("sha256") if isinstance(result, dict) else None
    return options, sha256 if isinstance(sha256, str) else None


def migrated(options: Options) -> Options:
    """The options without those that the method does not take, which old versions recorded too."""
    return options.changed(**dict.fromkeys(not_taken(options.method, options)))


def not_taken(name: str, options: Options) -> list[str]:
    """Names of the given options that this method does not take."""
    method = METHOD_OPTIONS.get(name)
    return [] if method is None else [option for option in options.given() if not method.accepts(option)]
