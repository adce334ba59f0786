"""Writes docs/options.md from the list of options: `python docs/write_options.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfcascade.cli.flags import flag
from selfcascade.options import Options, Use, hints, uses
from selfcascade.options.checks import allowed
from selfcascade.options.methods import METHOD_OPTIONS

PAGE = Path(__file__).with_name("options.md")
HEAD = """# Options

All that a call of `SelfCascade`, a command, a record and an experiment can say. `python docs/write_options.py` writes
this page from `selfcascade.options.Options`, where each option stands once; the checks, the flags and the records are
made from the same list.

- A flag is the option's name with dashes; a shorter one is understood too.
- Where there may be one value for each stage, Python takes a list, and the command line the flag several times.
- What a method does not take is refused, in a sentence that names the methods that do. `compare` gives each method what
  it takes.
"""
COLUMNS = ("option", "what it is", "values", "unless given", "commands", "Python", "methods")


def page(options: type[Options] = Options) -> str:
    """The whole page."""
    rows = [_row(name, use, options) for name, use in uses(options).items()]
    table = [_line(COLUMNS), _line("---" for _ in COLUMNS), *(_line(row) for row in rows)]
    return "\n".join([HEAD, *table]) + "\n"


def _row(name: str, use: Use, options: type[Options]) -> list[str]:
    shown = flag(name, options)
    return [
        f"`{name}`" + (f"<br>`{shown}`" if shown.startswith("--") else ""),
        use.help,
        allowed(hints(options)[name]),
        use.unless or "-",
        _code(use.commands),
        _code(use.calls),
        _methods(name, use),
    ]


def _methods(name: str, use: Use) -> str:
    if use.taken_by == "all":
        return "all"
    takes = [method.name for method in METHOD_OPTIONS.values() if {use.taken_by, name} & method.takes]
    from_base = [method.name for method in METHOD_OPTIONS.values() if name == "pivot" and method.from_base]
    return ", ".join(takes + from_base) or "-"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "-"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
