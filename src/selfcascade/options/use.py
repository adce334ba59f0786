"""Where an option may be said: the commands, the calls and the methods that have it, and the usual kinds of options."""

from __future__ import annotations

import functools
from dataclasses import dataclass

Names = frozenset[str]


@dataclass(frozen=True)
class Use:
    """Where an option may be said, and how it is explained.

    Attributes:
        help: What it is.
        unless: What holds where it is not given; "" where there is nothing to say.
        commands: Commands that have it.
        positional: Commands where it is an argument rather than a flag.
        calls: Methods of `SelfCascade` that have it as a keyword.
        taken_by: "all" methods of `selfcascade.METHODS`; or those whose `takes` has this word or the option's name.
        flag: A shorter flag, beside the option's own name with dashes.
        metavar: What stands for its value in the help.
        passed: Whether a method gets it as a keyword; what does not is used before a method runs.
        recorded: Whether the record beside a picture has it.
        any_object: Whether Python gives an object or a list of them in the place of the text that commands take.
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

# Options of one kind: of the stages' plan, of stages with a pivot, of the model, of what is added to it, ...
planned = functools.partial(Use, commands=PLAN, calls=PLANNED)
of_cascade = functools.partial(planned, unless="the preset's", taken_by="cascade")
of_own_stages = functools.partial(Use, commands=MAKE, calls=CALLS, taken_by="cascade")
of_model = functools.partial(Use, commands=MODEL, passed=False)
of_addition = functools.partial(Use, commands=PLAN, passed=False)
of_source = functools.partial(Use, taken_by="image", passed=False)
of_method = functools.partial(Use, commands=PICTURES, taken_by="")
of_python = functools.partial(Use, calls=CALLS, recorded=False)
