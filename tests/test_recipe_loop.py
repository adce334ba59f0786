"""The recipe's training loop: a run that was cut ends as one that never was, and damage is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from averages import averaged_weights
from loop import Draw, Schedule, Training
from optimizers import make_optimizers
from selfcascade.training.checkpoints import CheckpointError, list_checkpoints

SCHEDULE = {"steps": 8, "decay": 4, "batch_size": 4, "warmup": 2, "log_every": 2, "checkpoint_every": 4}


class Net(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, width, 3, padding=1), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu().mean((2, 3)))


def training(folder: Path, width: int = 5, cut_after: int | None = None, **settings: int) -> Training:
    torch.manual_seed(0)

    def loss_of(module: nn.Module, draw: Draw) -> dict[str, torch.Tensor]:
        if draw.step == cut_after:
            raise KeyboardInterrupt
        x = torch.randn(draw.count, 2, 4, 4, generator=draw.generator)
        error = (module(x)[:, 0] - x.mean((1, 2, 3))).square().mean()
        return {"loss": error, "mean": x.mean()}

    def optimizers(module: nn.Module) -> list[torch.optim.Optimizer]:
        return make_optimizers(module, 0.02, 0.001, ("last",), 0.01)

    schedule = Schedule.of({**SCHEDULE, "snapshot_every": 2, "name": "more than a schedule", **settings})
    return Training(folder, Net(width), optimizers, schedule, loss_of, mixed_precision="no")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_was_cut_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = training(tmp_path / "whole")
    assert whole.run()
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "cut", cut_after=6).run()
    resumed = training(tmp_path / "cut")
    assert resumed.run() and resumed.step == 8
    assert same(dict(whole.module.state_dict()), dict(resumed.module.state_dict()))
    for one, other in zip(whole.averages, resumed.averages, strict=True):
        assert same(one.tensors, other.tensors)
    assert same(averaged_weights(tmp_path / "whole/averages", 0.07), averaged_weights(tmp_path / "cut/averages", 0.07))
    losses = [[(row["step"], row["loss"]) for row in run.curve.rows()] for run in (whole, resumed)]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [2, 4, 6, 8]


def test_a_signal_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    run = training(tmp_path)
    loss_of = run.loss_of

    def asked(module: nn.Module, draw: Draw) -> dict[str, torch.Tensor]:
        if draw.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return dict(loss_of(module, draw))

    run.loss_of = asked
    assert not run.run() and [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-000003"]
    whole, resumed = training(tmp_path / "whole"), training(tmp_path)
    assert whole.run() and resumed.run()
    assert same(dict(whole.module.state_dict()), dict(resumed.module.state_dict()))


def test_a_longer_run_goes_on_and_a_finished_one_does_nothing(tmp_path: Path) -> None:
    first = training(tmp_path)
    assert first.run()
    again = training(tmp_path)
    assert again.run() and same(dict(first.module.state_dict()), dict(again.module.state_dict()))
    longer = training(tmp_path, steps=10)
    assert longer.run() and longer.step == 10


def test_another_networks_checkpoint_is_refused(tmp_path: Path) -> None:
    training(tmp_path).run()
    with pytest.raises(CheckpointError, match="another network than config"):
        training(tmp_path, width=6).run()


def test_validation_sees_the_averaged_weights_and_leaves_the_trained_ones(tmp_path: Path) -> None:
    run, seen = training(tmp_path), []

    def validate(step: int, module: nn.Module) -> dict[str, float]:
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})
        return {"step": float(step)}

    run.validate = validate
    assert run.run() and len(seen) == 2
    assert same(seen[-1], run.averages[0].tensors)
    plain = training(tmp_path / "plain")
    assert plain.run() and same(dict(plain.module.state_dict()), dict(run.module.state_dict()))
    assert [row["validation_step"] for row in run.curve.rows() if "validation_step" in row] == [4, 8]


def test_rates_rise_stay_and_fall() -> None:
    schedule = Schedule(steps=10, decay=4, batch_size=1, warmup=2, floor=0.1)
    assert [schedule.rate(step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert schedule.rate(10) == 0.1


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    run = training(tmp_path)
    run.loss_of = lambda module, draw: {"loss": module.last.weight.sum() * float("nan")}
    with pytest.raises(FloatingPointError, match="step 1 of"):
        run.run()
    assert not list_checkpoints(tmp_path)


@pytest.mark.slow
def test_two_processes_have_the_same_weights_and_go_on_as_if_never_cut(tmp_path: Path) -> None:
    recipe = Path(__file__).parents[1] / "recipes/bundled"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(recipe), os.environ.get("PYTHONPATH", "")]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    for folder, cut_after in (("whole", -1), ("cut", 6), ("cut", -1)):
        command = [*launch, str(tmp_path / folder), str(cut_after)]
        subprocess.run(command, env=environment, check=True, timeout=200)
    files = [tmp_path / folder / f"rank-{rank}.safetensors" for folder in ("whole", "cut") for rank in (0, 1)]
    weights = [load_file(file) for file in files]
    assert all(same(weights[0], other) for other in weights[1:])
    alone = training(tmp_path / "alone")
    assert alone.run() and not same(weights[0], dict(alone.module.state_dict()))  # each process draws its own samples


def one_of_several_processes(folder: Path, cut_after: int) -> None:
    """Trains in a process of a group, and writes its own weights if it comes to the end."""
    run = training(folder, cut_after=cut_after)
    assert run.accelerator.num_processes == 2
    try:
        run.run()
    except KeyboardInterrupt:
        return
    save_file(dict(run.module.state_dict()), folder / f"rank-{run.accelerator.process_index}.safetensors")


if __name__ == "__main__":
    one_of_several_processes(Path(sys.argv[1]), int(sys.argv[2]))
