"""`web`: serves the page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from selfcascade.cli.console import Debug, note, tell
from selfcascade.cli.flags import with_options
from selfcascade.cli.records import gather
from selfcascade.media.save_pictures import check_place

Host = Annotated[str, typer.Option(help="Address to listen on; any but this machine's own needs --auth.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port.  [default: the first free one from 7860]")]
Auth = Annotated[
    str | None,
    typer.Option(metavar="USER:PASSWORD", help="Who may come in; the variable SELFCASCADE_WEB_AUTH hides it better."),
]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Folder that pictures and clips are saved in.")]
Memory = Annotated[
    float | None, typer.Option(min=0.1, help="GiB that a run may take.  [default: nine tenths of what is free]")
]


@with_options("web")
def web(
    given: dict[str, Any],
    host: Host = "127.0.0.1",
    port: Port = None,
    auth: Auth = None,
    output: Folder = Path("outputs/web"),
    memory: Memory = None,
    debug: Debug = False,
) -> None:
    """Serve a page that makes pictures and clips, for this machine's browser unless --host says otherwise."""
    from selfcascade.web.serve import check_installed, read_auth, serve

    check_installed()
    pair = read_auth(host, auth)
    options, _ = gather(given)
    if output.exists() and not output.is_dir():
        raise ValueError(f"output {str(output)!r} is a file; give a folder")
    check_place(output / "picture.png")

    from selfcascade.web.limits import GIB, Limits
    from selfcascade.web.studio import Studio

    studio = Studio(options, output.absolute(), Limits(memory=None if memory is None else round(memory * GIB)))
    note(f"pictures are saved in {output}; Ctrl-C ends the page")
    serve(studio, host, port, pair, tell)
