"""Files are whole or absent, what a killed process left is removed, and pairs of files are replaced together."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfcascade.cli.console import note, plain
from selfcascade.media.save_clips import save_clip
from selfcascade.media.save_pictures import save_picture
from selfcascade.media.whole_files import HOST, temporary_file, temporary_prefix, write_whole

WAITS = """
import sys, time
from pathlib import Path
from selfcascade.media.whole_files import temporary_file
with temporary_file(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    gone = process.pid
    assert names(tmp_path)[0].startswith(f".selfcascade-{HOST}-{gone}-")
    folder = tmp_path / f".selfcascade-{HOST}-{gone}-frames"
    folder.mkdir()
    (folder / "0001.png").write_bytes(b"of an earlier clip")
    files = [f".selfcascade-{HOST}-{os.getppid()}-a.part", f".selfcascade-elsewhere-{gone}-a.part", ".selfcascade.json"]
    for name in files:
        (tmp_path / name).write_bytes(b"")
    kept = [*files, folder.name]
    with temporary_file(tmp_path) as own:
        assert names(tmp_path) == sorted([*kept, own.name])
        assert own.name.startswith(temporary_prefix(tmp_path))
    assert names(tmp_path) == sorted(kept)


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("earlier")

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a", fail)
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "earlier"


@pytest.mark.parametrize(("there", "replaces"), [(False, 0), (False, 1), (True, 0), (True, 1), (True, 2)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_picture_and_its_record_are_replaced_together_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: int, error: type[BaseException], there: bool
) -> None:
    path = tmp_path / "a.png"
    if there:
        path.write_bytes(b"earlier")
        path.with_suffix(".json").write_text("earlier")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    replace, done = Path.replace, list[Path]()

    def interrupted(own: Path, target: Path) -> Path:
        done.append(own)
        if len(done) == replaces + 1:
            raise error
        return replace(own, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(error):
        save_picture(Image.new("RGB", (8, 8)), {"new": 1}, path, "text", force=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.setattr(Path, "replace", replace)
    save_picture(Image.new("RGB", (8, 8)), {"new": 1}, path, "text", force=True)
    assert names(tmp_path) == ["a.json", "a.png"] and json.loads((tmp_path / "a.json").read_text()) == {"new": 1}


def killed_at_rename(moment: int, function: Callable[[], object]) -> bool:
    """Runs it in a process of its own, killed at the so many-th renaming; whether it came that far."""
    process = os.fork()
    if process == 0:
        done = 0

        def counted(rename: Callable[..., Path]) -> Callable[..., Path]:
            def call(*given: Any) -> Path:
                nonlocal done
                done += 1
                if done == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(*given)

            return call

        Path.replace = counted(Path.replace)  # type: ignore[method-assign]
        Path.rename = counted(Path.rename)  # type: ignore[method-assign]
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a"])
def test_a_kill_between_renames_leaves_nothing_beside_the_record_of_another(tmp_path: Path, name: str) -> None:
    """What is read afterwards is the earlier or the new one; its record is its own, or not there."""

    def save(folder: Path, shade: int) -> None:
        picture, record = Image.new("RGB", (8, 8), (shade,) * 3), {"shade": shade}
        if name in ("a.png", "a.jpg"):
            save_picture(picture, record, folder / name, "text", force=True)
        else:
            save_clip([picture] * 2, 8.0, record, folder / name, "text", force=True)

    moment, seen = 0, set[tuple[int | None, int | None]]()
    while True:
        moment += 1
        folder = tmp_path / str(moment)
        save(folder, 10)
        if not killed_at_rename(moment, lambda folder=folder: save(folder, 200)):
            break
        path, record = folder / name, folder / "a.json"
        file = next(path.iterdir(), path) if path.is_dir() else path
        shade = np.asarray(Image.open(file).convert("RGB"))[0, 0, 0] if file.exists() else None
        found = (
            None if shade is None else int(shade),
            json.loads(record.read_text())["shade"] if record.exists() else None,
        )
        seen.add(found)
        save(folder, 90)  # and the next one is written as ever
        assert json.loads(record.read_text()) == {"shade": 90}
    assert moment > 3 and (200, None) in seen
    assert seen <= {(10, 10), (10, None), (None, None), (200, None)}


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a \x1b[31mred\x07\r\x9b2J\u202egnp.\u2066") == r"a \x1b[31mred\x07\r\x9b2J\u202egnp.\u2066"
    assert plain("ein schönes Haus 🏠 \u5bb6\u00a0") == "ein schönes Haus 🏠 \u5bb6\u00a0"
    note("a \x1b[31mred")
    assert capsys.readouterr().err == "selfcascade: a \\x1b[31mred\n"
