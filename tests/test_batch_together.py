"""A batch on two processes of a group, and on disks that give out: nothing is lost, and one sentence says why."""

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import run
from processes import forked, in_processes
from selfcascade import METHODS
from selfcascade.batch import work
from test_batch import batch, held, members, rows

__all__ = ["rows"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
QUICK = ["--model", "sd", "--steps", "2", "--height", "128", "--width", "128", "--rows-per-shard", "2"]
NOBODY = 65534


def told(*more: str, output: str = "hurt", before: Callable[[], Any] = lambda: None) -> tuple[int, list[str]]:
    """Status and lines of stderr of the batch in this process."""
    before()
    result = run("batch", "rows.jsonl", "--output", output, *QUICK, *more)
    return result.exit_code, [line for line in result.stderr.splitlines() if line.startswith("selfcascade:")]


def lose_power() -> None:
    """Lets permissions count, which they do not for root."""
    if os.geteuid() == 0:
        Path.cwd().chmod(0o755)
        os.seteuid(NOBODY)


def failing() -> None:
    """Rows of the direct method run out of memory from now on."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    type(METHODS["direct"]).__call__ = fail  # type: ignore[method-assign]


def test_two_processes_list_what_failed_and_make_it_again(rows: Path) -> None:
    lines = [{"prompt": f"row {number}", **({"method": "direct"} if number in (1, 4) else {})} for number in range(5)]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batch()
    first, second = in_processes(lambda _: told(before=failing))
    assert first[0] == 1 and any("2 rows failed" in line for line in first[1]) and second == (0, [])
    failed = list(map(json.loads, Path("hurt/failed.jsonl").read_text().splitlines()))
    assert [(row["row"], row["reason"]) for row in failed] == [
        (1, "RuntimeError: out of memory"),
        (4, "RuntimeError: out of memory"),
    ]
    assert not any(name.startswith(("000000001", "000000004")) for name in members("hurt"))
    again = in_processes(lambda _: told())
    assert [status for status, _ in again] == [1, 0] and Path("hurt/failed.jsonl").exists()  # not tried unasked
    retried = in_processes(lambda _: told("--retry-failed"))
    assert [status for status, _ in retried] == [0, 0]
    assert held("hurt") == held("out")


def test_a_limit_to_files_is_met_as_a_full_disk_is(rows: Path) -> None:
    batch()
    largest = max(path.stat().st_size for path in Path("out").glob("*.tar"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))  # a part fits, and no shard does

    status, lines = forked(lambda: told(before=limit))()
    assert status == 2 and len(lines) == 1
    words = r"there is no more room in output 'hurt' \(File too large\); what is finished is kept; run the same command"
    assert re.search(words, lines[0])
    assert len(list(Path("hurt").glob(".parts/00000/*.tar"))) == 2 and not list(Path("hurt").rglob(".selfcascade-*"))
    batch("hurt")
    assert held("hurt") == held("out")


def test_a_folder_that_may_not_be_written_is_refused_before_the_model_is_loaded(rows: Path) -> None:
    Path("closed").mkdir()
    Path("closed").chmod(0o555)

    status, lines = forked(lambda: told(output="closed/hurt", before=lose_power))()
    assert (status, lines) == (2, lines[:1])
    assert status == 2 and len(lines) == 1 and re.search(r"'closed(/hurt)?.*(cannot be written|not writable)", lines[0])
    assert not list(Path("closed").iterdir())


def test_a_folder_that_is_closed_meanwhile_keeps_what_is_finished(rows: Path) -> None:
    batch()
    make, calls = work.make_together, list[int]()

    def closing(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            for folder in (Path("hurt"), *Path("hurt").rglob("*/")):
                folder.chmod(0o555)
            lose_power()
        return make(*given)

    def patch() -> None:
        work.make_together = closing

    status, lines = forked(lambda: told(before=patch))()
    assert (status, lines) == (2, lines[:1])
    assert "output 'hurt' cannot be written: Permission denied; what is finished is kept" in lines[0]
    for folder in (Path("hurt"), *Path("hurt").rglob("*/")):
        folder.chmod(0o755)
    assert len(list(Path("hurt").glob("*.tar"))) == 1
    batch("hurt")
    assert held("hurt") == held("out")
