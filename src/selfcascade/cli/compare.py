"""`compare`: methods side by side, on the same prompt and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from selfcascade.cli.console import Debug, show, tell
from selfcascade.cli.files import Force, Output
from selfcascade.cli.flags import with_options
from selfcascade.cli.making import make
from selfcascade.cli.records import check_method, check_prompt, gather
from selfcascade.making import TUNED, Made, load, upsamplers_of
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.save_pictures import SCHEMA, check_output, parameters_text, save_picture, versions
from selfcascade.options import Options
from selfcascade.options.checks import OptionError

KIND = "selfcascade.comparison"
MAX_PANEL = 512

Methods = Annotated[str | None, typer.Option(help="Names with commas between them; all unless given.")]


@with_options("compare", required=True)
def compare(
    given: dict[str, Any],
    methods: Methods = None,
    output: Output = Path("outputs/compare.png"),
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Make the PROMPT's picture with several methods, each with the options it takes: a captioned grid and a table."""
    from selfcascade.methods import METHODS, takers

    upsamplers = given.pop("upsamplers", None)  # for the method that takes them, among others
    options, _ = gather(given)
    options = options.changed(upsamplers=upsamplers)
    check_prompt(options)
    check_output(output)
    names = _names(methods, options)
    options = options.changed(upsamplers=upsamplers_of(options) if TUNED in names else None)
    for name in names:
        check_method(_for_method(options, name))
    for option in given:
        if not any(METHODS[name].accepts(option) for name in names):
            raise OptionError(f"{{{option}}} is for {takers(option)}, which the comparison leaves out")
    cascade, options = load(options)
    made = [make(cascade, _for_method(options, name)) for name in names]
    panels = [Panel(one.image, one.options.method, _note(one)) for one in made]
    side = min(MAX_PANEL, max(256, *made[0].image.size))
    grid = picture_grid(panels, min(len(panels), 4), side, f"{options.prompt}  (seed {options.seed})")
    record = {
        "schema": SCHEMA,
        "kind": KIND,
        "pictures": [{key: one.record()[key] for key in ("settings", "result")} for one in made],
        "versions": versions(),
    }
    fields = {"Seed": options.seed, "Model": options.model, "Methods": " ".join(names)}
    text = parameters_text(options.prompt, options.negative_prompt, fields)
    picture, _ = save_picture(grid, record, output, text, force)
    show(_table(made))
    tell(picture)


def _names(methods: str | None, options: Options) -> list[str]:
    from selfcascade import METHODS

    fitting = [name for name in METHODS if not METHODS[name].needs - set(_for_method(options, name).given())]
    names = fitting if methods is None else [name.strip() for name in methods.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"methods must be different names with commas between them, not {methods!r}")
    for name in names:
        if name in METHODS and "weights" in METHODS[name].needs and name not in fitting:
            raise ValueError(f"method {name} needs weights of its own; use `generate --weights DIR`")
    return names


def _for_method(options: Options, name: str) -> Options:
    """The options with what this method does not take left out, and the bundled weights of the super-resolver."""
    from selfcascade import METHODS
    from selfcascade.models import BUNDLED_SUPER_RESOLVER

    resolver = name == "sr" and options.model == "bundled" and BUNDLED_SUPER_RESOLVER.is_dir()
    own = options.changed(method=name, weights="bundled" if resolver else None)
    if name not in METHODS:
        return own
    return own.changed(**{option: None for option in own.given() if not METHODS[name].accepts(option)})


def _note(made: Made) -> str:
    return f"{made.image.width} x {made.image.height} pixels, {made.seconds:.1f} s"


def _table(made: list[Made]) -> Table:
    table = Table("method", "size (HxW)", "stages", "steps")
    table.add_column("seconds", justify="right")
    for one in made:
        stages = " > ".join(f"{stage['height']}x{stage['width']}" for stage in one.stages)
        steps = " + ".join(str(stage["steps"]) for stage in one.stages)
        size = f"{one.image.height}x{one.image.width}"
        table.add_row(one.options.method, size, stages, steps, f"{one.seconds:.2f}")
    return table
