"""Clips as training data: which frames are taken is drawn, filters come before decoding, and every fault is counted."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_files import numbers, write_clip
from selfcascade.cascade import Size
from selfcascade.data import (
    Batch,
    ClipFiles,
    ClipTableSource,
    DataError,
    Entry,
    Fingerprint,
    FolderSource,
    MovingScenesSource,
    Position,
    Report,
    Skip,
    Source,
    Stream,
    open_source,
)
from selfcascade.data.scenes import moving_caption, render_clip, sample_moving_scene

SIDE = Size(32, 32)
FOUR = ClipFiles(min_size=SIDE, frames=4, fps=None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("written") / "clips"
    (place / "sub").mkdir(parents=True)
    for number in range(5):
        size = (36, 48) if number % 2 else (64, 40)
        write_clip(place / ("sub" if number > 2 else "") / f"{number}.mp4", size=size)
        (place / ("sub" if number > 2 else "") / f"{number}.txt").write_text(f"clip {number}")
    return place


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "clips"))


@pytest.fixture
def table(folder: Path) -> Path:
    path = folder.parent / "webvid.csv"
    (folder / "sub").rename(folder / "00001_00050")
    rows = [f"{n},http://x/{n}.mp4,PT00H00M01S,{'00001_00050' if n > 2 else '.'},clip {n}" for n in range(5)]
    path.write_text("videoid,contentUrl,duration,page_dir,name\n" + "\n".join(rows) + "\n")
    folder.rename(folder.parent / "videos")
    return path


def sources(folder: Path) -> list[Source]:
    return [FolderSource(folder, media=FOUR), MovingScenesSource(SIDE, frames=4)]


def first(source: Source, count: int, sizes: tuple[Size, ...] = (SIDE,), **options: Any) -> list[Batch]:
    return list(itertools.islice(Stream(source, sizes, seed=3).batches(2, **options), count))


def same(a: Batch, b: Batch) -> bool:
    return (a.keys, a.captions, a.position) == (b.keys, b.captions, b.position) and torch.equal(a.pixels, b.pixels)


def test_batches_of_clips_repeat_and_go_on_exactly_where_they_were_cut(folder: Path) -> None:
    sizes = (SIDE, Size(48, 24))
    for source in sources(folder):
        whole = first(source, 5, sizes)
        for batch in whole:
            assert batch.pixels.shape[:3] == (2, 4, 3) and Size(*batch.pixels.shape[-2:]) in sizes
            assert batch.pixels.dtype == torch.float32 and batch.pixels.min() >= -1 and batch.pixels.max() <= 1
        for cut in (1, 3):
            place = Position.from_json(json.loads(json.dumps(whole[cut - 1].position.as_json())))
            again = first(source, 5 - cut, sizes, start=place)
            assert all(same(a, b) for a, b in zip(again, whole[cut:], strict=True)), (source, cut)


def test_a_table_gives_the_clips_of_its_folders(table: Path) -> None:
    batches = first(ClipTableSource(table, FOUR), 6)
    assert {key: caption for batch in batches for key, caption in zip(batch.keys, batch.captions, strict=True)} == {
        **{f"{n}.mp4": f"clip {n}" for n in range(3)},
        **{f"00001_00050/{n}.mp4": f"clip {n}" for n in (3, 4)},
    }
    place = batches[1].position
    assert all(
        same(a, b) for a, b in zip(first(ClipTableSource(table, FOUR), 4, start=place), batches[2:], strict=True)
    )
    elsewhere = ClipTableSource(table, FOUR, folder=table.parent / "videos")
    assert same(first(elsewhere, 1)[0], batches[0])


def test_the_place_in_time_and_space_comes_from_seed_epoch_and_key(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", size=(36, 48))
    (tmp_path / "a.txt").write_text("a")

    def taken(media: ClipFiles, count: int = 24, seed: int = 0, **options: Any) -> list[tuple[int, ...]]:
        stream = Stream(FolderSource(tmp_path, media=media), (SIDE,), seed, **options)
        clips = [batch.pixels[0] for batch in itertools.islice(stream.batches(1), count)]
        return [tuple(numbers(((clip + 1) * 127.5).permute(0, 2, 3, 1).numpy())) for clip in clips]

    starts = taken(FOUR)
    assert {row[0] for row in starts} == set(range(7)) and all(np.diff(row).tolist() == [1, 1, 1] for row in starts)
    assert starts[:6] == taken(FOUR, 6) != taken(FOUR, 6, seed=1)
    assert {tuple(np.diff(row)) for row in taken(ClipFiles(frames=4, fps=None, stride=3), 6)} == {(3, 3, 3)}
    assert {tuple(np.diff(row)) for row in taken(ClipFiles(frames=4, fps=4.0), 6)} == {(2, 2, 2)}
    assert len(set(taken(ClipFiles(frames=4, fps=None, fixed_start=True), 8))) == 1
    places = {
        tuple(batch.crops[0].tolist())
        for batch in itertools.islice(Stream(FolderSource(tmp_path, media=FOUR), (SIDE,)).batches(1), 12)
    }
    assert len(places) > 2


def test_all_frames_of_a_clip_are_cropped_alike() -> None:
    class One(Source):
        def __len__(self) -> int:
            return 1

        def entry(self, seed: int, epoch: int, index: int) -> Entry:
            across = np.arange(60, dtype=np.uint8)[None, None, :, None]
            return Entry("a", "a", lambda: np.broadcast_to(across * 4, (3, 40, 60, 3)).copy())

        def fingerprint(self) -> Fingerprint:
            return Fingerprint(1, 0, "a")

    for batch in itertools.islice(Stream(One(), (SIDE,)).batches(1), 3):
        assert torch.equal(batch.pixels[0, 0], batch.pixels[0, 1]) and torch.equal(
            batch.pixels[0, 0], batch.pixels[0, 2]
        )
        assert batch.original_sizes.tolist() == [[40, 60]]


def test_moving_scenes_are_rendered_as_their_captions_say() -> None:
    batch = first(MovingScenesSource(SIDE), 1)[0]
    number = int(batch.keys[0].removeprefix("moving-scene-"))
    moving = sample_moving_scene(number)
    assert batch.captions[0] == moving_caption(moving, number) and batch.pixels.shape == (2, 16, 3, 32, 32)
    frames = torch.from_numpy(render_clip(moving, 32, 32)).permute(0, 3, 1, 2) * 2 - 1
    assert (batch.pixels[0] - frames).abs().max() <= 1 / 255 + 1e-6  # stored as bytes
    with pytest.raises(DataError, match="moving scenes last 2 seconds; 16 frames at 4 fps are 4"):
        MovingScenesSource(SIDE, fps=4.0)


def seen(source: Source) -> tuple[set[str], Report]:
    """The keys that one epoch uses, and the report on it."""
    report, keys = Report(max_skip_share=1.0), set()
    for entry in source.entries(0, 0):
        try:
            if isinstance(entry, Skip):
                raise entry
            assert isinstance(entry.load(), np.ndarray)
            keys.add(entry.key)
        except Skip as skip:
            report.count(skip)
    str(report).encode()
    return keys, report


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: (write_clip(path), cut(path)), "clip is damaged"),
    "zero bytes": (lambda path: path.touch(), "clip is empty"),
    "no video inside": (lambda path: path.write_text("<html>" * 99), "clip is damaged"),
    "one frame": (lambda path: write_clip(path, 1), "one frame only"),
    "audio only": (lambda path: write_clip(path, 0, audio=True), "no video"),
    "folder": (lambda path: path.mkdir(), "clip is missing"),
    "pipe": (lambda path: os.mkfifo(path), "clip is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_one_counted_skip(folder: Path, table: Path, fault: str) -> None:
    make, reason = FAULTS[fault]
    videos = table.parent / "videos"
    make(videos / "x.mp4")
    (videos / "x.txt").write_text("x")
    with table.open("a") as file:
        file.write("x,,,.,x\n")
    of_table, of_folder = seen(ClipTableSource(table, FOUR)), seen(FolderSource(videos, media=FOUR))
    assert of_table[1].damaged == {reason: 1} and len(of_table[0]) == 5
    if fault == "folder":  # which is no file, so the folder does not list it
        assert not of_folder[1].damaged
    else:
        assert of_folder[1].damaged == {reason: 1} and of_folder[1].examples == {reason: "x.mp4"}
    assert len(of_folder[0]) == 5


def test_turned_odd_and_variable_clips_are_used(tmp_path: Path) -> None:
    write_clip(tmp_path / "turned.mp4", rotation=-90, size=(36, 48))
    write_clip(tmp_path / "odd.webm", size=(35, 47), codec="libvpx-vp9")
    write_clip(tmp_path / "variable.mkv", 8, codec="ffv1", times=[0, 100, 150, 500, 600, 700, 1000, 1400])
    write_clip(tmp_path / "loud.mov", codec="libx264", audio=True)
    (tmp_path / "metadata.csv").write_text(
        "file_name,text\nturned.mp4,a\nodd.webm,b\nvariable.mkv,c\nloud.mov,d\nnone.mp4,e\n"
    )
    stream = Stream(FolderSource(tmp_path, media=FOUR), (SIDE,))
    batches = {batch.keys[0]: batch for batch in itertools.islice(stream.batches(1), 4)}
    assert batches.keys() == {"turned.mp4", "odd.webm", "variable.mkv", "loud.mov"}
    assert batches["turned.mp4"].original_sizes.tolist() == [[48, 36]]
    assert batches["odd.webm"].captions == ["b"]
    list(itertools.islice(stream.batches(1), 5))
    assert set(stream.report.damaged) == {"clip is missing"} and not stream.report.filtered


FILTERED: dict[str, tuple[ClipFiles, str]] = {
    "small": (ClipFiles(Size(96, 96), 4, None), "smaller than the target"),
    "short": (ClipFiles(frames=4, fps=None, min_duration=1.3), "clip is too short"),
    "long": (ClipFiles(frames=4, fps=None, max_duration=1.2), "clip is too long"),
    "few frames": (ClipFiles(frames=4, fps=None, min_frames=11), "clip is too short"),
    "too few for the stride": (ClipFiles(frames=4, fps=None, stride=4), "clip is too short"),
    "too few for the rate": (ClipFiles(frames=16, fps=8.0), "clip is too short"),
    "slow": (ClipFiles(frames=4, fps=16.0), "frame rate is too low"),
}


@pytest.mark.parametrize("case", FILTERED)
def test_what_the_header_rules_out_is_never_read(folder: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    media, reason = FILTERED[case]
    monkeypatch.setattr("selfcascade.data.clip_files.read_clip", None)
    assert seen(FolderSource(folder, media=media))[1].filtered == {reason: 5}


def test_the_table_s_duration_rules_before_a_file_is_opened(table: Path) -> None:
    (table.parent / "videos/y.mp4").write_text("not opened, so never found out")
    rows = [
        "y,,PT00H01M01S,.,y",
        "y,,61.5,.,y",
        "y,,PT0H0M0.2S,.,y",
        "y,,soon,.,y",
        "y,,-3,.,y",
        "y,,NaN,.,y",
        "y,,PT,.,y",
    ]
    with table.open("a") as file:
        file.write("\n".join(rows))
    keys, report = seen(ClipTableSource(table, ClipFiles(SIDE, 4, 8.0, max_duration=60)))
    assert len(keys) == 5 and report.filtered == {"clip is too long": 2, "clip is too short": 1}
    assert report.damaged == {"bad duration": 4}


ROWS: dict[str, tuple[bytes, str]] = {
    "way out": (b"secret,,,../outside,x", "leads out of the folder"),
    "way out by the name": (b"../../outside/secret,,,.,x", "leads out of the folder"),
    "absolute": (b"secret,,,OUTSIDE,x", "leads out of the folder"),
    "link": (b"secret,,,linked,x", "leads out of the folder"),
    "link of a file": (b"linked,,,.,x", "leads out of the folder"),
    "no caption": (b"0,,,., ", "caption is missing"),
    "caption in Latin-1": (b"0,,,.,caf\xe9", "caption is not UTF-8"),
    "endless caption": (b"0,,,.," + b"a" * 70_000, "caption is too long"),
    "endless field": (b"0,,,.," + b"a" * 140_000, "bad CSV"),
    "short row": (b"0,,", "bad row"),
    "long row": (b"0,,,.,x,y", "bad row"),
    "no name": (b",,,.,x", "bad row"),
    "not there": (b"9,,,.,x", "clip is missing"),
    "endless name": (b"a" * 5000 + b",,,.,x", "clip is missing"),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_of_the_table_is_one_counted_skip(table: Path, case: str) -> None:
    row, reason = ROWS[case]
    outside = table.parent / "outside"
    outside.mkdir()
    write_clip(outside / "secret.mp4")
    (table.parent / "videos/linked").symlink_to(outside)
    (table.parent / "videos/linked.mp4").symlink_to(outside / "secret.mp4")
    table.write_bytes(table.read_bytes() + row.replace(b"OUTSIDE", str(outside).encode()) + b"\n\n0,,,.,once more\n")
    keys, report = seen(ClipTableSource(table, FOUR))
    assert report.damaged == {reason: 1} and len(keys) == 5
    assert case == "not there" or case == "endless name" or report.examples[reason] == "webvid.csv:6"
    entries = [entry for entry in ClipTableSource(table, FOUR).entries(0, 0) if not isinstance(entry, Skip)]
    assert "once more" in {entry.caption for entry in entries}


def test_captions_of_a_table_may_have_commas_and_lines(table: Path) -> None:
    table.write_text('\ufeffVideoID,caption\n0,"a fish, red\nand ""large"""\n')
    (entry,) = ClipTableSource(table, FOUR).entries(0, 0)
    assert not isinstance(entry, Skip) and entry.caption == 'a fish, red\nand "large"' and entry.key == "0.mp4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must have columns"),
        ("videoid,duration\n1,2\n", "not videoid, duration"),
        ("videoid,name\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        ClipTableSource(tmp_path / "a.csv")


def test_folder_faults_are_counted_for_clips_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes((folder / "0.mp4").read_bytes())
    (folder / "linked.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "silent.mp4").write_bytes((folder / "0.mp4").read_bytes())
    (folder / "metadata.jsonl").write_text('{"file_name": "../secret.mp4", "text": "x"}\n{"file_name": "0.mp4"}\n')
    keys, report = seen(FolderSource(folder, media=FOUR))
    assert report.damaged == {"leads out of the folder": 2, "caption is missing": 2} and len(keys) == 4


def test_clips_open_by_name(folder: Path, table: Path) -> None:
    videos = table.parent / "videos"
    clips = ClipFiles(frames=4, fps=None)
    of_folder = open_source(str(videos), SIDE, clips=clips)
    assert isinstance(of_folder, FolderSource) and of_folder.media == FOUR
    of_table = open_source(str(table), SIDE, clips=clips)
    assert isinstance(of_table, ClipTableSource) and of_table.media == FOUR
    scenes = open_source("moving-scenes", SIDE, clips=ClipFiles(frames=8, fps=4.0))
    assert isinstance(scenes, MovingScenesSource) and (scenes.frames, scenes.fps) == (8, 4.0)
    for name in ("", "scenes", "nothing", str(videos / "0.mp4")):
        with pytest.raises(DataError, match=r"must be 'moving-scenes', a folder of clips, or a \.csv file"):
            open_source(name, SIDE, clips=clips)
    with pytest.raises(DataError, match="is clips, which a model of pictures cannot learn"):
        open_source("moving-scenes", SIDE)
    (videos.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no clips \(\.avi, .*\.webm\)"):
        open_source(str(videos.parent / "empty"), SIDE, clips=clips)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frames": 1}, "frames must be 2 or more, not 1"),
        ({"stride": 2}, "fps and stride must not both be given"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"fps": None, "stride": 0}, "stride must be 1 or more, not 0"),
        ({"min_duration": 5.0, "max_duration": 4.0}, "min_duration must be from 0 to max_duration, 4, not 5"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClipFiles(**arguments)
