"""`report`: writes tables, pictures and a page from the results of all experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfcascade.cli.console import Debug, tell


def report(
    experiments: Annotated[Path, typer.Argument(help="Folder of experiment suites.")] = Path("experiments"),
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("docs/results"),
    costs: Annotated[Path | None, typer.Option(help="The methods' measured costs, from benchmarks/methods.py.")] = None,
    debug: Debug = False,
) -> None:
    """Write the report of all results: README.md, plots, picture grids, and index.html to browse them."""
    from selfcascade.report import write_report

    for path in write_report(experiments, output, costs):
        tell(path)
