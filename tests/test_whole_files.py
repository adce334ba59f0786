"""Files are whole or absent, what a killed process left is removed, and pairs of files are replaced together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from selfcascade.cli.console import note, plain
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


@pytest.mark.parametrize("replaces", range(2))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("there", [True, False])
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


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a \x1b[31mred\x07\r\x9b2J\u202egnp.\u2066") == r"a \x1b[31mred\x07\r\x9b2J\u202egnp.\u2066"
    assert plain("ein schönes Haus 🏠 \u5bb6\u00a0") == "ein schönes Haus 🏠 \u5bb6\u00a0"
    note("a \x1b[31mred")
    assert capsys.readouterr().err == "selfcascade: a \\x1b[31mred\n"
