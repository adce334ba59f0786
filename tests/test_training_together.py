"""Processes that train together agree, or end with one sentence before the first step; a bad disk costs nothing."""

import errno
import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from diffusers import UNet2DConditionModel
from PIL import Image

from cascade_runs import QUICK
from processes import forked, in_processes
from selfcascade.data import FolderSource, ScenesSource, Stream
from selfcascade.processes import LockedError, OutputLock, TogetherError
from selfcascade.training import Trainer, agreement, checkpoints
from selfcascade.training import start as beginning
from selfcascade.training.checkpoints import CheckpointError, list_checkpoints, load_checkpoint
from selfcascade.training.sharded import whole
from training_runs import SIZE, equal, settings, trained, weights

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def said(work: Callable[[], Any]) -> str:
    try:
        work()
    except TogetherError as error:
        return str(error)
    return "no word"


def as_at_first(trainer: Trainer) -> None:
    beginning.start(trainer)


def disagreements(folder: Path, rank: int) -> dict[str, str]:
    """The sentence that ends a run if the second process has something else, by what that is."""
    found: dict[str, str] = {}
    other = rank == 1

    def build(**changes: Any) -> Trainer:
        pipe = QUICK.build()
        if other and changes.pop("base", False):
            with torch.no_grad():
                pipe.unet.down_blocks[0].resnets[0].conv1.weight.add_(1)
        config = settings(folder / f"disk {rank}", **{"max_train_steps": 4, **(changes if other else {})})
        return Trainer(pipe, config, Stream(ScenesSource(SIZE), (SIZE,)))

    for name, value in {"learning_rate": 0.5, "seed": 3, "train_batch_size": 1, "mixed_precision": "no"}.items():
        found[name] = said(lambda name=name, value=value: build(**{name: value}))
    found["preset"] = said(lambda: build(preset="full"))
    found["base"] = said(lambda: build(base=True))
    others = {**agreement.versions(), "torch": "9.9"} if other else agreement.versions()
    with put(agreement, "versions", lambda: others):
        found["version"] = said(build)
    trainer = build()
    trainer.config.folder.mkdir()
    if other:
        Image.new("RGB", SIZE).save(folder / "0.png")
        (folder / "0.txt").write_text("a house")
    trainer.processes.wait_for_everyone()
    with put(trainer.stream, "source", FolderSource(folder) if other else ScenesSource(SIZE)):
        found["data"] = said(lambda: as_at_first(trainer))
    gone = FolderSource(folder)
    trainer.processes.wait_for_everyone()
    (folder / "0.png").unlink(missing_ok=True)
    with put(trainer.stream, "source", gone if other else ScenesSource(SIZE)):
        found["a missing file"] = said(lambda: as_at_first(trainer))
    with put(trainer, "step", 4 * rank):
        found["step"] = said(lambda: as_at_first(trainer))
    resumed = {"places": [[0, 8 + rank, []]] * 2, "weights": None}
    with put(trainer, "config", trainer.config.model_copy(update={"resume_from_checkpoint": "latest"})):
        with put(beginning, "_resume", lambda *_: resumed["places"]):
            found["places"] = said(lambda: as_at_first(trainer))
        found["no checkpoint"] = said(lambda: as_at_first(trainer))
    first = next(iter(trainer.trained.values()))
    with torch.no_grad():
        first.add_(rank)
        found["weights"] = said(lambda: as_at_first(trainer))
        first.sub_(rank)
    found["nothing"] = said(lambda: as_at_first(trainer))
    with put(beginning, "remove_unfinished", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))):
        found["folder"] = said(lambda: as_at_first(trainer))
    return found


def test_twelve_disagreements_are_named_before_the_first_step(tmp_path: Path) -> None:
    first, second = in_processes(lambda rank: disagreements(tmp_path, rank))
    assert first == second
    for name in ("nothing", "no checkpoint", "mixed_precision"):
        assert first.pop(name) == "no word"
    names = {
        "learning_rate": "learning_rate is 0.01 in process 0 on .*, 0.5 in process 1 on",
        "seed": "seed is 0 in process 0 on .*, 3 in process 1",
        "train_batch_size": "train_batch_size is 2 in process 0 on .*, 1 in process 1",
        "preset": "preset is micro in process 0 on .*, full in process 1 .*; the trained weights' shapes is",
        "base": "the base model's weights is .* in process 0",
        "version": "the version of torch is .* in process 0 on .*, 9.9 in process 1",
        "data": "the data is .* in process 0 on .* in process 1",
        "a missing file": "the data is .* in process 0 on .* in process 1",
        "step": "the step is 0 in process 0 on .*, 4 in process 1",
        "places": r"the places in the data is \[\[0, 8, \[\]\], .*\] in process 0 on .* in process 1",
        "weights": "the trained weights is .* in process 0 on .* in process 1",
        "folder": "process 0 on .*: PermissionError: .*Permission denied",
    }
    assert first.keys() == names.keys()
    for name, words in names.items():
        assert re.search(words, first[name]), (name, first[name])
    assert not list(tmp_path.glob("disk*/checkpoint*")) and not list(tmp_path.glob("disk*/curve*"))


def test_machines_with_disks_of_their_own_go_on_from_the_first_ones(tmp_path: Path) -> None:
    def run(folder: str, cut: bool) -> list[dict[str, np.ndarray]]:
        def work(rank: int) -> dict[str, np.ndarray]:
            options: dict[str, Any] = {"train_batch_size": 1, "max_train_steps": 4, "use_ema": True}
            place = tmp_path / folder / f"disk {rank}"
            if cut:
                trained(place, stop_after=2, **options)
                options["resume_from_checkpoint"] = "latest"
            made = trained(place, **options)
            return {name: value.numpy() for name, value in weights(made).items()}

        return in_processes(work)

    whole, again = run("whole", cut=False), run("cut", cut=True)
    assert all(np.array_equal(again[rank][name], value) for rank in (0, 1) for name, value in whole[0].items())
    assert not list((tmp_path / "cut").glob("disk 1/*"))


def test_changed_data_is_named_and_goes_on_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(6):
        Image.new("RGB", SIZE, (40 * number, 0, 0)).save(tmp_path / f"data/{number}.bmp")
        (tmp_path / f"data/{number}.txt").write_text("a house")

    def run(**changes: Any) -> Trainer:
        config = settings(tmp_path / "run", **{"max_train_steps": 1, "checkpointing_steps": 1, **changes})
        source = FolderSource(tmp_path / "data")
        heard: list[str] = []
        made = Trainer(
            QUICK.build(), config, Stream(source, (SIZE,), may_change=config.allow_changed_data), announce=heard.append
        )
        made.run()
        return made

    run()
    state = load_checkpoint(list_checkpoints(tmp_path / "run")[-1]).state
    assert state["data"]["entries"] == 6 and len(state["data"]["digest"]) == 64
    (tmp_path / "data/5.bmp").unlink()
    again = {"max_train_steps": 2, "resume_from_checkpoint": "latest"}
    with pytest.raises(CheckpointError, match=r"train_data .* since checkpoint-000001: 6 entries then, 5 now"):
        run(**again)
    assert run(**again, allow_changed_data=True).step == 2


def test_another_run_in_the_folder_is_named(tmp_path: Path) -> None:
    def run() -> str:
        try:
            trained(tmp_path, max_train_steps=1)
        except LockedError as error:
            return str(error)
        return "no word"

    with OutputLock(tmp_path):
        assert f"is being written by process {os.getpid()} on " in forked(run)()
    assert not list_checkpoints(tmp_path) and not (tmp_path / "curve.jsonl").exists()


def test_a_disk_that_is_full_or_not_writable_costs_one_sentence_and_no_checkpoint(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", max_train_steps=4)
    folder = tmp_path / "run"
    calls: list[int] = []

    def full(*given: Any) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(*given)

    saved = checkpoints.save_file
    with put(checkpoints, "save_file", full), pytest.raises(ValueError) as caught:
        trained(folder, max_train_steps=4)
    words = (
        "cannot be written at step 4: No space left on device; "
        "continue from checkpoint-000002 with resume_from_checkpoint"
    )
    assert words in str(caught.value)
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-000002"]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    with put(time, "time", lambda: 0.0):  # and the clock was set back
        again = trained(folder, max_train_steps=4, resume_from_checkpoint="latest")
    assert equal(weights(again), weights(whole))
    assert [row["step"] for row in again.curve.rows()] == [1, 2, 3, 4]
    with put(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})), pytest.raises(ValueError) as caught:
        trained(tmp_path / "other", max_train_steps=4)
    assert "has 0.00 GiB free, and a checkpoint takes" in str(caught.value) and not (tmp_path / "other").exists()


def test_a_limit_that_the_system_sets_to_files_is_met_as_a_full_disk_is(tmp_path: Path) -> None:
    def work() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
        try:
            trained(tmp_path, max_train_steps=2)
        except ValueError as error:
            return str(error)
        return "no word"

    assert re.search(r"cannot be written at step 2: .*(File too large|os error 27)", forked(work)())
    assert [path.name for path in tmp_path.iterdir()] == ["curve.jsonl"]


def test_an_output_folder_that_is_removed_is_made_anew(tmp_path: Path) -> None:
    heard: list[str] = []

    def announce(line: str) -> None:
        heard.append(line)

    whole = trained(tmp_path / "whole", max_train_steps=4)
    folder = tmp_path / "run"
    config = settings(folder, max_train_steps=4)
    trainer = Trainer(QUICK.build(), config, Stream(ScenesSource(SIZE), (SIZE,)), announce=announce)
    step = trainer._optimizer_step

    def removed(batches: Any) -> float:
        if trainer.step == 3:
            shutil.rmtree(folder)
        return step(batches)

    with put(trainer, "_optimizer_step", removed):
        trainer.run()
    assert equal(weights(trainer), weights(whole)) and (folder / "diffusion_pytorch_model.safetensors").exists()
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-000004"]
    assert json.loads((folder / "curve.jsonl").read_text().splitlines()[-1])["step"] == 4


@pytest.mark.slow
def test_two_processes_that_share_the_weights_take_the_steps_of_one_and_resume_bit_for_bit(tmp_path: Path) -> None:
    """FSDP2; accelerate turns it on for accelerators alone, so these CPUs say that they are some."""
    shared = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    shared["FSDP_TRANSFORMER_CLS_TO_WRAP"] = "BasicTransformerBlock"

    def run(folder: str, processes: int, **options: Any) -> dict[str, np.ndarray]:
        def work(_: int) -> dict[str, np.ndarray]:
            if processes > 1:
                PartialState(cpu=True)
                PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
            # Adam divides by the gradient's size: with an epsilon of 1e-8, rounding decides the steps of weights that
            # have almost no gradient.
            adam = {"learning_rate": 1e-3, "adam_epsilon": 1e-5}
            given = {"method": "full", "max_train_steps": 3, **adam, **options}
            made = trained(tmp_path / folder, **given)
            assert made.sharded == (processes > 1)
            return {name: whole(value).numpy() for name, value in weights(made).items()}

        return in_processes(work, processes, **(shared if processes > 1 else {}))[0]

    one, two = run("one", 1, train_batch_size=2), run("two", 2, train_batch_size=1)
    assert all(np.allclose(two[name], value, atol=2e-6) for name, value in one.items())  # 1/500 of a step
    run("cut", 2, train_batch_size=1, stop_after=2)
    again = run("cut", 2, train_batch_size=1, resume_from_checkpoint="latest")
    assert all(np.array_equal(again[name], value) for name, value in two.items())
    saved = UNet2DConditionModel.from_pretrained(tmp_path / "two", subfolder="unet")
    assert all(np.array_equal(two[name], value.detach().numpy()) for name, value in saved.named_parameters())
