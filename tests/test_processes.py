"""Processes that work together: their group, what they must agree on, and the lock of the folder that they write."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import forked, in_processes
from selfcascade.processes import LockedError, OutputLock, TogetherError, join
from selfcascade.processes.lock import NAME

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def said(work: Callable[[], Any]) -> str:
    """The sentence that a run ends with."""
    try:
        work()
    except TogetherError as error:
        return str(error)
    return ""


def test_two_processes_agree_or_end_with_one_sentence_that_names_what_differs_and_where() -> None:
    same = {"the step": 4, "the data": "a", "torch": "2.13", "train_batch_size": 2}

    def work(rank: int) -> dict[str, str]:
        processes = join()
        assert (processes.process_index, processes.num_processes) == (rank, 2) and processes.device.type == "cpu"
        assert processes.gathered(rank * 3) == [0, 3] and processes.from_main(f"by {rank}") == "by 0"
        tensors = {"a": torch.arange(5.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
        given = processes.tensors_from_main(tensors if rank == 0 else None)
        assert (
            all(torch.equal(given[name], value) for name, value in tensors.items()) and given.keys() == tensors.keys()
        )
        found = {name: said(lambda name=name: processes.check_agreement({**same, name: f"{rank}!"})) for name in same}
        found["all"] = said(lambda: processes.check_agreement(same))
        found["missing"] = said(lambda: processes.check_agreement(same if rank else {"the step": 4}))

        def open_file() -> str:
            return Path(__file__ if rank == 0 else "/nowhere/weights").read_text()[:3]

        found["file"] = said(lambda: processes.together(open_file))
        found["main"] = said(lambda: processes.main_alone(lambda: Path("/nowhere/state").read_text()))
        found["both"] = said(lambda: processes.together(lambda: int("a")))
        assert processes.together(lambda: rank) == rank
        return found

    first, second = in_processes(work)
    assert first == second
    assert first.pop("all") == ""
    for name in same:
        assert f"do not agree: {name} is 0! in process 0 on " in first[name] and "1! in process 1 on" in first[name]
        assert ";" not in first[name]
    assert "the data is missing in process 0 on" in first["missing"]
    assert (
        first["file"].startswith("process 1 on ") and "No such file or directory: '/nowhere/weights'" in first["file"]
    )
    assert first["main"].startswith("process 0 on ") and "/nowhere/state" in first["main"]
    assert first["both"] == "invalid literal for int() with base 10: 'a'"


@pytest.mark.parametrize(
    "name", ["WORLD_SIZE", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
)
def test_processes_that_form_no_group_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert join().num_processes == 1
    monkeypatch.setenv(name, "4")
    with pytest.raises(ValueError, match=f"{name} says that 4 processes were started, but they form no group"):
        join()


def test_one_task_of_a_slurm_job_is_not_taken_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert join().num_processes == 1


def test_a_folder_has_one_owner_who_is_named_and_may_take_it_twice(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def take() -> str:
        try:
            with OutputLock(folder):
                return ""
        except LockedError as error:
            return str(error)

    with OutputLock(folder), OutputLock(folder):
        refused = forked(take)()
        assert f"{str(folder)!r} is being written by process {os.getpid()} on " in refused
        with OutputLock(tmp_path / "other"):
            pass
    assert forked(take)() == "" and take() == "" and not folder.exists()


def test_a_killed_owner_leaves_no_lock_behind_even_if_its_children_live_on(tmp_path: Path) -> None:
    def hold() -> None:
        with OutputLock(tmp_path):
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError, match="killed"):
        forked_without_pipe(hold)
    assert (tmp_path / NAME).exists()
    with OutputLock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def forked_without_pipe(work: Callable[[], None]) -> None:
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, "killed"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),  # this machine's, and the kernel gave the lock: it has ended
        ({"boot": "another"}, False),  # this machine was switched off since
        ({"host": "node-b", "machine": "b", "boot": "b"}, True),
        ({"host": "a-container"}, False),  # by the same kernel
    ],
)
def test_a_lock_of_another_machine_says_how_to_remove_it(
    tmp_path: Path, changes: dict[str, str], refused: bool
) -> None:
    with OutputLock(tmp_path):
        owner = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**owner, "pid": 1, "started": "1", "since": "then", **changes}))
    if not owner["machine"] and changes == {"boot": "another"}:
        pytest.skip("the machine has no name of its own")
    if refused:
        with pytest.raises(LockedError, match=rf"process 1 on node-b since then; if .* ended, remove '.*{NAME}'"):
            OutputLock(tmp_path).__enter__()
        (tmp_path / NAME).unlink()
    with OutputLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_lock_that_a_kill_cut_short_is_taken(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with OutputLock(tmp_path):
        pass


def test_without_locks_of_the_kernel_the_owners_number_and_start_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfcascade.processes.lock.fcntl", None)
    with OutputLock(tmp_path):
        alive = (tmp_path / NAME).read_text()
    child = os.fork()
    if child == 0:
        time.sleep(60)
    owner = {**json.loads(alive), "pid": child}
    stat = Path(f"/proc/{child}/stat").read_text()
    (tmp_path / NAME).write_text(json.dumps({**owner, "started": stat.rpartition(")")[2].split()[19]}))
    with pytest.raises(LockedError, match=f"by process {child} on"):
        OutputLock(tmp_path).__enter__()
    (tmp_path / NAME).write_text(json.dumps({**owner, "started": "1"}))  # its number, given anew
    with OutputLock(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir '.*file/run' cannot be written: Not a directory"):
        OutputLock(tmp_path / "file/run").__enter__()
