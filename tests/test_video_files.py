"""Clips are read upright, at even times, and whatever is wrong with a file is an error that names it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_files import numbers, red_corner, write_clip
from selfcascade.media import video_files
from selfcascade.media.video_files import ClipError, ClipInfo, probe_clip, read_clip

FORMATS = {"mp4": "mpeg4", "mov": "libx264", "webm": "libvpx-vp9", "mkv": "ffv1", "avi": "mpeg4", "ts": "mpeg2video"}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_frame_comes_once_from_every_container(tmp_path: Path, ending: str) -> None:
    fps = 25 if ending == "ts" else 8  # MPEG-2 knows a few rates only
    path = write_clip(tmp_path / f"a.{ending}", codec=FORMATS[ending], fps=fps)
    info = probe_clip(path)
    assert (info.height, info.width, info.fps, info.frames) == (36, 48, fps, 10)
    assert info.duration == pytest.approx(10 / fps, abs=0.01)
    frames, rate = read_clip(path)
    assert frames.shape == (10, 36, 48, 3) and frames.dtype == np.uint8 and rate == fps
    assert numbers(frames) == list(range(10))
    later, _ = read_clip(path, frames=3, start=4 / fps)
    assert numbers(later) == [4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "expected", "rate"),
    [
        ({"stride": 3}, [0, 3, 6, 9], 8 / 3),
        ({"stride": 2, "frames": 3, "start": 0.25}, [2, 4, 6], 4.0),
        ({"fps": 4.0}, [0, 2, 4, 6, 8], 4.0),
        ({"fps": 16.0, "frames": 5}, [0, 0, 1, 1, 2], 16.0),
        ({"frames": 1, "start": 1.2}, [9], 8.0),
    ],
)
def test_frames_are_taken_at_the_rate_asked_for(
    tmp_path: Path, arguments: dict[str, float], expected: list[int], rate: float
) -> None:
    frames, found = read_clip(write_clip(tmp_path / "a.mp4"), **arguments)  # type: ignore[arg-type]
    assert numbers(frames) == expected and found == pytest.approx(rate)


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "ffv1"), ("mp4", "mpeg4")])
def test_a_variable_rate_becomes_even(tmp_path: Path, ending: str, codec: str) -> None:
    path = write_clip(tmp_path / f"a.{ending}", 6, codec=codec, times=[0, 100, 150, 500, 600, 1400])
    frames, rate = read_clip(path, fps=10.0)
    assert (numbers(frames)[:15], rate) == ([0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5], 10.0)
    info = probe_clip(path)
    assert info.frames == 6 and 3 < info.fps < 5  # not the clock's 1000 a second
    assert len(read_clip(path)[0]) < 9


@pytest.mark.parametrize(("degrees", "corner"), [(90, "bottom left"), (180, "bottom right"), (-90, "top right")])
def test_turned_clips_stand_upright(tmp_path: Path, degrees: int, corner: str) -> None:
    # A phone held upright writes -90: a quarter turn with the clock.
    path = write_clip(tmp_path / "a.mp4", rotation=degrees)
    info, (frames, _) = probe_clip(path), read_clip(path)
    assert frames.shape[1:3] == (info.height, info.width) == ((36, 48) if degrees == 180 else (48, 36))
    assert red_corner(frames[0]) == corner and numbers(frames) == list(range(10))


def test_odd_sizes_and_a_sound_track_are_read(tmp_path: Path) -> None:
    odd = write_clip(tmp_path / "a.webm", size=(35, 47), codec="libvpx-vp9")
    assert read_clip(odd)[0].shape == (10, 35, 47, 3)
    assert probe_clip(odd).width == 47 and not probe_clip(odd).sound
    heard = write_clip(tmp_path / "b.mp4", audio=True)
    assert numbers(read_clip(heard)[0]) == list(range(10))
    assert probe_clip(heard) == ClipInfo(36, 48, 8.0, 1.25, 10, sound=True)


def test_the_name_s_ending_does_not_matter(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4").rename(tmp_path / "a.txt")
    assert numbers(read_clip(path)[0]) == list(range(10))


def cut(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def picture(path: Path) -> None:
    Image.new("RGB", (64, 64)).save(path, "png")


def other_file(text: str) -> Callable[[Path], object]:
    return lambda path: (write_clip(path.with_name("secret.mp4")), path.write_text(text))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n"
FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.mp4", lambda path: None, "does not exist"),
    "folder": ("a.mp4", lambda path: path.mkdir(), "not a regular file"),
    "empty": ("a.mp4", lambda path: path.touch(), r"is empty \(0 bytes\)"),
    "text": ("a.mp4", lambda path: path.write_text("no video " * 99), "not a readable video"),
    "picture": ("a.mp4", picture, "not a readable video"),
    "one frame": ("a.mp4", lambda path: write_clip(path, 1), "has one frame only"),
    "audio": ("a.mp4", lambda path: write_clip(path, 0, audio=True), "has no video, only audio"),
    "index cut off": ("a.mp4", lambda path: (write_clip(path), cut(path)), "damaged"),
    "frames cut off": ("a.mkv", lambda path: (write_clip(path, codec="ffv1"), cut(path)), "is truncated: it ends"),
    "cut mp4": (
        "a.mp4",
        lambda path: (write_clip(path, 90, (96, 128), codec="libx264", movflags="faststart"), cut(path, 0.9)),
        "damaged or truncated|is truncated",
    ),
    "concatenation": ("a.mp4", other_file("ffconcat version 1.0\nfile secret.mp4\n"), "not a readable video"),
    "playlist": ("a.mp4", other_file(PLAYLIST), "not a readable video"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, fault: str) -> None:
    name, make, words = FAULTS[fault]
    make(tmp_path / name)
    with pytest.raises(ClipError, match=words) as caught:
        read_clip(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value) and caught.value.reason
    if fault not in ("frames cut off", "cut mp4"):  # which a header does not tell
        with pytest.raises(ClipError, match=words):
            probe_clip(tmp_path / name)


def test_what_comes_before_a_cut_can_be_used(tmp_path: Path) -> None:
    cut(write_clip(tmp_path / "a.mkv", codec="ffv1"))
    assert numbers(read_clip(tmp_path / "a.mkv", frames=3)[0]) == [0, 1, 2]


def test_too_few_or_too_many_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4")
    with pytest.raises(ClipError, match="has 10 frames at 8 fps from 0 s on, 16 are wanted"):
        read_clip(path, frames=16)
    with pytest.raises(ClipError, match="has 0 frames at 8 fps from 9 s on"):
        read_clip(path, start=9.0)
    monkeypatch.setattr(video_files, "MAX_BYTES", 5 * 36 * 48 * 3)
    assert len(read_clip(path, frames=5)[0]) == 5
    for frames in (6, None):
        with pytest.raises(ClipError, match="has more than 4 GiB of frames"):
            read_clip(path, frames=frames)
    monkeypatch.setattr(video_files, "MAX_PIXELS", 1000)
    with pytest.raises(ClipError, match="has 48x36 pixels"):
        probe_clip(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frames": 0}, "frames must be 1 or more, not 0"),
        ({"fps": 0.0}, "fps must be above 0 and at most 1000"),
        ({"fps": float("nan")}, "fps must be above 0"),
        ({"stride": 0}, "stride must be 1 or more"),
        ({"fps": 8.0, "stride": 2}, "fps and stride must not both"),
        ({"start": -1.0}, "start must be from 0 to 86400 seconds, not -1"),
        ({"start": 1e300}, "start must be from 0 to 86400 seconds, not 1e"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_clip("a.mp4", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_any_flipped_bytes_give_frames_or_a_named_error(tmp_path: Path, seed: int) -> None:
    path = write_clip(tmp_path / "a.mp4")
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(15):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=4):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert read_clip(path)[0].shape[3] == 3
        except ClipError as error:
            assert "a.mp4" in str(error)
