"""Processes that evaluate together: each part is made once, what is left is shared out, and the figures are one's."""

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from safetensors.torch import load_file

from command_line import succeed
from processes import forked, in_processes
from selfcascade.evaluation import prompts
from selfcascade.evaluation.parts import in_parts
from selfcascade.experiments.runs import Run
from selfcascade.experiments.samples_folders import lock_of, note_results, remove_finished
from selfcascade.processes import Processes, TogetherError, group, join

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
GROUPS = [range(0, 2), range(2, 4), range(4, 6), range(6, 7)]


def rows(folder: Path, processes: Processes, asked: list[int], fails: int | None = None) -> Any:
    def make(indices: range) -> dict[str, torch.Tensor]:
        if indices.start == fails:
            raise OSError(28, "No space left on device")
        asked.append(indices.start)
        return {"x": torch.tensor(indices)}

    return in_parts(make, GROUPS, folder, "parts", processes=processes)


def shared(folder: Path, rank: int) -> dict[str, Any]:
    """What two processes make of parts, of which some are there."""
    processes, asked = join(), list[int]()
    found = rows(folder / "new", processes, asked).rows("x", range(7)).tolist()
    assert found == list(range(7)) and asked == [[0, 4], [2, 6]][rank]
    processes.wait_for_everyone()
    if rank == 0:
        for number in (0, 2):
            (folder / f"new/{number:05d}.safetensors").unlink()
        (folder / "new/00003.safetensors").write_bytes(b"half")
    processes.wait_for_everyone()
    asked.clear()
    rows(folder / "new", processes, asked)
    sentences: dict[str, str] = {}
    for name, work in {
        "full": lambda: rows(folder / "full", processes, [], fails=2),
        "own disks": lambda: processes.check_shared(folder / f"disk{rank}", "runs"),
        "other disks": lambda: rows(folder / f"disk{rank}", processes, []),
    }.items():
        with pytest.raises(TogetherError) as error:
            work()
        sentences[name] = str(error.value)
    processes.check_shared(folder / "new", "runs")
    return {"asked": asked, **sentences}


def figures(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("*-n5.json")
    return {name: value for name, value in json.loads(path.read_text()).items() if "seconds" not in name}


def test_two_processes_evaluate_as_one_does(tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "GROUP", 2)
    monkeypatch.setattr(group, "LATENESS", 0.5)
    suite = tmp_path / "suite"
    suite.mkdir()
    settings: dict[str, Any] = {"samplings": {"base": {"method": "lanczos", "num_inference_steps": 1}}}
    counts = {"samples": [5], "samples_at_last": [5], "real_pictures": 8, "base_pictures": 2}
    (suite / "one.json").write_text(json.dumps(settings | counts))
    command = ["evaluate", str(suite), "--runs", str(tmp_path / "runs"), "--output"]
    succeed(*command, str(tmp_path / "alone"))
    parts = next(folder for folder in (tmp_path / "runs").glob("pivots-*") if len(list(folder.iterdir())) == 3)
    kept = {path: load_file(path)["latents"] for path in parts.iterdir()}
    for path in list(kept)[1:]:
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    def work(rank: int) -> dict[str, Any]:
        found = shared(tmp_path, rank)
        succeed(*command, str(tmp_path / "together"))
        return found

    first, second = in_processes(work)
    assert (first.pop("asked"), second.pop("asked")) == ([0, 6], [4])
    assert first == second
    assert first["full"].startswith("process 1 on ") and "No space left on device" in first["full"]
    assert first["own disks"].startswith("process 1 on ") and "runs '" in first["own disks"]
    assert first["own disks"].endswith("disk1' must be on a disk that all processes share")
    assert "00001.safetensors', which another process has written, is not seen here" in first["other disks"]
    assert figures(tmp_path / "together") == figures(tmp_path / "alone")
    assert all(torch.equal(load_file(path)["latents"], value) for path, value in kept.items())
    assert not list((tmp_path / "runs").glob("pictures-*"))


def test_samples_of_results_that_exist_are_removed_unless_another_run_holds_them(tmp_path: Path) -> None:
    done, open_ = (tmp_path / f"pictures-{name}" for name in ("done", "open"))
    result = tmp_path / "result.json"
    note_results(done, [result])
    note_results(open_, [result, tmp_path / "missing.json"])
    result.touch()
    with lock_of(done):
        assert in_processes(lambda _: remove_finished(tmp_path), 1) == [None]
        assert done.exists()
    remove_finished(tmp_path)
    assert not done.exists() and open_.exists()


@pytest.fixture
def small(tmp_path: Path, quick_model: str, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Evaluates a suite of five pictures in parts of two, and returns its figures."""
    monkeypatch.setattr(prompts, "GROUP", 2)
    (tmp_path / "suite").mkdir()
    settings: dict[str, Any] = {"samplings": {"base": {"method": "lanczos", "num_inference_steps": 1}}}
    counts = {"samples": [5], "samples_at_last": [5], "real_pictures": 8, "base_pictures": 2, "model": quick_model}
    (tmp_path / "suite/one.json").write_text(json.dumps(settings | counts))

    def evaluate(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        succeed("evaluate", str(tmp_path / "suite"), "--runs", str(folder / "runs"), "--output", str(folder / "out"))
        return figures(folder)

    return evaluate


def test_killed_at_its_writes_an_evaluation_ends_with_the_figures_of_one_that_never_was(small: Any) -> None:
    whole = small("whole")

    def killed(number: int) -> str:
        """Kills the evaluation as it puts its so many-th file in place."""
        names, replace = list[str](), Path.replace

        def counted(self: Path, target: Path) -> Path:
            names.append(str(target))
            if len(names) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        def work() -> None:
            Path.replace = counted  # type: ignore[method-assign]
            small("hurt")

        with pytest.raises(AssertionError, match="killed"):
            forked(work)()
        return "killed"

    assert [killed(number) for number in (2, 3, 4)] == ["killed"] * 3  # by its sixth write something is measured
    assert small("hurt") == whole


def test_others_wait_for_a_long_judgement_in_spite_of_a_short_time_out(small: Any) -> None:
    alone, judge = small("alone"), Run._evaluate

    def slowly(*given: Any) -> dict[str, float]:
        time.sleep(4)
        return judge(*given)

    def work(_: int) -> dict[str, Any]:
        PartialState(cpu=True, timeout=timedelta(seconds=2))
        Run._evaluate = slowly  # type: ignore[method-assign]
        return small("together")

    def barrier(rank: int) -> str:
        """What the group's own time-out does to those that wait."""
        PartialState(cpu=True, timeout=timedelta(seconds=1))
        if rank == 0:
            time.sleep(3)
            return "judged"
        try:
            dist.barrier()
        except RuntimeError as error:
            return "timed out" if "timed out" in str(error).lower() else str(error)
        return "waited"

    assert in_processes(work) == [alone, alone]
    assert in_processes(barrier) == ["judged", "timed out"]
