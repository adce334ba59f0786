"""Which commands, calls and methods take an option, and shorthands for the usual kinds of options."""

from __future__ import annotations

import functools
from dataclasses import dataclass

Names = frozenset[str]


@dataclass(frozen=True)
class Use:
    """Where an option is taken, and how it is explained.

    Attributes:
        help: What the option is.
        unless: The default, in words; "" if there is nothing to say.
        commands: Commands that take it.
        positional: Commands where it is an argument rather than a flag.
        calls: Methods of `SelfCascade` that take it as a keyword.
        taken_by: "all" methods of `selfcascade.METHODS`, or those whose `takes` contains this word or the option's
            name.
        flag: A shorter flag, besides the option's name with dashes.
        metavar: Placeholder for the value in the help.
        passed: Whether a method gets it as a keyword; other options are used before a method runs.
        recorded: Whether it is in the record next to a picture.
        any_object: Whether Python takes an object, or a list of them, where commands take text.
    """

    help: str
    unless: str = ""
    commands: Names = frozenset()
    positional: Names = frozenset()
    calls: Names = frozenset()
    taken_by: str = "all"
    flag: str | None = None
    metavar: str | None = None
    passed: bool = True
    recorded: bool = True
    any_object: bool = False


PROMPTED: Names = frozenset({"generate", "compare"})
UPSCALE: Names = frozenset({"upscale"})
GENERATE: Names = frozenset({"generate", "batch"})
PICTURES: Names = GENERATE | {"compare"}
CLIPS: Names = GENERATE | UPSCALE
MAKE: Names = PICTURES | CLIPS
PLAN: Names = MAKE | {"plan"}
SAMPLE: Names = PLAN | {"evaluate"}
MODEL: Names = PLAN | {"info", "web"}
CALLS: Names = frozenset({"__call__", "upscale"})
PLANNED: Names = CALLS | {"plan"}

# One function for each kind of option: of the plan, of stages with a pivot, of the model, of additions to it, ...
planned = functools.partial(Use, commands=PLAN, calls=PLANNED)
of_cascade = functools.partial(planned, unless="the preset's", taken_by="cascade")
of_own_stages = functools.partial(Use, commands=MAKE, calls=CALLS, taken_by="cascade")
of_model = functools.partial(Use, commands=MODEL, passed=False)
of_addition = functools.partial(Use, commands=PLAN, passed=False)
of_source = functools.partial(Use, taken_by="image", passed=False)
of_method = functools.partial(Use, commands=PICTURES, taken_by="")
of_python = functools.partial(Use, calls=CALLS, recorded=False)
