"""The command line: one file for each command, without logic of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from selfcascade import __version__
from selfcascade.cli.batch import batch
from selfcascade.cli.compare import compare
from selfcascade.cli.console import Debug, OneLineErrors
from selfcascade.cli.evaluate import evaluate
from selfcascade.cli.export import export
from selfcascade.cli.generate import generate, upscale
from selfcascade.cli.info import info
from selfcascade.cli.plan import plan
from selfcascade.cli.report import report
from selfcascade.cli.train import train
from selfcascade.cli.web import web

app = typer.Typer(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    help="Pictures and clips larger than a diffusion model was trained for (Self-Cascade, ECCV 2024).",
)
for command in (generate, upscale, batch, plan, compare, evaluate, report, export, info, web):
    app.command()(command)
app.command("train", no_args_is_help=True)(train)


def _print_version(value: bool) -> None:
    if value:
        print(f"selfcascade {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Version = False, debug: Debug = False) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The entry point `selfcascade`."""
    app()
