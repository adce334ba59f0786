"""What the command line prints, and how errors become one line and an exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from selfcascade.cli.flags import as_flags
from selfcascade.options.checks import OptionError
from selfcascade.processes.errors import TogetherError

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
MAX_LINE = 500
DEBUG = "SELFCASCADE_DEBUG"
# Control characters: a file's name may contain them, and a terminal would obey them.
CODES = (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
CONTROL = {code: chr(code).encode("unicode_escape").decode() for code in CODES}

# Typer does not export the base class of its parse errors: BadParameter, UsageError, ClickException.
ParseError: Any = typer.BadParameter.__mro__[2]


class OneLineErrors(TyperGroup):
    """A group whose commands end with status 0, 2 for bad input, 1 for a failure, 130 for Ctrl-C, and one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Runs the command line and exits; errors are printed on stderr without a traceback."""
        try:
            with _noted_warnings():
                status = super().main(*args, standalone_mode=False, **extra)
        except ParseError as error:
            _end(BAD_INPUT, error.format_message(), error)
        except OptionError as error:
            _end(BAD_INPUT, as_flags(error), error)
        except TogetherError as error:
            if not error.is_main:  # one of the processes says it for all
                sys.exit(BAD_INPUT)
            _end(BAD_INPUT, str(error), error)
        except ValueError as error:
            _end(BAD_INPUT, str(error), error)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                _end(BAD_INPUT, f"{str(error.filename)[:40]!r}... is longer than the name of a file may be", error)
            _end(FAILURE, f"{type(error).__name__}: {error}", error)
        except Exception as error:  # whatever a model can raise
            _end(FAILURE, f"{type(error).__name__}: {error}", error)
        if status == INTERRUPTED:
            _end(INTERRUPTED, "interrupted")
        sys.exit(status if isinstance(status, int) else 0)


def _set_debug(value: bool) -> None:
    if value:
        os.environ[DEBUG] = "1"


Debug = Annotated[
    bool, typer.Option("--debug", help="Print the full traceback of an error.", callback=_set_debug, is_eager=True)
]


def note(text: str) -> None:
    """Prints a line to stderr for the user."""
    print(f"selfcascade: {plain(text)}", file=sys.stderr)


def tell(path: object) -> None:
    """Prints a path to stdout: unchanged for another program, without control characters for a terminal."""
    print(plain(str(path)) if sys.stdout.isatty() else path, flush=True)


def plain(text: str) -> str:
    """Text with its control characters, including those for the direction of writing, escaped."""
    return text.translate(CONTROL)


@contextlib.contextmanager
def _noted_warnings() -> Iterator[None]:
    """Prints the package's own warnings as lines for the user; those of other libraries are not changed."""
    with warnings.catch_warnings():
        shown, package = warnings.showwarning, str(Path(__file__).parents[1])

        def showwarning(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:
            if filename.startswith(package):
                note(" ".join(str(message).split()))
            else:
                shown(message, category, filename, *rest)

        warnings.showwarning = showwarning
        yield


def show(table: Table) -> None:
    """Prints a table to stdout, as wide as needed if stdout is not a terminal."""
    console = Console()
    Console(width=None if console.is_terminal else 200, soft_wrap=False).print(table)


@contextlib.contextmanager
def stage_progress() -> Iterator[Callable[..., dict[str, Any]] | None]:
    """A callback that shows a progress bar for each stage on stderr; None unless stderr is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[int, Any] = {}

        def on_step_end(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            stage = kwargs["stage"]
            if stage.index not in bars:
                text = f"stage {stage.index + 1} of {stage.count}, {stage.size}"
                bars[stage.index] = progress.add_task(text, total=getattr(pipe, "num_timesteps", None))
            progress.update(bars[stage.index], completed=step + 1)
            return {}

        yield on_step_end


def _end(status: int, message: str, error: BaseException | None = None) -> NoReturn:
    if error is not None and os.environ.get(DEBUG, "0") not in ("", "0"):
        traceback.print_exception(error)
    line = plain(" ".join(message.split()))
    line = line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 3]}..."
    prefix = "" if status == INTERRUPTED else "error: "
    encoding = sys.stderr.encoding or "utf-8"
    print(f"selfcascade: {prefix}{line}".encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
    sys.exit(status)
