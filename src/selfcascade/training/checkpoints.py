"""Atomic checkpoints whose damage is detected.

A checkpoint is a folder `checkpoint-000123` of safetensors and JSON files with a manifest of their sizes and SHA-256.
It is written under a temporary name, all files and folders are synced to disk, and only then it is renamed. So a kill
at any moment leaves earlier checkpoints untouched; a complete one that was not renamed yet is used by the next run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selfcascade.options.checks import is_whole
from selfcascade.options.json_files import parse_json

MANIFEST = "manifest.json"
SCHEMA = 1
NAME = re.compile(r"checkpoint-([0-9]{6,})")
PART = ".part"
REPLACED = f".replaced{PART}"
SUPERSEDED = ".superseded"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, and the newest intact checkpoint if there is one."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run.

    Attributes:
        step: Number of optimizer steps done.
        tensors: Named tensors for each file name ("weights", "optimizer", ...).
        state: Everything else, as JSON: settings, data positions, fingerprints.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int | None = None) -> Path:
    """Writes `folder/checkpoint-STEP` atomically, then removes all others but the newest `keep` - 1.

    Args:
        folder: The run's output folder.
        checkpoint: Tensors of any device and floating-point type.
        keep: Number of checkpoints to keep; None keeps all.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: `keep` is not a positive whole number.
        OSError: The disk is full or not writable; then nothing of this checkpoint is left.
    """
    if keep is not None and not is_whole(keep):
        raise ValueError(f"checkpoints_total_limit must be a positive whole number, not {keep!r}")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"checkpoint-{checkpoint.step:06d}"
    aside = place.with_name(place.name + PART)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        for name, tensors in checkpoint.tensors.items():
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, aside / _file(name))
        (aside / "state.json").write_text(json.dumps(checkpoint.state, indent=1, sort_keys=True) + "\n")
        files = {path.name: _digest(path) for path in sorted(aside.iterdir())}
        manifest = {"schema": SCHEMA, "step": checkpoint.step, "files": files}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in (*aside.iterdir(), aside):
            _sync(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    replaced = place.with_name(place.name + REPLACED)
    if place.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        place.rename(replaced)
    aside.rename(place)
    _sync(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    if keep is not None:
        others = [path for path in list_checkpoints(folder) if path != place]
        for old in others[: max(0, len(others) - keep + 1)]:
            # Renamed first: a kill during the removal must not leave half a checkpoint under its name.
            gone = old.with_name(old.name + PART)
            shutil.rmtree(gone, ignore_errors=True)
            old.rename(gone)
            shutil.rmtree(gone)
    return place


@contextmanager
def written(folder: Path, step: int) -> Iterator[None]:
    """Turns errors of writing in this context into one ValueError; earlier checkpoints stay unchanged."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        found = latest_whole(folder)
        remedy = "" if found is None else f"; continue from {found.name} with resume_from_checkpoint 'latest'"
        words = f"{getattr(error, 'strerror', None) or error}{remedy}"
        raise ValueError(f"output_dir {str(folder)!r} cannot be written at step {step}: {words}") from error


def load_checkpoint(place: Path) -> Checkpoint:
    """Reads a checkpoint, and verifies all of its files.

    Raises:
        CheckpointError: A file is missing, truncated, altered or unreadable; the message offers the newest intact one.
    """
    try:
        manifest = _verified(place)
        tensors = {
            name.removesuffix(".safetensors"): load_file(place / name)
            for name in manifest["files"]
            if name.endswith(".safetensors")
        }
        state = json.loads((place / "state.json").read_text())
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_offer(place)}") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{place.name} cannot be read: {error}{_offer(place)}") from error
    return Checkpoint(manifest["step"], tensors, state)


def find_checkpoint(folder: Path, wanted: str) -> Path | None:
    """The checkpoint to resume from; None for "latest" if there is none yet.

    Args:
        folder: The run's output folder.
        wanted: "latest", or the name or path of a checkpoint.

    Raises:
        CheckpointError: The checkpoint does not exist. (A damaged latest one is returned; loading it raises.)
    """
    if wanted == "latest":
        found = list_checkpoints(folder)
        return found[-1] if found else None
    place = folder / wanted if NAME.fullmatch(wanted) else Path(wanted)
    if not place.is_dir():
        known = ", ".join(path.name for path in list_checkpoints(folder)) or "none"
        raise CheckpointError(f"resume_from_checkpoint {wanted!r} is not there; checkpoints of this run: {known}")
    return place


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def remove_unfinished(folder: Path) -> list[str]:
    """Removes leftovers of a killed save, and returns their names; a complete checkpoint is renamed instead."""
    if not folder.is_dir():
        return []
    left = sorted(path for path in folder.iterdir() if path.name.endswith(PART) and NAME.match(path.name))
    removed = []
    for path in left:
        place = folder / path.name[: -len(PART)]
        if NAME.fullmatch(place.name) and not place.exists() and _is_whole(path, place.name):
            path.rename(place)
        else:
            shutil.rmtree(path)
            removed.append(path.name)
    _sync(folder)
    return removed


def refuse_earlier_run(folder: Path) -> None:
    """Raises CheckpointError if the folder has checkpoints or a curve of an earlier run, which would be mixed up."""
    found = [path.name for path in (*list_checkpoints(folder)[-1:], folder / "curve.jsonl") if path.exists()]
    if found:
        raise CheckpointError(
            f"output_dir {str(folder)!r} holds {found[0]} of an earlier run; continue it with resume_from_checkpoint "
            f"'latest', or give another output_dir"
        )


def set_aside_after(folder: Path, step: int) -> list[str]:
    """Renames checkpoints of later steps, which a resumed run will make again, and returns their new names."""
    renamed = []
    for place in list_checkpoints(folder):
        if int(place.name.rpartition("-")[2]) > step:
            aside = place.with_name(place.name + SUPERSEDED)
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
            renamed.append(aside.name)
    return renamed


def latest_whole(folder: Path, other_than: Path | None = None) -> Path | None:
    """The newest checkpoint with all files intact."""
    for place in reversed(list_checkpoints(folder)):
        if (other_than is None or place.name != other_than.name) and _is_whole(place, place.name):
            return place
    return None


def _is_whole(place: Path, name: str) -> bool:
    try:
        _verified(place, name)
    except (CheckpointError, OSError):
        return False
    return True


def _verified(place: Path, name: str | None = None) -> dict[str, Any]:
    path = place / MANIFEST
    try:
        manifest = parse_json(path.read_text())
        files, step, schema = manifest["files"], manifest["step"], manifest["schema"]
        files = {name: {"bytes": int(file["bytes"]), "sha256": str(file["sha256"])} for name, file in files.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{place.name}/{MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{place.name}/{MANIFEST} is damaged ({type(error).__name__})") from None
    if schema != SCHEMA:
        raise CheckpointError(f"{place.name} has format {schema!r}, and this version reads {SCHEMA}")
    if not isinstance(step, int) or (name or place.name) != f"checkpoint-{step:06d}" or "state.json" not in files:
        raise CheckpointError(f"{place.name}/{MANIFEST} is damaged: it does not describe this checkpoint")
    for key, written in files.items():
        file = place / key
        if Path(key).name != key or not file.is_file():
            raise CheckpointError(f"{place.name}/{key} is missing")
        if file.stat().st_size != written["bytes"]:
            raise CheckpointError(
                f"{place.name}/{key} is damaged: {file.stat().st_size} bytes, {written['bytes']} written"
            )
        if _digest(file) != written:
            raise CheckpointError(f"{place.name}/{key} is damaged: its SHA-256 is not the one that was written")
    return {**manifest, "files": files}


def _offer(place: Path) -> str:
    whole = latest_whole(place.parent, other_than=place)
    return "; no whole checkpoint is left" if whole is None else f"; the newest whole checkpoint is {whole.name}"


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
