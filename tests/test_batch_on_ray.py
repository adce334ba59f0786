"""A batch on a local Ray of two actors: the bytes of plain processes, also where an actor is killed."""

import importlib.util
import json
import time
from pathlib import Path

import psutil
import pytest

from command_line import refuse, start
from test_batch import batch, held

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
QUICK = ["--model", "sd", "--steps", "2", "--height", "128", "--width", "128", "--rows-per-shard", "2"]
MOST_SECONDS = 600


def write_rows(count: int) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(count)))


def actors(of: int) -> list[psutil.Process]:
    """The processes of Ray Data's actors below this one."""
    return [
        child for child in psutil.Process(of).children(recursive=True) if "MapWorker" in "".join(child.cmdline()[:1])
    ]


@pytest.mark.slow
def test_an_actor_killed_half_way_costs_no_row_and_no_byte(
    workplace: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else other work on the machine comes first
    write_rows(40)
    batch("alone")
    command = start("batch", "rows.jsonl", "--output", "ray", *QUICK, "--engine", "ray", "--workers", "2")
    end, killed = time.monotonic() + MOST_SECONDS, False
    while command.poll() is None and time.monotonic() < end:
        if not killed and list(Path("ray").glob("*_stats.json")):
            for process in actors(command.pid)[:1]:
                process.kill()
                killed = True
        time.sleep(0.01)
    output, errors = command.communicate(timeout=60)
    assert command.returncode == 0, errors
    assert killed
    assert held("ray") == held("alone")
    assert output.splitlines()[-1] == "ray"  # after what Ray itself says of the killed actor


def test_what_does_not_go_with_ray_is_refused(workplace: Path) -> None:
    write_rows(1)
    command = ["batch", "rows.jsonl", "--output", "out", *QUICK]
    assert "leave one out" in refuse(*command, "--engine", "ray", "--part", "0/2")
    assert "--workers is for --engine ray" in refuse(*command, "--workers", "2")
    assert not Path("out").exists()
