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

All options of `SelfCascade`, the commands, records and experiments. Each is declared once, in
`selfcascade.options.Options`; checks, flags and records are derived from there. `python docs/write_options.py` writes
this page.

- A flag is the option's name with dashes; some options also have a shorter flag.
- If an option may have one value for each stage, give Python a list, and repeat the flag on the command line.
- An option that a method does not take is refused, with the names of the methods that do. `compare` passes each method
  only the options that it takes.
"""
COLUMNS = ("option", "what it is", "values", "default", "commands", "Python", "methods")


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
