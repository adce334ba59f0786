"""Data shared out: each member of a shard is read once by one process, resume is a seek, processes decode in order."""

import gzip
import io
import itertools
import json
import os
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data import (
    Batch,
    DataError,
    Fingerprint,
    FolderSource,
    ShardSource,
    Source,
    Stream,
    open_source,
    shard_index,
    shards,
)
from selfcascade.data.stream import Row

SIDE = Size(32, 32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards of eight samples each, and a cache of their own."""
    monkeypatch.setenv("SELFCASCADE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for number in range(3):
        write_shard(tmp_path / f"data/{number}.tar", range(8 * number, 8 * number + 8))
    return tmp_path / "data"


def write_shard(path: Path, numbers: range) -> None:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            picture = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (40, 36, 3), np.uint8)
            Image.fromarray(pixels).save(picture, "PNG")
            facts = json.dumps({"width": 36, "height": 40}).encode()
            for suffix, data in ((".png", picture.getvalue()), (".txt", b"a house"), (".json", facts)):
                member = tarfile.TarInfo(f"{number:03d}{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def source_of(folder: Path) -> ShardSource:
    source = open_source(str(folder), SIDE)
    assert isinstance(source, ShardSource)
    return source


def forget() -> None:
    """What another process would not know."""
    for cache in (shard_index._summary, shard_index._index, shards._shard_order):
        cache.cache_clear()


def same(a: Batch, b: Batch) -> bool:
    return (a.keys, a.captions, a.position) == (b.keys, b.captions, b.position) and torch.equal(a.pixels, b.pixels)


def test_every_member_is_read_once_by_one_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = Counter[Any](), shards._read

    def counted(shard: Path, member: shard_index.Member, *rest: Any) -> bytes:
        read[shard.name, member.offset] += 1
        return real(shard, member, *rest)

    monkeypatch.setattr(shards, "_read", counted)
    keys: list[str] = []
    for rank in range(4):
        forget()
        for batch in itertools.islice(Stream(source_of(folder), (SIDE,)).batches(3, rank, 4), 2):
            keys += batch.keys
    assert len(set(keys)) == len(keys) == 24
    assert len(read) == 24 * 3 and set(read.values()) == {1}


def test_going_on_is_a_seek_by_the_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(itertools.islice(Stream(source_of(folder), (SIDE,)).batches(4), 12))
    forget()
    monkeypatch.setattr(shard_index, "_scanned", lambda shard: pytest.fail(f"the headers of {shard} are read again"))
    read, real = [], shards._read
    monkeypatch.setattr(shards, "_read", lambda *given: read.append(given) or real(*given))
    assert same(next(Stream(source_of(folder), (SIDE,)).batches(4, start=whole[9].position)), whole[10])
    assert len(read) == 4 * 3  # the picture, the caption and the JSON of one batch


def test_an_index_that_is_stale_damaged_or_cannot_be_kept_is_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = source_of(folder).fingerprint()
    cached = sorted((tmp_path / "cache/shards").iterdir())
    assert len(cached) == 3 and len(source_of(folder)) == 24
    good = cached[0].read_bytes()
    head, members = gzip.decompress(good).decode().splitlines()
    for damaged in (
        b"", good[:50], gzip.compress(b"[]\n{}\n"), gzip.compress(f"{head}\n".encode()), gzip.compress(b"[" * 9999),
        gzip.compress(f"{head}\n{{\"samples\": 1}}\n".encode()), gzip.compress(f"{{}}\n{members}\n".encode()),
    ):  # fmt: skip
        cached[0].write_bytes(damaged)
        forget()
        assert source_of(folder).fingerprint() == first
        assert len([entry for entry in source_of(folder).entries(0, 0)]) == 24
    write_shard(folder / "0.tar", range(9))
    assert len(source_of(folder)) == 25
    forget()
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFCASCADE_CACHE", str(tmp_path / "file"))
    assert len(source_of(folder)) == 25


def test_processes_share_the_reading_of_headers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, real = [], shard_index._scanned
    monkeypatch.setattr(shard_index, "_scanned", lambda shard: scanned.append(shard.name) or real(shard))
    for rank in range(2):
        forget()
        source_of(folder).prepare(rank, 2)
    forget()
    assert len(source_of(folder)) == 24 and sorted(scanned) == ["0.tar", "1.tar", "2.tar"]


@pytest.mark.parametrize("kind", ["shards", "folder"])
def test_processes_that_decode_change_nothing_and_go_on_exactly(folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        for shard in folder.iterdir():
            with tarfile.open(shard) as tar:
                tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
                tar.extractall(tmp_path / "pictures")
        (tmp_path / "pictures/000.png").write_bytes(b"damaged")
    place, sizes = str(folder if kind == "shards" else tmp_path / "pictures"), (SIDE, Size(24, 40))
    whole = Stream(open_source(place, SIDE), sizes)
    batches = list(itertools.islice(whole.batches(3, 1, 2), 16))
    helped = Stream(open_source(place, SIDE), sizes, workers=2)
    again = helped.batches(3, 1, 2)
    assert all(same(next(again), batch) for batch in batches)
    assert helped.report == whole.report
    again.close()  # type: ignore[attr-defined]
    cut = Stream(open_source(place, SIDE), sizes, workers=1).batches(3, 1, 2, batches[6].position)
    assert same(next(cut), batches[7])
    cut.close()  # type: ignore[attr-defined]


class Deadly(Source):
    """Its only sample kills the process that decodes it."""

    def __len__(self) -> int:
        return 1

    def entry(self, seed: int, epoch: int, index: int) -> Any:
        os._exit(9)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(1, 0, "")


def test_a_killed_process_that_decodes_is_said() -> None:
    with pytest.raises(DataError, match="a process that decodes was killed"):
        next(Stream(Deadly(), (SIDE,), workers=1).batches(1))


def test_a_fingerprint_is_of_names_and_sizes_and_says_what_has_changed(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(pictures / f"{number}.bmp")
        (pictures / f"{number}.txt").write_text("a house")
    for place, change, words in (
        (folder, lambda: os.utime(folder / "0.tar"), None),
        (folder, lambda: write_shard(folder / "0.tar", range(100, 108)), "files of other names or contents"),
        (folder, lambda: write_shard(folder / "3.tar", range(2)), r"24 entries then, 26 now, \d+ bytes then, \d+ now"),
        (pictures, lambda: os.utime(pictures / "0.bmp"), None),
        (pictures, lambda: (pictures / "0.txt").write_text("a horse!"), r"\d+ bytes then, \d+ now"),
        (pictures, lambda: (pictures / "0.bmp").rename(pictures / "9.bmp"), "files of other names or contents|bytes"),
        (pictures, (pictures / "2.bmp").unlink, "3 entries then, 2 now"),
    ):
        before = open_source(str(place), SIDE).fingerprint()
        change()  # type: ignore[operator]
        after = open_source(str(place), SIDE).fingerprint()
        said = after.change_from(json.loads(json.dumps(vars(before))))
        assert said is None if words is None else said and re.search(words, said), (words, said)


def test_changed_data_is_read_as_it_is_where_that_is_allowed(tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (40, 40) if number else (80, 40)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a house")
    sizes = (SIDE, Size(32, 64))
    cut = next(batch for batch in Stream(FolderSource(tmp_path), sizes).batches(2) if batch.position.pending)
    for number in range(4):
        (tmp_path / f"{number}.png").unlink()
        (tmp_path / f"{number}.txt").unlink()
    with pytest.raises(DataError, match="the data has changed since"):
        next(Stream(FolderSource(tmp_path), sizes).batches(2, start=cut.position._replace(pending=((0, 5),))))
    allowed = Stream(FolderSource(tmp_path), sizes, may_change=True)
    assert sorted(next(allowed.batches(2, start=cut.position._replace(pending=((0, 5),)))).keys) == ["4.png", "5.png"]


def test_a_row_holds_bytes_not_floats(folder: Path) -> None:
    row = Stream(source_of(folder), (SIDE,)).decode((0, 3))
    assert isinstance(row, Row) and row.pixels.dtype == np.uint8 and row.pixels.shape == (32, 32, 3)
