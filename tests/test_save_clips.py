"""Clips come whole or not at all, with the colours, times and comments that were asked for."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import ExifTags, Image

from selfcascade.media import mp4_files
from selfcascade.media.mp4_files import write_mp4
from selfcascade.media.read_records import read_record
from selfcascade.media.save_clips import check_clip_output, clip_sha256, save_clip, save_sheet
from selfcascade.media.video_files import read_clip

RECORD: dict[str, Any] = {"schema": 1, "kind": "selfcascade.clip", "settings": {"prompt": "a 🏠"}}
TEXT = "a 🏠\nSteps: 3, Seed: 0"
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 250))


def clip(count: int = 7, width: int = 64, height: int = 48) -> list[Image.Image]:
    """Four coloured bars, each of 16 pixels, above a white block that moves by four pixels a frame."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        for bar, colour in enumerate(COLOURS):
            frame[: height // 2, 16 * bar : 16 * bar + 16] = colour
        frame[height // 2 :, 4 * index : 4 * index + 16] = 255
    return [Image.fromarray(frame) for frame in frames]


def save(path: Path, force: bool = False, fps: float = 8, frames: list[Image.Image] | None = None) -> Path:
    made, sidecar = save_clip(frames or clip(), fps, RECORD, path, TEXT, force)
    assert json.loads(sidecar.read_text("utf-8")) == RECORD
    assert sidecar == made.with_suffix(".json")
    return made


@pytest.mark.parametrize("fps", [8, 7.5, 24000 / 1001, 1, 0.5])
def test_an_mp4_plays_its_frames_in_their_colours_at_their_rate(tmp_path: Path, fps: float) -> None:
    frames, rate = read_clip(save(tmp_path / "a.mp4", fps=fps))
    assert rate == pytest.approx(fps, rel=1e-6)
    assert len(frames) == 7
    expected = np.stack([np.asarray(frame) for frame in clip()]).astype(int)
    for bar in range(4):  # away from edges, where colours have half the resolution
        at = (slice(None), slice(4, 20), slice(16 * bar + 4, 16 * bar + 12))
        assert abs(frames[at] - expected[at]).max() <= 8
    below = frames[:, 26:].astype(int) - expected[:, 26:]
    assert 10 * np.log10(255**2 / (below**2).mean()) > 35
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == TEXT
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.duration is not None and float(video.duration * video.time_base) == pytest.approx(
            7 / fps, rel=1e-3
        )


def test_a_build_without_h264_writes_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = [encoder for encoder in mp4_files.ENCODERS if encoder[0] == "mpeg4"]
    monkeypatch.setattr(mp4_files, "ENCODERS", [("no such encoder", {}), *fallback])
    frames, _ = read_clip(save(tmp_path / "a.mp4"))
    expected = np.stack([np.asarray(frame) for frame in clip()]).astype(int)
    assert 10 * np.log10(255**2 / ((frames - expected)[:, 26:] ** 2).mean()) > 30
    monkeypatch.setattr(mp4_files, "ENCODERS", [("no such encoder", {})])
    with pytest.raises(ValueError, match=r"no encoder for \.mp4; write a \.webp"):
        save(tmp_path / "b.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_the_same_clip_is_the_same_file(tmp_path: Path, name: str) -> None:
    assert save(tmp_path / "one" / name).read_bytes() == save(tmp_path / "two" / name).read_bytes()


def test_a_webp_keeps_every_pixel_and_its_times(tmp_path: Path) -> None:
    with Image.open(save(tmp_path / "a.webp", fps=7)) as image:
        total = 0
        assert image.n_frames == 7
        for index, frame in enumerate(clip()):
            image.seek(index)
            assert image.convert("RGB").tobytes() == frame.tobytes()
            total += image.info["duration"]
            assert abs(total - 1000 * (index + 1) / 7) <= 0.5
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment == b"UNICODE\0" + TEXT.encode("utf-16-be")


@pytest.mark.parametrize("name", ["a.webp", "a.mp4", "frames"])
def test_a_clip_holds_its_record_where_the_one_beside_it_is_lost(tmp_path: Path, name: str) -> None:
    record = {**RECORD, "result": {"sha256": "0", "seconds": 1.5}}
    path, sidecar = save_clip(clip(2), 8, record, tmp_path / name, TEXT)
    sidecar.unlink()
    assert read_record(path, "selfcascade.clip") == {**RECORD, "result": {"sha256": "0"}}


def test_a_clip_without_a_record_is_said(tmp_path: Path) -> None:
    gif = save(tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"must be the \.json beside a picture or clip, .*, since a \.gif holds no"):
        read_record(gif, "selfcascade.clip")
    write_mp4(clip(2), 8, tmp_path / "own.mp4", TEXT)
    (tmp_path / "text.mp4").write_text("hello")
    for name, words in (("own", "no description"), ("text", "Invalid data"), ("none", "does not exist")):
        with pytest.raises(ValueError, match=f"{name}.mp4' .*{words}"):
            read_record(tmp_path / f"{name}.mp4", "selfcascade.clip")


def test_a_gif_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    with Image.open(save(tmp_path / "a.gif")) as image:  # 8 a second is 12.5 hundredths
        assert image.info["comment"] == TEXT.encode()
        assert image.info["loop"] == 0
        durations = []
        for index, frame in enumerate(clip()):
            image.seek(index)
            durations.append(image.info["duration"])
            assert abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(frame)).max() <= 8
    assert set(durations) == {120, 130} and abs(sum(durations) - 875) <= 5


def test_a_folder_keeps_every_pixel(tmp_path: Path) -> None:
    folder = save(tmp_path / "new" / "frames")
    assert sorted(path.name for path in folder.iterdir()) == [f"{number:04}.png" for number in range(1, 8)]
    for path, frame in zip(sorted(folder.iterdir()), clip(), strict=True):
        with Image.open(path) as image:
            assert image.tobytes() == frame.tobytes() and image.info["parameters"] == TEXT
    assert save(tmp_path / "new" / "frames").name == "frames-2"
    assert save(tmp_path / "new" / "frames", force=True, frames=clip(3)) == folder
    assert len(list(folder.iterdir())) == 3
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        "frames",
        "frames-2",
        "frames-2.json",
        "frames.json",
    ]


def test_a_folder_with_other_files_is_never_overwritten(tmp_path: Path) -> None:
    folder = save(tmp_path / "frames")
    (folder / "letter.txt").write_text("mine")
    for refused in (lambda: check_clip_output(folder, 8, force=True), lambda: save(folder, force=True)):
        with pytest.raises(ValueError, match="holds other files than frames"):
            refused()
    assert (folder / "letter.txt").read_text() == "mine" and (folder / "0001.png").is_file()


@pytest.mark.parametrize("renames", range(4))
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_earlier_folder_and_its_sidecar_come_back_if_the_new_ones_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, error: type[BaseException]
) -> None:
    folder = save(tmp_path / "frames")
    folder.with_suffix(".json").write_text("earlier")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    done: list[Path] = []
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        done.append(path)
        if len(done) == renames + 1:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(error):
        save(tmp_path / "frames", force=True, frames=clip(3))
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_without_an_earlier_folder_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "frames":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(error):
        save(tmp_path / "frames", force=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "a.mp4", "a.webp"])
def test_a_folder_with_the_sidecars_name_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(ValueError, match=r"has its record beside it, in 'a\.json', and that is a folder"):
        check_clip_output(tmp_path / name, 8, force=True)
    check_clip_output(tmp_path / name, 8)  # it gets a number
    assert save(tmp_path / name).stem == "a-2"


def test_a_link_is_replaced_and_the_folder_it_leads_to_is_kept(tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "elsewhere")
    (tmp_path / "frames").symlink_to(elsewhere)
    folder = save(tmp_path / "frames", force=True, frames=clip(2))
    assert not folder.is_symlink() and len(list(folder.iterdir())) == 2 and len(list(elsewhere.iterdir())) == 7


def test_a_folder_that_another_process_has_made_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "frames", frames=clip(2))
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    (tmp_path / "frames.json").write_text("{}")
    save_clip(clip(3), 8, RECORD, tmp_path / "frames", TEXT)
    assert (tmp_path / "frames.json").read_text() == "{}" and len(list((tmp_path / "frames").iterdir())) == 2
    assert len(list((tmp_path / "frames-2").iterdir())) == 3


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_nothing_is_left_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", fail)
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("a.avi", 8, r"must end in \.mp4, \.gif, \.webp, or be a folder for frames, not 'a.avi'"),
        ("a.png", 8, "must end in"),
        ("a.mp4", 0, "fps must be a number from 0.01 to 240, not 0"),
        ("a.mp4", -1, "fps must be"),
        ("a.mp4", float("nan"), "fps must be"),
        ("a.mp4", 1000, "fps must be"),
        ("a.mp4", 1e-4, "fps must be"),
        ("a.gif", 120, r"fps of a \.gif must be at most 100, not 120"),
        ("..", 8, r"'.*\.\.' has no name"),
        ("folder.mp4", 8, "is a folder"),
        ("file", 8, "is a file; give a folder"),
        ("file/a.mp4", 8, "cannot be written to"),
        ("file/frames", 8, "cannot be written to"),
    ],
)
def test_places_and_rates_that_will_not_do_are_refused(tmp_path: Path, name: str, fps: float, message: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message):
        check_clip_output(tmp_path / name, fps)


def test_frames_that_make_no_clip_are_refused(tmp_path: Path) -> None:
    for frames in ([], [*clip(), Image.new("RGB", (8, 8))]):
        with pytest.raises(ValueError, match="frames must be pictures of one size"):
            save_clip(frames, 8, RECORD, tmp_path / "a.mp4", TEXT)
    with pytest.raises(ValueError, match=r"an \.mp4 needs even sides, not 63x48; write a \.webp"):
        write_mp4(clip(width=63), 8, tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"PyAV \(pip install 'selfcascade\[video\]'\)"):
        check_clip_output(tmp_path / "a.mp4", 8)
    check_clip_output(tmp_path / "a.webp", 8)


def test_a_sheet_shows_frames_evenly_with_their_times(tmp_path: Path) -> None:
    greys = [Image.new("RGB", (32, 32), (level,) * 3) for level in range(0, 200, 5)]
    sheet = save_sheet(greys, 8, tmp_path / "a.mp4", "forty greys")
    assert sheet.name == "a.sheet.png"
    colours = {colour for count, colour in Image.open(sheet).getcolors(1 << 20) or () if count >= 192 * 192}
    levels = sorted(colour[0] for colour in colours if colour != (255, 255, 255))
    assert len(levels) == 16 and levels[0] == 0 and levels[-1] == 195
    assert {second - first for first, second in itertools.pairwise(levels)} <= {10, 15}


def test_the_checksum_is_of_the_frames_alone() -> None:
    assert clip_sha256(clip()) == clip_sha256(clip())
    changed = clip()
    changed[-1].putpixel((0, 0), (1, 2, 3))
    assert len({clip_sha256(frames) for frames in (clip(), changed, clip(6), clip()[::-1])}) == 4
