"""What the tests of the command line share: ways to run it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from selfcascade.cli import app

SRC = Path(__file__).parents[1] / "src"
WITH_MODEL = ["--model", "sd", "--steps", "4"]


def run(*arguments: str | Path) -> Result:
    # --debug lasts for the process, which for a user is one command.
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"SELFCASCADE_DEBUG": None})


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
