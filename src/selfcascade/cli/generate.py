"""`generate` and `upscale`: write pictures and clips, each with a record from which it can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfcascade.cli.console import Debug, note, tell
from selfcascade.cli.files import AnyOutput, Count, Force, Record, Sheet
from selfcascade.cli.flags import with_options
from selfcascade.cli.making import make, tell_size, tell_strength
from selfcascade.cli.names import example, has_fields, name_of
from selfcascade.cli.records import check_method, check_prompt, gather
from selfcascade.cli.saving import check_spares_source, check_target, save, sound_for, target
from selfcascade.cli.sources import read_source, source_for
from selfcascade.making import Made, load
from selfcascade.options import Options


@with_options("generate")
def generate(
    given: dict[str, Any],
    count: Count = 1,
    sheet: Sheet = False,
    output: AnyOutput = None,
    record: Record = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Make a picture of a PROMPT, or a clip with a video model, larger than the model was trained for."""
    if "prompt" not in given and record is None:
        raise ValueError("give a PROMPT, or --from with an earlier picture or clip")
    options, sha256 = gather(given, record, output)
    made = _write(options, count, output, "picture", force, sheet)
    if sha256 is not None:
        same = made.record()["result"]["sha256"] == sha256
        note(f"the pixels are {'the same as' if same else 'NOT the same as'} recorded in {record}")


@with_options("upscale", required=True)
def upscale(
    given: dict[str, Any],
    count: Count = 1,
    sheet: Sheet = False,
    output: AnyOutput = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Enlarge your own picture or clip: 2x a side, or as --scale, --pixels, --height or --width say."""
    options, _ = gather(given, output=output)
    _write(options, count, output, "upscaled", force, sheet)


def _write(options: Options, count: int, output: Path | None, default: str, force: bool, sheet: bool) -> Made:
    """Makes and saves the pictures or clips, and returns the first."""
    check_prompt(options)
    options.changed(seed=options.seed + count - 1)  # refuses a seed that would run over
    pattern = output if output is not None and has_fields(output) else None
    output = output if pattern is None else example(pattern)
    check_target(output, options, force)
    if force and options.image is not None:
        check_spares_source(options.image, output, count)
    check_method(options)
    source: Any = None
    if options.image is not None:
        source, options = read_source(options)
    cascade, options = load(options, video=True)
    tell_strength(cascade, options)
    output = target(output, default, options, cascade.family.video, sheet)
    if options.image is not None:
        source, options = source_for(cascade, options, source)
        output = target(output, default, options, cascade.family.video, sheet)  # the clip's own rate is known now
    tell_size(cascade, options, source)
    sound = sound_for(options, output) if cascade.family.video else None
    _warn_of_lost_words(cascade.pipe, options.prompt)
    first: Made | None = None
    written: set[Path] = set()
    for index in range(count):
        made = make(cascade, options.changed(seed=options.seed + index), source)
        first = first or made
        # --force overwrites the named file only: the second picture must not overwrite the first.
        path = output if index == 0 or not force else output.with_stem(f"{output.stem}-{index + 1}")
        again = force
        if pattern is not None:
            path = name_of(pattern, made, index + 1)
            again = force and path not in written
            written.add(path)
            if force and options.image is not None:
                check_spares_source(options.image, path, 1)
        for saved in save(made, path, again, sheet, sound):
            tell(saved)
    assert first is not None
    return first


def _warn_of_lost_words(pipe: Any, prompt: str) -> None:
    tokenizer = getattr(pipe, "tokenizer", None)
    limit = getattr(tokenizer, "model_max_length", None)
    if tokenizer is None or not isinstance(limit, int):
        return
    length = len(tokenizer(prompt, truncation=False).input_ids)
    if length > limit:
        note(f"the prompt has {length} tokens and the model's first text encoder reads {limit}; the rest is ignored")
