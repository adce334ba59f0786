"""`compare`: puts methods, presets or values of any option side by side, with the same prompt and seed."""

from __future__ import annotations

import csv
import gc
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from selfcascade.cli.axes import Axis, cells, labels, read_axis
from selfcascade.cli.console import Debug, show, tell
from selfcascade.cli.files import Force, Output
from selfcascade.cli.flags import with_options
from selfcascade.cli.making import make
from selfcascade.cli.records import check_method, check_prompt, gather
from selfcascade.making import TUNED, Made, completed, load, upsamplers_of
from selfcascade.media.endings import ending_of
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.save_pictures import (
    SCHEMA,
    check_output,
    check_place,
    parameters_text,
    save_picture,
    versions,
)
from selfcascade.media.whole_files import write_whole
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.load_options import LoadOptions
from selfcascade.options.methods import METHOD_OPTIONS, takers

KIND = "selfcascade.comparison"
MAX_PANEL = 512
# Options that decide how a model is loaded.
LOADED = (*LoadOptions.model_fields, "upsamplers", "pivot_upscaler")

Methods = Annotated[str | None, typer.Option(help="Names separated by commas (default: all).")]
Axes = Annotated[
    list[str] | None,
    typer.Option(
        "--xyz",
        metavar="OPTION=VALUE,...",
        help="Values of an option along the columns; repeat it for another along the rows. Each picture is kept too.",
    ),
]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the table as a .csv file.")]


@with_options("compare", required=True)
def compare(
    given: dict[str, Any],
    methods: Methods = None,
    xyz: Axes = None,
    output: Output = Path("outputs/compare.png"),
    csv_file: Csv = None,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Make the PROMPT's picture with several methods or values of options: a captioned grid and a table."""
    axes = [read_axis(text) for text in xyz or ()]
    upsamplers = given.pop("upsamplers", None)  # only for the method that takes them
    options, _ = gather(given)
    options = options.changed(upsamplers=upsamplers)
    check_prompt(options)
    check_output(output)
    _check_csv(csv_file, force)
    if methods is not None or not axes:
        names = _names(methods, options)
        axes.append(Axis("method", tuple(names), tuple(names)))
    elif upsamplers is not None and not any(axis.name == "method" for axis in axes):
        options = options.changed(method=TUNED)
    asked = [options.changed(**values) for values in cells(axes)]
    _check(asked, [*given, *(axis.name for axis in axes if axis.name != "method")])
    tuned = any(one.method == TUNED for one in asked)
    asked = [one.changed(upsamplers=upsamplers_of(one) if tuned else None) for one in asked]
    made = [one for _, one in sorted(_made(asked), key=lambda pair: pair[0])]
    grid = _grid(made, axes, options)
    record = {
        "schema": SCHEMA,
        "kind": KIND,
        "pictures": [{key: one.record()[key] for key in ("settings", "result")} for one in made],
        "versions": versions(),
    }
    fields = {"Seed": options.seed, "Model": options.model}
    fields |= {"Methods" if axis.name == "method" else axis.name: " ".join(axis.texts) for axis in axes}
    text = parameters_text(options.prompt, options.negative_prompt, fields)
    picture, _ = save_picture(grid, record, output, text, force)
    singles = _save_each(made, axes, picture, force) if xyz else []
    table = _rows(made, axes, singles)
    show(_table(table))
    if csv_file is not None:
        content = _as_csv(table)
        write_whole(csv_file, lambda file: file.write_bytes(content))
    for path in (picture, *singles):
        tell(path)


def _names(methods: str | None, options: Options) -> list[str]:
    fitting = [
        name for name in METHOD_OPTIONS if not METHOD_OPTIONS[name].needs - set(_for_method(options, name).given())
    ]
    names = fitting if methods is None else [name.strip() for name in methods.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"methods must be different names with commas between them, not {methods!r}")
    for name in names:
        if name in METHOD_OPTIONS and "weights" in METHOD_OPTIONS[name].needs and name not in fitting:
            raise ValueError(f"method {name} needs weights of its own; use `generate --weights DIR`")
    return names


def _check(asked: Sequence[Options], names: Sequence[str]) -> None:
    """Raises, before a model is loaded, if a method is unknown, or an option is taken by none of them."""
    for one in asked:
        check_method(_for_method(one, one.method))
    for name in names:
        if not any(METHOD_OPTIONS[one.method].accepts(name) for one in asked):
            raise OptionError(f"{{{name}}} is for {takers(name)}, which the comparison leaves out")


def _made(asked: Sequence[Options]) -> Iterator[tuple[int, Made]]:
    """The pictures with their index; pictures of one model come together, so that each model is loaded once."""
    left = dict(enumerate(asked))
    while left:
        first = next(iter(left.values()))
        same = {place: one for place, one in left.items() if _loaded(one) == _loaded(first)}
        cascade, loaded = load(first)
        for place, one in same.items():
            own = completed(cascade, one.changed(**_loaded(loaded)))
            yield place, make(cascade, _for_method(own, own.method))
            del left[place]
        del cascade, own  # before the next model is loaded
        gc.collect()


def _loaded(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in LOADED}


def _for_method(options: Options, name: str) -> Options:
    """The options that this method takes, with the bundled weights for those that need some."""
    from selfcascade.models import BUNDLED_SUPER_RESOLVER

    resolver = name == "sr" and options.model == "bundled" and BUNDLED_SUPER_RESOLVER.is_dir()
    own = options.changed(method=name, weights="bundled" if resolver else None)
    if name not in METHOD_OPTIONS:
        return own
    if name == TUNED:
        own = own.changed(upsamplers=upsamplers_of(own))
    return own.changed(**{option: None for option in own.given() if not METHOD_OPTIONS[name].accepts(option)})


def _grid(made: Sequence[Made], axes: Sequence[Axis], options: Options) -> Any:
    panels = [Panel(one.image, _label(axes, texts), _note(one)) for one, texts in zip(made, labels(axes), strict=True)]
    side = min(MAX_PANEL, max(256, *made[0].image.size))
    columns = len(axes[0].values) if len(axes) == 2 or axes[0].name != "method" else min(len(panels), 4)
    return picture_grid(panels, columns, side, f"{options.prompt}  (seed {options.seed})")


def _label(axes: Sequence[Axis], texts: Sequence[str]) -> str:
    if len(axes) == 1 and axes[0].name == "method":
        return texts[0]
    return ", ".join(f"{axis.name} {text}" for axis, text in zip(axes, texts, strict=True))


def _note(made: Made) -> str:
    return f"{made.image.width} x {made.image.height} pixels, {made.seconds:.1f} s"


def _save_each(made: Sequence[Made], axes: Sequence[Axis], grid: Path, force: bool) -> list[Path]:
    """Saves each picture with its record in a folder next to the grid."""
    found: list[Path] = []
    for number, (one, texts) in enumerate(zip(made, labels(axes), strict=True), 1):
        words = re.sub(r"[^\w.=-]+", "-", "-".join((f"{number:03}", *texts)))[:80].strip(".-")
        path = grid.with_suffix("") / f"{words}.png"
        found.append(save_picture(one.image, one.record(), path, one.parameters(), force)[0])
    return found


def _rows(made: Sequence[Made], axes: Sequence[Axis], singles: Sequence[Path]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for index, (one, texts) in enumerate(zip(made, labels(axes), strict=True)):
        row = {axis.name: text for axis, text in zip(axes, texts, strict=True)}
        row["size (HxW)"] = f"{one.image.height}x{one.image.width}"
        row["stages"] = " > ".join(f"{stage['height']}x{stage['width']}" for stage in one.stages)
        row["steps"] = " + ".join(str(stage["steps"]) for stage in one.stages)
        row["seconds"] = f"{one.seconds:.2f}"
        rows.append(
            {**row, "sha256": one.record()["result"]["sha256"], "picture": str(singles[index]) if singles else ""}
        )
    return rows


def _table(rows: Sequence[dict[str, str]]) -> Table:
    names = [name for name in rows[0] if name not in ("sha256", "picture", "seconds")]
    table = Table(*names)
    table.add_column("seconds", justify="right")
    for row in rows:
        table.add_row(*(row[name] for name in names), row["seconds"])
    return table


def _check_csv(path: Path | None, force: bool) -> None:
    if path is None:
        return
    if ending_of(path) != ".csv":
        raise ValueError(f"--csv must end in .csv, not {path.name!r}")
    check_place(path, "--csv")
    if path.exists() and not force:
        raise ValueError(f"--csv {str(path)!r} exists; give another name, or --force")


def _as_csv(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
