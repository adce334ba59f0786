"""Folders of samples that are kept until their results exist: their locks, and the removal of leftovers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from selfcascade.media.images import file_sha256
from selfcascade.media.whole_files import write_whole
from selfcascade.models import BUNDLED_SUPER_RESOLVER
from selfcascade.processes import LockedError, OutputLock
from selfcascade.training.checkpoints import list_checkpoints

PICTURES_OF = "pictures-"
NOTE = "results.json"


def lock_of(folder: Path) -> OutputLock:
    """The lock of a folder of samples, held by the run that makes them; the lock file is next to the folder."""
    return OutputLock(folder.parent, f".{folder.name}.lock", "runs")


def note_results(folder: Path, paths: Sequence[Path]) -> None:
    """Writes into a folder which results its samples are for."""
    text = json.dumps([str(path.resolve()) for path in paths], indent=1) + "\n"
    write_whole(folder / NOTE, lambda aside: aside.write_text(text))


def remove_finished(runs: Path) -> None:
    """Removes samples whose results exist already, left by a run that was killed."""
    for note in runs.glob(f"{PICTURES_OF}*/{NOTE}"):
        try:
            with lock_of(note.parent):
                if all(Path(path).exists() for path in json.loads(note.read_text())):
                    shutil.rmtree(note.parent)
        except LockedError:  # another run makes them
            continue


def rewind(folder: Path, first: int) -> int:
    """The step to train on from: that of the newest checkpoint up to step `first`; newer ones go."""
    left = 0
    for place in list_checkpoints(folder):
        step = int(place.name.rpartition("-")[2])
        if step <= first:
            left = step
        else:
            shutil.rmtree(place)
    return left


def digests_of(weights: str | None) -> list[str]:
    """The name of a sampling's weights, and the SHA-256 of each file if they are a file or in a folder."""
    folder = BUNDLED_SUPER_RESOLVER if weights == "bundled" else Path(weights or "")
    found = sorted(folder.rglob("*.safetensors")) if weights and folder.is_dir() else []
    found += [folder] if folder.is_file() else []
    return [str(weights), *(file_sha256(path) for path in found)]
