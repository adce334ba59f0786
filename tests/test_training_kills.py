"""A training run that is killed while it saves, again and again, ends with the weights of one that never was."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfcascade.training import checkpoints
from selfcascade.training.checkpoints import CheckpointError, list_checkpoints
from training_runs import equal, trained, weights

STEPS = 12


def killed_at(moment: int, hit: list[int]) -> None:
    """Lets the process kill itself at the so many-th file operation of its saves."""

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            hit.append(1)
            if len(hit) > moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)

        return call

    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    checkpoints.save_file = counted(checkpoints.save_file)  # type: ignore[attr-defined]
    checkpoints._digest = counted(checkpoints._digest)  # type: ignore[assignment]


def child(folder: Path, moment: int, options: dict[str, Any]) -> int:
    """Runs the training in a process of its own, killed at that moment of saving; how it ended."""
    process = os.fork()
    if process == 0:
        try:
            torch.set_num_threads(1)
            killed_at(moment, [])
            trained(folder, resume_from_checkpoint="latest", **options)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_at_ten_moments_of_saving_a_run_still_ends_with_the_same_weights(tmp_path: Path) -> None:
    options = {"max_train_steps": STEPS, "checkpointing_steps": 1, "checkpoints_total_limit": 2, "train_batch_size": 1}
    whole = trained(tmp_path / "whole", **options)
    generator, folder, reached = torch.Generator().manual_seed(0), tmp_path / "killed", set()
    for _ in range(10):
        # A dozen file operations make a checkpoint, so it is killed in its first or second.
        moment = int(torch.randint(1, 17, (), generator=generator))
        assert child(folder, moment, options) == -signal.SIGKILL
        found = list_checkpoints(folder)
        reached.add(int(found[-1].name[-6:]) if found else 0)
    assert len(reached) > 3 and max(reached) < STEPS
    last = trained(folder, resume_from_checkpoint="latest", **options)
    assert last.step == STEPS and equal(weights(last), weights(whole))
    rows = [[row["loss"] for row in trainer.curve.rows()] for trainer in (last, whole)]
    assert rows[0] == rows[1]
    with pytest.raises(CheckpointError, match="of an earlier run"):
        trained(folder, **options)
