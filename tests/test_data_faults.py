"""What damaged or hostile training data may do: be skipped by name. Nothing else, whatever its bytes."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data import (
    ClipFiles,
    DataError,
    Entry,
    FolderSource,
    Report,
    ShardFilter,
    ShardSource,
    Skip,
    Source,
    Stream,
    open_source,
)

SIDE = Size(32, 32)


def encoded(seed: int = 0, size: tuple[int, int] = (40, 36)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def shard(path: Path, members: dict[str, bytes], good: int = 4) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in {**{f"{n}.png": encoded(n) for n in range(good)}, **members}.items():
            captions = {f"{n}.txt": b"a house" for n in range(good) if name == f"{n}.png"}
            for part, content in {name: data, **captions}.items():
                member = tarfile.TarInfo(part)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    place.mkdir()
    for number in range(4):
        (place / f"{number}.png").write_bytes(encoded(number))
        (place / f"{number}.txt").write_text("a house")
    return place


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret.png").write_bytes(encoded())
    (place / "secret.txt").write_text("secret")
    (place / "secret.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "secret"}))
    return place


def seen(source: Source) -> tuple[list[Entry], Report]:
    """What one epoch uses, and the report on it."""
    stream = Stream(source, (SIDE,), max_skip_share=1.0)
    for batch in stream.batches(1):
        if batch.position.epoch:
            break
    report = Report()
    entries = []
    for entry in source.entries(0, 0):
        try:
            if isinstance(entry, Skip):
                raise entry
            entry.load()
            entries.append(entry)
        except Skip as skip:
            report.count(skip)
    str(report).encode()
    assert stream.report.damaged.keys() == report.damaged.keys()
    return entries, report


def rows(*found: Any) -> str:
    return "\n".join(json.dumps(row) for row in found)


METADATA: dict[str, tuple[str, str, str]] = {
    "zero byte in a name": ("metadata.jsonl", rows({"file_name": "a\0.png", "text": "x"}), "bad file name"),
    "endless name": ("metadata.jsonl", rows({"file_name": "a" * 5000 + ".png", "text": "x"}), "picture is missing"),
    "name is a number": ("metadata.jsonl", rows({"file_name": 7, "text": "x"}), "metadata names no file"),
    "name is a folder": ("metadata.jsonl", rows({"file_name": "sub", "text": "x"}), "picture is missing"),
    "out and far away": ("metadata.jsonl", rows({"file_name": "../../x.png", "text": "x"}), "leads out of the folder"),
    "half a surrogate pair": ("metadata.jsonl", '{"file_name": "0.png", "text": "\\ud800"}', "caption is not UTF-8"),
    "caption is a list": ("metadata.jsonl", rows({"file_name": "0.png", "text": ["x"]}), "caption is missing"),
    "endless caption": ("metadata.jsonl", rows({"file_name": "0.png", "text": "a" * 70_000}), "caption is too long"),
    "endless number": ("metadata.jsonl", '{"file_name": ' + "9" * 5000 + "}", "bad JSON"),
    "endless field": ("metadata.csv", 'file_name,text\n0.png,"' + "a" * 140_000 + '"', "bad CSV"),
    "comma without quotes": ("metadata.csv", "file_name,text\n0.png,a red apple, sliced", "bad CSV"),
    "short row": ("metadata.csv", "text,file_name\nonly words", "metadata names no file"),
}


@pytest.mark.parametrize("case", METADATA)
def test_a_bad_row_of_metadata_is_one_counted_skip(folder: Path, case: str) -> None:
    name, text, reason = METADATA[case]
    (folder / "sub").mkdir()
    (folder / name).write_text(text)
    assert seen(FolderSource(folder))[1].damaged == {reason: 1}


def test_metadata_in_another_encoding_is_a_counted_skip(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes("file_name,text\n0.png,caf\xe9\n".encode("latin-1"))
    assert seen(FolderSource(folder))[1].damaged == {"metadata is not UTF-8": 1}


def test_captions_keep_their_line_breaks(folder: Path) -> None:
    (folder / "metadata.csv").write_text('file_name,text\n0.png,"a house\nby the sea"\n')
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "a house\u2028at night"}\r\n\n')
    entries, report = seen(FolderSource(folder))
    captions = {entry.key: entry.caption for entry in entries}
    assert not report.damaged
    assert (captions["0.png"], captions["1.png"]) == ("a house\nby the sea", "a house\u2028at night")


def test_a_picture_listed_by_a_winding_path_is_one_sample(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "metadata.jsonl").write_text(rows({"file_name": "../0.png", "text": "listed"}))
    entries, report = seen(FolderSource(folder))
    assert not report.damaged and len(entries) == 4
    assert [entry.caption for entry in entries if entry.key == "0.png"] == ["listed"]


LINKS: dict[str, tuple[str, str]] = {
    "picture": ("linked.png", "secret.png"),
    "caption": ("0.txt", "secret.txt"),
    "metadata": ("metadata.jsonl", "secret.jsonl"),
    "folder": ("linked", ""),
}


@pytest.mark.parametrize("case", LINKS)
def test_nothing_is_read_through_a_link_that_leads_out(folder: Path, outside: Path, case: str) -> None:
    name, target = LINKS[case]
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside / target)
    entries, report = seen(FolderSource(folder))
    assert report.damaged == {"leads out of the folder": 1}
    assert report.examples["leads out of the folder"] == name
    assert all(entry.caption == "a house" for entry in entries)


def test_links_that_lead_nowhere_and_pipes_neither_hang_nor_end_the_run(folder: Path) -> None:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "sub" / "metadata.jsonl")
    assert seen(FolderSource(folder))[1].damaged == {"picture is missing": 2, "metadata is not a file": 1}


def test_the_name_of_a_file_does_not_decide_what_is_wrong_with_it(folder: Path) -> None:
    for name in ("2 or more cats", "100 megapixels", "not a picture", "0 bytes"):
        (folder / f"{name}.png").write_bytes(encoded()[:900])
        (folder / f"{name}.txt").write_text("a house")
    assert seen(FolderSource(folder))[1].damaged == {"picture is damaged": 4}


def test_names_that_are_not_utf_8_are_used_and_can_be_printed(folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / f"{name}.png").write_bytes(encoded())
    (folder / f"{name}.txt").write_text("a house")
    path = shard(tmp_path / "a.tar", {f"{name}.png": encoded(), f"{name}.txt": b"a house", f"{name}.pkl": b"x"})
    for source in (FolderSource(folder), ShardSource([path])):
        entries, report = seen(source)
        assert len(entries) == 5 and all(entry.key.encode() for entry in entries) and "picture" not in report.damaged


SAMPLES: dict[str, tuple[dict[str, bytes], str]] = {
    "half a surrogate pair": ({"x.json": b'{"caption": "\\ud800"}'}, "caption is not UTF-8"),
    "caption is a list": ({"x.json": b'{"caption": ["x"]}'}, "caption is missing"),
    "caption is null": ({"x.json": b'{"caption": null}'}, "caption is missing"),
    "endless size": ({"x.txt": b"x", "x.json": b'{"width": Infinity, "height": 40}'}, "bad size in JSON"),
    "size is no number": ({"x.txt": b"x", "x.json": b'{"width": NaN, "height": 40}'}, "bad size in JSON"),
    "size below zero": ({"x.txt": b"x", "x.json": b'{"width": -40, "height": -40}'}, "bad size in JSON"),
    "JSON in another encoding": ({"x.txt": b"x", "x.json": b'{"a": "\xe9"}'}, "bad JSON"),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_a_bad_sample_of_a_shard_is_one_counted_skip(tmp_path: Path, case: str) -> None:
    members, reason = SAMPLES[case]
    path = shard(tmp_path / "a.tar", {"x.png": encoded(), **members})
    entries, report = seen(ShardSource([path], ShardFilter(SIDE)))
    assert report.damaged == {reason: 1} and len(entries) == 4


def test_sizes_that_a_table_turned_into_floats_count(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"x.png": encoded(), "x.txt": b"x", "x.json": b'{"width": 40.0, "height": 36.0}'})
    entries, report = seen(ShardSource([path], ShardFilter(SIDE)))
    assert not report.damaged and len(entries) == 5


def member_at(path: Path, number: int) -> tarfile.TarInfo:
    with tarfile.open(path) as tar:
        return tar.getmembers()[number]


def cut(at: Callable[[tarfile.TarInfo], int]) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, at(member_at(path, 4)))


def overwrite(at: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        place = member_at(path, 4).offset + at
        content[place : place + len(data)] = data
        path.write_bytes(content)

    return damage


SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut between members": (cut(lambda member: member.offset), "shard is truncated"),
    "cut in a header": (cut(lambda member: member.offset + 100), "shard is truncated"),
    "cut in a picture": (cut(lambda member: member.offset_data + 700), "shard is truncated"),
    "header overwritten": (overwrite(0, b"\xaa" * 40), "shard is damaged"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_what_a_damaged_shard_loses_is_never_silent(tmp_path: Path, case: str) -> None:
    damage, reason = SHARDS[case]
    path = shard(tmp_path / "a.tar", {})
    damage(path)
    entries, report = seen(ShardSource([path]))
    assert report.damaged == {reason: 1} and report.examples == {reason: "a.tar"}
    assert len(entries) == 2  # those before the damage


def test_a_member_of_negative_size_does_not_lead_in_circles(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {})
    member = member_at(path, 4)
    member.size = -2048
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    overwrite(0, bytes(header[:512]))(path)
    entries, report = seen(ShardSource([path]))
    assert report.damaged == {"shard is damaged": 1} and len(entries) == 2


def test_a_member_without_a_name_is_a_counted_skip(tmp_path: Path) -> None:
    entries, report = seen(ShardSource([shard(tmp_path / "a.tar", {".": encoded()})]))
    assert report.damaged == {"member has no name": 1} and len(entries) == 4


def test_things_that_are_no_shards_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "text.tar").write_text("no tar at all " * 100)
    (tmp_path / "zeros.tar").write_bytes(bytes(10240))
    shard(tmp_path / "good.tar", {})
    names = ("pipe.tar", "text.tar", "zeros.tar", "good.tar")
    source = ShardSource([tmp_path / name for name in names])
    assert seen(source)[1].damaged == {"shard is missing": 1, "shard is damaged": 1, "shard is empty": 1}


@pytest.mark.parametrize("seed", range(6))
def test_any_flipped_bytes_give_samples_or_counted_skips(tmp_path: Path, seed: int) -> None:
    content = shard(tmp_path / "a.tar", {"3.json": b'{"width": 40}'}).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        headers = [member.offset for member in tar]
    rng = np.random.default_rng(seed)
    for _ in range(25):
        damaged = bytearray(content)
        # Headers are few of the bytes, and decide the most.
        places = [int(rng.integers(len(content))), *(int(rng.choice(headers) + rng.integers(512)) for _ in range(2))]
        for place in places:
            damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.tar").write_bytes(damaged)
        try:
            seen(ShardSource([tmp_path / "a.tar"]))
        except DataError as error:
            assert str(error).startswith("no sample of an epoch is usable")


@pytest.mark.parametrize("clips", [None, ClipFiles(frames=2)])
@pytest.mark.parametrize("name", ["nothing", "empty", "table.csv"])
def test_data_is_called_what_the_caller_calls_it(tmp_path: Path, name: str, clips: ClipFiles | None) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("page,words\n1,a\n")
    with pytest.raises(DataError, match=r"^data "):
        open_source(str(tmp_path / name), Size(64, 64), clips=clips, option="data")


def test_pictures_and_clips_for_each_other_are_called_what_the_caller_calls_them() -> None:
    with pytest.raises(DataError, match=r"^data 'moving-scenes' is clips"):
        open_source("moving-scenes", Size(64, 64), option="data")
    with pytest.raises(DataError, match=r"^data 'collages' is pictures"):
        open_source("collages", Size(64, 64), clips=ClipFiles(frames=2), option="data")
