"""What the tests of the command line share: ways to run it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from typer.main import get_command
from typer.testing import CliRunner, Result

from selfcascade.cli import app, main

SRC = Path(__file__).parents[1] / "src"
COMMAND = get_command(app)  # made once: it reads the annotations of some 300 flags
WITH_MODEL = ["--model", "sd", "--steps", "4"]


def run(*arguments: str | Path) -> Result:
    """As `CliRunner.invoke`, which would make the command anew each time."""
    runner, error = CliRunner(), None
    # --debug lasts for the process, which for a user is one command.
    with runner.isolation(env={"SELFCASCADE_DEBUG": None}) as (stdout, stderr, output):
        try:
            COMMAND.main(args=[str(argument) for argument in arguments], prog_name="selfcascade")
        except SystemExit as ended:
            error = ended
        assert error is not None and isinstance(error.code, int)
        sys.stdout.flush()
        sys.stderr.flush()
        held = stdout.getvalue(), stderr.getvalue(), output.getvalue()
    return Result(runner, *held, None, error.code, error if error.code else None)


def succeed(*arguments: str | Path) -> list[str]:
    """The lines on stdout."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def refuse(*arguments: str | Path, status: int = 2) -> str:
    """The one line on stderr."""
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("selfcascade: error: ")
    assert len(lines[0]) < 600
    return lines[0]


def made(folder: Path) -> set[str]:
    """What lies in a folder besides the models."""
    return {path.name for path in folder.iterdir()} - {"sd", "video"}


def record(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).with_suffix(".json").read_text("utf-8"))


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command line as a process that heeds Ctrl-C, also where the tests run in a shell's background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here would be ignored there
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-m", "selfcascade.cli", *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def fork(*arguments: str) -> tuple[int, IO[str], IO[str]]:
    """As `start`, in a fork of this process, which has all imports: its number, its stdout and its stderr."""
    pipes = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["selfcascade", *arguments]
            sys.stdout, sys.stderr = (os.fdopen(writer, "w") for _, writer in pipes)
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for _, writer in pipes:
        os.close(writer)
    output, errors = (os.fdopen(reader) for reader, _ in pipes)
    return process, output, errors
