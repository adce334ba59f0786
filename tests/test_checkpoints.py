"""Checkpoints: whole or absent whatever happens, and every kind of damage named."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from checkpoint_files import checkpoint_at
from selfcascade.training.checkpoints import (
    CheckpointError,
    find_checkpoint,
    latest_whole,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path, checkpoint_at(7))
    loaded = load_checkpoint(place)
    assert place.name == "checkpoint-000007" and loaded.step == 7 and loaded.state == checkpoint_at(7).state
    assert loaded.tensors.keys() == {"weights", "optimizer"}
    for name, value in checkpoint_at(7).tensors["weights"].items():
        assert (
            torch.equal(loaded.tensors["weights"][name], value) and loaded.tensors["weights"][name].dtype == value.dtype
        )


@pytest.mark.parametrize("keep", range(1, 8))
def test_as_many_are_kept_as_asked_for(tmp_path: Path, keep: int) -> None:
    for step in range(1, 11):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=keep)
        expected = [f"checkpoint-{one:06d}" for one in range(max(1, step - keep + 1), step + 1)]
        assert [path.name for path in list_checkpoints(tmp_path)] == expected


def test_the_newest_are_kept_and_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-000009", "checkpoint-000010"]
    save_checkpoint(tmp_path, checkpoint_at(10), keep=2)
    assert load_checkpoint(tmp_path / "checkpoint-000010").step == 10
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-000010"
    assert find_checkpoint(tmp_path, "checkpoint-000009") == tmp_path / "checkpoint-000009"
    assert find_checkpoint(tmp_path / "nowhere", "latest") is None
    with pytest.raises(CheckpointError, match="checkpoints of this run: checkpoint-000009, checkpoint-000010"):
        find_checkpoint(tmp_path, "checkpoint-000003")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "weights missing": ("weights.safetensors", Path.unlink, "weights.safetensors is missing"),
    "weights truncated": ("weights.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-4]), "is damaged: .* bytes"),
    "weights longer": ("weights.safetensors", lambda p: p.write_bytes(p.read_bytes() + b"\0"), "is damaged: .* bytes"),
    "weights empty": ("weights.safetensors", lambda p: p.write_bytes(b""), "is damaged: 0 bytes"),
    "weights flipped": ("weights.safetensors", flipped, "weights.safetensors is damaged: its SHA-256"),
    "weights a folder": ("weights.safetensors", lambda p: (p.unlink(), p.mkdir()), "weights.safetensors is missing"),
    "optimizer missing": ("optimizer.safetensors", Path.unlink, "optimizer.safetensors is missing"),
    "optimizer flipped": ("optimizer.safetensors", flipped, "optimizer.safetensors is damaged: its SHA-256"),
    "state missing": ("state.json", Path.unlink, "state.json is missing"),
    "state empty": ("state.json", lambda p: p.write_bytes(b""), "state.json is damaged: 0 bytes"),
    "state flipped": ("state.json", flipped, "state.json is damaged: its SHA-256"),
    "manifest missing": ("manifest.json", Path.unlink, "manifest.json is missing"),
    "manifest empty": ("manifest.json", lambda p: p.write_bytes(b""), "manifest.json is damaged"),
    "manifest truncated": ("manifest.json", lambda p: p.write_bytes(p.read_bytes()[:40]), "manifest.json is damaged"),
    "manifest not JSON": ("manifest.json", lambda p: p.write_text("weights"), "manifest.json is damaged"),
    "manifest a list": ("manifest.json", lambda p: p.write_text("[]"), "manifest.json is damaged"),
    "manifest not text": ("manifest.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "manifest.json is damaged"),
    "manifest of another step": ("manifest.json", edited(step=3), "does not describe this checkpoint"),
    "manifest of no files": ("manifest.json", edited(files={}), "does not describe this checkpoint"),
    "manifest from the future": ("manifest.json", edited(schema=99), "has format 99, and this version reads 1"),
    "manifest that climbs out": (
        "manifest.json",
        edited(files={name: {"bytes": 1, "sha256": ""} for name in ("../checkpoint-000001/state.json", "state.json")}),
        "state.json is missing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_named_and_the_newest_whole_one_offered_but_not_taken(tmp_path: Path, fault: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint_at(step))
    name, damage, message = FAULTS[fault]
    damage(tmp_path / "checkpoint-000002" / name)
    place = find_checkpoint(tmp_path, "latest")
    assert place is not None and place.name == "checkpoint-000002"
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(place)
    assert str(caught.value).endswith("the newest whole checkpoint is checkpoint-000001")
    assert "\n" not in str(caught.value)


def test_where_none_is_whole_it_says_so(tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path, checkpoint_at(1))
    (place / "state.json").unlink()
    with pytest.raises(CheckpointError, match="no whole checkpoint is left"):
        load_checkpoint(place)


def test_a_failed_save_leaves_nothing_and_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint_at(1), keep=1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint_at(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001"]
    assert load_checkpoint(tmp_path / "checkpoint-000001").step == 1


def test_a_kill_between_two_names_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint_at(step))
    rename, place = Path.rename, tmp_path / "checkpoint-000002"

    def killed(self: Path, target: Path) -> Path:
        if target == place:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        save_checkpoint(tmp_path, checkpoint_at(2))
    assert not place.exists()
    assert remove_unfinished(tmp_path) == ["checkpoint-000002.replaced.part"]
    assert load_checkpoint(place).step == 2 and len(list(tmp_path.iterdir())) == 2


def test_the_one_just_written_stays_though_later_steps_are_there(tmp_path: Path) -> None:
    for step in (4, 6, 2):
        save_checkpoint(tmp_path, checkpoint_at(step), 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-000002", "checkpoint-000006"]


@pytest.mark.parametrize("keep", [0, -1, True])
def test_at_least_one_is_kept(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match="checkpoints_total_limit must be a positive whole number"):
        save_checkpoint(tmp_path, checkpoint_at(1), keep=keep)


def saving(folder: Path, step: int) -> tuple[int, BinaryIO]:
    """A forked process that saves checkpoints one after another, and what it says: the step of each that is there."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        while True:
            step += 1
            save_checkpoint(folder, checkpoint_at(step, 200_000), keep=2)
            os.write(writing, f"{step}\n".encode())
    os.close(writing)
    return process, os.fdopen(reading, "rb")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_at_ten_moments_of_saving_each_time_it_goes_on_from_a_whole_one(tmp_path: Path) -> None:
    step, rng = 0, torch.Generator().manual_seed(0)
    for _ in range(10):
        process, output = saving(tmp_path, step)
        said = int(output.readline())
        time.sleep(float(torch.rand((), generator=rng)) * 0.05)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        with output:
            said = max([said, *(int(line) for line in output.read().split())])
        remove_unfinished(tmp_path)
        assert all(path.name.startswith("checkpoint-") and "." not in path.name for path in tmp_path.iterdir())
        place = find_checkpoint(tmp_path, "latest")
        assert place is not None and place == latest_whole(tmp_path)
        loaded = load_checkpoint(place)
        assert loaded.step >= said > step
        assert torch.equal(loaded.tensors["weights"]["a"], checkpoint_at(loaded.step, 200_000).tensors["weights"]["a"])
        step = loaded.step
