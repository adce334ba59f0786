"""The command line on a tiny video model: clips that can be made again, bit for bit, and mistakes in one line."""

import importlib
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_files import write_clip
from command_line import made, record, refuse, run, start, succeed
from selfcascade.cli.making import make
from selfcascade.cli.saving import check_of_clips
from selfcascade.making import Made
from selfcascade.media.save_clips import save_clip, write_webp
from selfcascade.media.video_files import read_clip
from selfcascade.options import Options

pytestmark = pytest.mark.usefixtures("workplace")

VIDEO = ["--model", "video", "--steps", "2", "--frames", "2"]


def test_a_clip_is_made_with_its_record_and_comes_back() -> None:
    options = ["--fps", "6", "--seed", "5", "--shared-noise", "0.3", "--preset", "paper", "--sheet"]
    options += ["--output", "frames"]
    lines = succeed("generate", "a red fish swims to the left", *VIDEO, *options)
    assert lines == ["frames", "frames.sheet.png"]
    settings, result = record("frames")["settings"], record("frames")["result"]
    told = [settings[name] for name in ("num_frames", "fps", "shared_noise", "pivot_step")]
    assert told == [2, 6, 0.3, [700]]
    assert (result["frames"], result["fps"], result["height"], result["width"]) == (2, 6, 128, 128)
    pictures = [np.asarray(Image.open(path)) for path in sorted(Path("frames").iterdir())]
    parameters = Image.open("frames/0001.png").info["parameters"]
    assert "Frames: 2, FPS: 6" in parameters and "Shared noise: 0.3" in parameters
    Path("frames.json").rename("kept.json")
    again = run("generate", "--from", "frames", "--output", "again.mp4")
    assert again.exit_code == 0, again.output
    assert "the pixels are the same as recorded in frames" in again.stderr
    assert record("again.mp4")["settings"] == settings
    frames, fps = read_clip("again.mp4")
    assert fps == 6
    error = frames.astype(float) - np.stack(pictures)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 25  # colours of random weights, at half their resolution
    assert Image.open("frames.sheet.png").width > 2 * 192


def test_each_of_many_clips_is_the_one_its_seed_gives_alone() -> None:
    paths = succeed("generate", "a fish", *VIDEO, "--count", "2", "--output", "a.webp")
    assert paths == ["a.webp", "a-2.webp"]
    (alone,) = succeed("generate", "a fish", *VIDEO, "--seed", "1", "--output", "alone.webp")
    assert record(alone)["result"]["sha256"] == record("a-2.webp")["result"]["sha256"]
    (path,) = succeed("generate", "a fish", *VIDEO, "--method", "direct")
    assert path == str(Path("outputs/clip.mp4"))


def test_an_own_clip_is_enlarged_and_the_record_repeats_it() -> None:
    write_clip(Path("own.mp4"), frames=10, size=(48, 64), fps=8, audio=True)
    options = ["--prompt", "grey", "--start", "0.25", "--output", "big.gif"]
    (path,) = succeed("upscale", "own.mp4", *VIDEO, *options)
    assert Image.open(path).size == (128, 96)
    settings = record(path)["settings"]
    assert (settings["image"], settings["num_frames"], settings["fps"], settings["start"]) == ("own.mp4", 2, 8, 0.25)
    again = run("generate", "--from", "big.json", "--output", "again.gif")
    assert "the pixels are the same" in again.stderr
    assert "selfcascade: the sound of 'own.mp4' is not carried over: only an .mp4 holds sound\n" in again.stderr
    assert Path("again.gif").read_bytes() == Path("big.gif").read_bytes()
    write_clip(Path("own.mp4"), frames=9, size=(48, 64), fps=8)
    assert "is not the file that was recorded" in refuse("generate", "--from", "big.json")


def test_clips_as_they_were_written_are_read_again() -> None:
    for output in ("own", "own.webp"):
        succeed("generate", "a fish", *VIDEO, "--fps", "6", "--seed", "3", "--output", output, "--force")
    sums = []
    for source in ("own", "own.webp"):
        succeed("upscale", source, *VIDEO[:-2], "--height", "192", "--width", "192", "--output", "larger", "--force")
        settings = record("larger")["settings"]
        assert (settings["num_frames"], round(settings["fps"]), settings["image"]) == (2, 6, source)
        sums.append(record("larger")["result"]["sha256"])
    assert sums[0] == sums[1]
    assert "the pixels are the same" in run("generate", "--from", "larger.json", "--output", "again").stderr
    succeed("upscale", "own", *VIDEO[:-2], "--output", "other")
    Image.new("RGB", (64, 64), "red").save("own/0002.png")
    assert "is not the file that was recorded" in refuse("generate", "--from", "other.json")


def test_a_gif_has_the_rate_of_its_record_and_its_equal_frames() -> None:
    pictures = [Image.new("RGB", (64, 64), (level,) * 3) for level in (0, 90, 90, 90, 180, 180)]
    own = {"schema": 1, "kind": "selfcascade.clip", "result": {"fps": 24.0, "frames": 6}}
    save_clip(pictures, 24, own, Path("own.gif"), "")  # each frame lasts 4 hundredths, or 5
    succeed("upscale", "own.gif", *VIDEO[:-2], "--output", "larger.webp")
    settings = record("larger")["settings"]
    assert (settings["num_frames"], settings["fps"]) == (6, 24)


def test_a_clip_too_fast_for_its_output_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("selfcascade.cli.generate"), "make", None)
    write_clip(Path("fast.mp4"), frames=10, size=(64, 64), fps=120)
    said = "fps of a .gif must be at most 100, not 120.0; write a .webp or .mp4"
    assert said in refuse("upscale", "fast.mp4", *VIDEO, "--output", "a.gif")


def test_plan_and_info_say_what_a_clip_is(tmp_path: Path) -> None:
    result = run("plan", *VIDEO)
    assert result.exit_code == 0, result.output
    for word in ("64x64", "128x128", "TFLOPs", "500"):
        assert word in result.stdout
    assert "clips of 2 frames, at most 32" in result.stderr
    assert "16 by default, at most 32" in "\n".join(succeed("info", "--model", "video"))
    assert made(tmp_path) == set()


def test_options_of_clips_are_named_where_a_model_makes_pictures() -> None:
    for option in ({"num_frames": 4}, {"fps": 4.0}, {"shared_noise": 1.0}, {"image": "a.mp4", "start": 1.0}):
        with pytest.raises(ValueError, match=f"{[*option][-1]} is for video, and model 'bundled' makes pictures"):
            check_of_clips(Options(**option))
    check_of_clips(Options())


PICTURE = ["--model", "sd", "--steps", "4"]
BAD = {
    "frames of a picture": (["generate", "a", *PICTURE, "--frames", "4"], "frames is for video, and model 'sd' makes"),
    "sheet of a picture": (["generate", "a", *PICTURE, "--sheet"], "sheet is for video"),
    "picture as mp4": (["generate", "a", *PICTURE, "--output", "a.mp4"], "'a.mp4' is for video, and model 'sd'"),
    "clip as png": (["generate", "a", *VIDEO, "--output", "a.png"], "output of video must end in .mp4, .gif, .webp"),
    "clip as avi": (
        ["generate", "a", *VIDEO, "--output", "a.avi"],
        "output must end in .png, .jpg, .jpeg, .webp, .avif, .tif, .tiff, .mp4",
    ),
    "no rate": (["generate", "a", *VIDEO, "--fps", "0"], "fps must be a number from 0.01 to 240"),
    "backwards": (["generate", "a", *VIDEO, "--fps", "-8"], "fps must be a number from 0.01 to 240"),
    "endless frames": (["generate", "a", *VIDEO, "--fps", "1e-4"], "fps must be a number from 0.01 to 240"),
    "nameless": (["generate", "a", *VIDEO, "--output", "."], "output '.' has no name"),
    "not its own": (["generate", "a", *VIDEO, "--output", "letters", "--force"], "holds other files than frames"),
    "no frames": (["generate", "a", *VIDEO[:-1], "0"], "frames must be a whole number from 1"),
    "too many frames": (["generate", "a", *VIDEO[:-1], "33"], "at most 32, where the motion adapter's positions end"),
    "too much shared": (
        ["generate", "a", *VIDEO, "--shared-noise", "2"],
        "--shared-noise must be a number",
    ),
    "shared elsewhere": (
        ["generate", "a", *VIDEO, "--shared-noise", "1", "--method", "direct"],
        "--shared-noise is for methods self-cascade",
    ),
    "video for pictures": (["upscale", "own.mp4", *PICTURE], "'own.mp4' is a video, and model 'sd' makes pictures"),
    "picture for video": (["upscale", "own.png", *VIDEO], "own.png"),
    "no video": (["upscale", "text.mp4", *VIDEO], "text.mp4"),
    "no pictures": (["upscale", "letters", *VIDEO], "'letters' is a folder without pictures"),
    "half a webp": (["upscale", "half.webp", *VIDEO], "'half.webp' is damaged or truncated"),
    "missing video": (["upscale", "missing.mp4", *VIDEO], "does not exist"),
    "too long": (["upscale", "long.mp4", *VIDEO[:-2]], "has 40 frames: --frames must be at most 32"),
    "too short": (["upscale", "own.mp4", *VIDEO[:-1], "12"], "12 are wanted"),
    "starts nowhere": (["upscale", "own.mp4", *VIDEO, "--start", "-1"], "start must be a number from 0"),
    "plan": (["plan", *PICTURE, "--frames", "4"], "frames is for video"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.mp4").write_text("hello")
    (folder / "letters").mkdir()
    (folder / "letters" / "letter.txt").write_text("mine")
    Image.new("RGB", (64, 64)).save(folder / "own.png")
    frames = [Image.effect_noise((64, 64), spread).convert("RGB") for spread in (10, 50, 90)]
    write_webp(frames, 8, folder / "half.webp")
    (folder / "half.webp").write_bytes((folder / "half.webp").read_bytes()[:-4000])
    write_clip(folder / "own.mp4", frames=10, size=(64, 64))
    write_clip(folder / "long.mp4", frames=40, size=(64, 64))
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, files: Path, case: str) -> None:
    arguments, reason = BAD[case]
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    before = made(tmp_path)
    assert reason in refuse(*arguments)
    assert made(tmp_path) == before


def test_an_interrupted_count_keeps_the_clips_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def interrupted(*arguments: Any) -> Made:
        calls.append(len(calls))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(importlib.import_module("selfcascade.cli.generate"), "make", interrupted)
    result = run("generate", "a fish", *VIDEO, "--count", "3", "--output", "a.webp")
    assert (result.exit_code, result.stdout.splitlines()) == (130, ["a.webp"])
    assert calls == [0, 1] and made(tmp_path) == {"a.webp", "a.json"}


@pytest.mark.slow
def test_ctrl_c_keeps_the_clips_that_are_done() -> None:
    process = start("generate", "a fish", *VIDEO, "--count", "1000", "--output", "out/a.mp4")
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()  # where the signal was not heeded
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "selfcascade: interrupted"
    assert first.strip() == str(Path("out/a.mp4"))
    stems = [path.stem for path in Path("out").iterdir()]
    assert all(stems.count(stem) == 2 for stem in stems)
    assert len(read_clip("out/a.mp4")[0]) == 2
