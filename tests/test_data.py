"""Training data: order, resume and crops as stated, and every fault a named error or a counted skip."""

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable
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
    Entry,
    Fingerprint,
    FolderSource,
    Position,
    ScenesSource,
    ShardFilter,
    ShardSource,
    Source,
    Stream,
    bucket_sizes,
    open_source,
    prefetched,
)

SIDE = Size(32, 32)


def picture(seed: int = 0, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def good(tar: tarfile.TarFile, key: str, seed: int = 0, **facts: Any) -> None:
    image = picture(seed)
    add(tar, f"{key}.png", encoded(image))
    add(tar, f"{key}.txt", f"picture {key}".encode())
    facts = {"width": image.width, "height": image.height, "status": "success"} | facts
    add(tar, f"{key}.json", json.dumps(facts).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(11):
        picture(number, (48, 40) if number % 3 else (40, 64)).save(place / f"{number:02d}.png")
        (place / f"{number:02d}.txt").write_text(f"picture {number}")
    return place


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:05d}.tar" for number in range(3)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for row in range(4):
                good(tar, f"{number:03d}{row:04d}", 10 * number + row)
    return paths


def first(source: Source, count: int, sizes: tuple[Size, ...] = (SIDE,), **options: Any) -> list[Batch]:
    return list(itertools.islice(Stream(source, sizes, seed=3).batches(options.pop("batch_size", 2), **options), count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.keys == y.keys and x.captions == y.captions and torch.equal(x.pixels, y.pixels) and x.position == y.position
        for x, y in zip(a, b, strict=True)
    )


def sources(folder: Path, shards: list[Path]) -> list[Source]:
    return [FolderSource(folder), ShardSource(shards), ScenesSource(SIDE)]


BUCKETS = (SIDE, Size(48, 24))


def test_batches_repeat_differ_between_epochs_and_go_on_exactly_where_they_were_cut(
    folder: Path, shards: list[Path]
) -> None:
    for source in sources(folder, shards):
        whole = first(source, 14, BUCKETS)
        assert same(first(source, 14, BUCKETS), whole)
        for cut in (1, 4, 5, 9, 13):
            place = Position.from_json(json.loads(json.dumps(whole[cut - 1].position.as_json())))
            assert same(first(source, 14 - cut, BUCKETS, start=place), whole[cut:]), (source, cut)
        for batch in whole:
            assert batch.pixels.shape[0] == 2 and Size(*batch.pixels.shape[-2:]) in BUCKETS
            assert batch.pixels.min() >= -1 and batch.pixels.max() <= 1 and batch.pixels.dtype == torch.float32


def test_an_epoch_has_each_sample_once_in_another_order(folder: Path, shards: list[Path]) -> None:
    for source in sources(folder, shards)[:2]:
        orders = [[entry.key for entry in source.entries(0, epoch)] for epoch in (0, 1)]
        assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != [entry.key for entry in source.entries(1, 0)]
        assert [entry.key for entry in source.entries(0, 0, 5)] == orders[0][5:]


def test_processes_share_the_samples_of_one_order(folder: Path, shards: list[Path]) -> None:
    for source in sources(folder, shards):
        alone = [key for batch in first(source, 2, batch_size=4) for key in batch.keys]
        both = [first(source, 2, rank=rank, world_size=2) for rank in (0, 1)]
        together = [
            key for a, b in zip(*both, strict=True) for pair in zip(a.keys, b.keys, strict=True) for key in pair
        ]
        assert together == alone


def test_crops_come_from_the_seed_the_epoch_and_the_key(folder: Path) -> None:
    source = FolderSource(folder)
    seen: dict[str, set[tuple[int, ...]]] = {}
    for batch in first(source, 60):
        for key, crop, original in zip(batch.keys, batch.crops.tolist(), batch.original_sizes.tolist(), strict=True):
            seen.setdefault(key, set()).add(tuple(crop))
            assert tuple(original) == ((64, 40) if int(key[:2]) % 3 == 0 else (40, 48))
    assert max(len(crops) for crops in seen.values()) > 3


def test_a_crop_is_the_picture_itself_where_it_has_the_size(tmp_path: Path) -> None:
    picture(1, (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a")
    (batch,) = first(FolderSource(tmp_path), 1, batch_size=1)
    expected = torch.from_numpy(np.asarray(picture(1, (32, 32)), np.float32)).permute(2, 0, 1) / 127.5 - 1
    assert torch.equal(batch.pixels[0], expected)


def test_buckets_have_the_target_s_area_at_most() -> None:
    sizes = bucket_sizes(Size(512, 512))
    assert Size(512, 512) in sizes and Size(384, 640) in sizes and Size(640, 384) in sizes
    assert all(size.area <= 512 * 512 and 0.5 <= size.height / size.width <= 2 for size in sizes)
    assert all(side % 64 == 0 for size in sizes for side in size)


Break = Callable[[tarfile.TarFile], object]
SHARD_FAULTS: dict[str, tuple[Break, str]] = {
    "truncated jpeg": (
        lambda t: (add(t, "x.jpg", encoded(picture(), "jpeg")[:400]), add(t, "x.txt", b"x")),
        "picture is damaged",
    ),
    "flipped bits": (
        lambda t: (add(t, "x.png", encoded(picture())[:60] + b"\xff" * 300), add(t, "x.txt", b"x")),
        "picture is damaged",
    ),
    "zero bytes": (lambda t: (add(t, "x.jpg", b""), add(t, "x.txt", b"x")), "picture is empty"),
    "no picture inside": (lambda t: (add(t, "x.jpg", b"<html>" * 20), add(t, "x.txt", b"x")), "no picture"),
    "bomb": (
        lambda t: (add(t, "x.png", encoded(Image.new("1", (20000, 20000)))), add(t, "x.txt", b"x")),
        "picture is too large",
    ),
    "tiny": (
        lambda t: (add(t, "x.png", encoded(picture(size=(3, 3)))), add(t, "x.txt", b"x")),
        "picture is too small to read",
    ),
    "postscript": (
        lambda t: (add(t, "x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), add(t, "x.txt", b"x")),
        "picture format is not read|no picture|picture is damaged",
    ),
    "missing caption": (lambda t: add(t, "x.png", encoded(picture())), "caption is missing"),
    "blank caption": (lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b" \n")), "caption is missing"),
    "caption in Latin-1": (
        lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b"caf\xe9")),
        "caption is not UTF-8",
    ),
    "endless caption": (
        lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b"a" * 70_000)),
        "caption is too long",
    ),
    "bad JSON": (
        lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b"x"), add(t, "x.json", b"{'a':")),
        "bad JSON",
    ),
    "JSON no object": (
        lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b"x"), add(t, "x.json", b"[1]")),
        "bad JSON",
    ),
    "deep JSON": (
        lambda t: (add(t, "x.png", encoded(picture())), add(t, "x.txt", b"x"), add(t, "x.json", b"[" * 100_000)),
        "bad JSON",
    ),
    "bad size in JSON": (lambda t: good(t, "x", width="wide"), "bad size in JSON"),
    "duplicate key": (lambda t: (good(t, "x"), add(t, "x.txt", b"again")), "duplicate key"),
    "two pictures": (lambda t: (good(t, "x"), add(t, "x.jpg", encoded(picture(), "jpeg"))), "several pictures"),
    "traversal": (lambda t: add(t, "../x.png", encoded(picture())), "path leads out"),
    "absolute path": (lambda t: add(t, "/etc/x.png", encoded(picture())), "path leads out"),
    "pickle": (lambda t: add(t, "x.pkl", b"cos\nsystem\n(S'false'\ntR."), "pickle"),
    "numpy object": (lambda t: add(t, "x.npy", b"\x93NUMPY"), "pickle"),
}
FILTERED: dict[str, tuple[dict[str, Any], str]] = {
    "stored too small": ({"width": 8, "height": 8}, "smaller than the target"),
    "original too small": ({"original_width": 8, "original_height": 9}, "original is smaller than the target"),
    "failed": ({"status": "failed_to_download"}, "download failed"),
    "watermark": ({"pwatermark": 0.9}, "watermark"),
    "unsafe": ({"punsafe": 0.7}, "unsafe"),
    "score no number": ({"punsafe": "no"}, "unsafe"),
}


def drained(source: Source) -> Stream:
    """A stream that has seen one whole epoch."""
    stream = Stream(OneEpoch(source), (SIDE,))
    with contextlib.suppress(EpochDone):
        list(stream.batches(1_000))
    return stream


class EpochDone(Exception):
    pass


class OneEpoch(Source):
    """A source that ends."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        if epoch:
            raise EpochDone
        return self.source.entry(seed, epoch, index)

    def fingerprint(self) -> Fingerprint:
        return self.source.fingerprint()


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_a_fault_in_a_shard_is_a_counted_skip(tmp_path: Path, fault: str) -> None:
    break_it, reason = SHARD_FAULTS[fault]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(6):
            good(tar, f"good{number}", number)
        break_it(tar)
    report = drained(ShardSource([tmp_path / "a.tar"], ShardFilter(SIDE))).report
    assert report.damaged.total() == 1 and not report.filtered, report
    assert next(iter(report.damaged)) in reason.split("|"), report
    assert next(iter(report.damaged)) in str(report)


@pytest.mark.parametrize("case", FILTERED)
def test_what_the_json_rules_out_is_never_decoded(tmp_path: Path, case: str) -> None:
    facts, reason = FILTERED[case]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        good(tar, "good")
        add(tar, "x.jpg", b"not decoded, so never found out")
        add(tar, "x.txt", b"x")
        add(tar, "x.json", json.dumps({"width": 99, "height": 99} | facts).encode())
    report = drained(ShardSource([tmp_path / "a.tar"], ShardFilter(SIDE))).report
    assert report.filtered == {reason: 1} and not report.damaged


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_shard_are_left_out(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        good(tar, "good")
        member = tarfile.TarInfo("x.png")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    assert drained(ShardSource([tmp_path / "a.tar"])).report.damaged == {"link or device": 1}


def test_damaged_shards_are_counted_by_name_and_the_others_used(shards: list[Path]) -> None:
    data = shards[0].read_bytes()
    shards[0].write_bytes(data[: len(data) // 2 + 700])
    shards[1].write_bytes(b"")
    report = drained(ShardSource(shards)).report
    assert set(report.damaged) >= {"shard is empty"} and len(report.damaged) >= 2
    assert any("truncated" in reason or "shard is damaged" in reason for reason in report.damaged), report
    assert "00001.tar" in str(report)


def test_cmyk_grey_alpha_and_turned_pictures_are_used(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (
            ("cmyk.jpg", encoded(picture(1, mode="CMYK"), "jpeg")),
            ("grey.png", encoded(picture(2, mode="L"))),
            ("alpha.png", encoded(picture(3, mode="RGBA"))),
            ("turned.jpg", encoded(picture(4, (60, 40)), "jpeg", exif=turned)),
        ):
            add(tar, name, data)
            add(tar, name[:-4] + ".txt", b"x")
    stream = Stream(ShardSource([tmp_path / "a.tar"]), (SIDE,))
    batches = {batch.keys[0]: batch for batch in itertools.islice(stream.batches(1), 4)}
    assert not stream.report.damaged and len(batches) == 4
    assert batches["a.tar/turned"].original_sizes.tolist() == [[60, 40]]


def test_folder_faults_are_counted_skips(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    picture().save(outside / "secret.png")
    (outside / "secret.txt").write_text("secret")
    (folder / "linked.png").symlink_to(outside / "secret.png")
    (folder / "linked.txt").write_text("linked")
    (folder / "nocaption.png").write_bytes(encoded(picture()))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    (folder / "broken.txt").write_text("broken")
    sub = folder / "sub"
    sub.mkdir()
    picture(5).save(sub / "listed.png")
    rows = [
        json.dumps({"file_name": "listed.png", "text": "listed"}),
        json.dumps({"file_name": "listed.png", "text": "again"}),
        json.dumps({"file_name": "../../outside/secret.png", "text": "secret"}),
        json.dumps({"file_name": str(outside / "secret.png"), "text": "secret"}),
        json.dumps({"file_name": "gone.png", "text": "gone"}),
        json.dumps({"text": "no file"}),
        "{",
    ]
    (sub / "metadata.jsonl").write_text("\n".join(rows))
    stream = drained(FolderSource(folder))
    expected = {
        "leads out of the folder": 3,
        "caption is missing": 1,
        "picture is damaged": 1,
        "no picture": 0,
        "listed twice": 1,
        "picture is missing": 1,
        "metadata names no file": 1,
        "bad JSON": 1,
    }
    found = {reason: stream.report.damaged[reason] for reason in expected}
    found["picture is damaged"] += found["no picture"]
    assert found | {"no picture": 0} == expected, stream.report
    assert stream.report.damaged.total() == sum(expected.values())


def test_captions_come_from_csv_too(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.png,a house\n")
    (batch,) = first(FolderSource(tmp_path), 1, batch_size=1)
    assert batch.captions == ["a house"]


def test_small_pictures_in_a_folder_are_filtered(folder: Path) -> None:
    source = FolderSource(folder, Size(44, 44))
    stream = Stream(source, (SIDE,))
    next(stream.batches(4))
    assert set(stream.report.filtered) == {"smaller than the target"} and not stream.report.damaged


def test_broken_data_ends_the_run_with_the_reasons(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        good(tar, "good")
        for number in range(3):
            add(tar, f"bad{number}.jpg", b"")
            add(tar, f"bad{number}.txt", b"x")
    with pytest.raises(DataError, match=r"3 of 4 samples are damaged, over max_skip_share 0\.5: picture is empty 3"):
        drained(ShardSource([tmp_path / "a.tar"]))
    stream = Stream(ShardSource([tmp_path / "a.tar"]), (SIDE,), max_skip_share=0.8)
    assert len(list(itertools.islice(stream.batches(1), 3))) == 3


def test_nothing_usable_is_an_error_not_an_endless_loop(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        good(tar, "x", punsafe=1.0)
    with pytest.raises(DataError, match="no sample of an epoch is usable: unsafe 1"):
        next(Stream(ShardSource([tmp_path / "a.tar"]), (SIDE,)).batches(1))


def test_sources_open_by_name(folder: Path, tmp_path: Path) -> None:
    assert isinstance(open_source("scenes", SIDE), ScenesSource)
    assert isinstance(open_source(str(folder), SIDE), FolderSource)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars/a.tar", "w") as tar:
        good(tar, "x")
    for name in (tmp_path / "tars", tmp_path / "tars/a.tar", tmp_path / "tars/*.tar"):
        assert isinstance(open_source(str(name), SIDE), ShardSource)
    for name in ("nothing", str(tmp_path / "b.tar"), str(tmp_path / "*.zip"), str(folder / "00.png")):
        with pytest.raises(
            DataError, match=r"train_data must be 'scenes', 'collages', a folder of pictures, or \.tar shards"
        ):
            open_source(name, SIDE)
    picture().save(tmp_path / "tars/a.png")
    with pytest.raises(DataError, match=r"holds both pictures and \.tar shards"):
        open_source(str(tmp_path / "tars"), SIDE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no pictures"):
        open_source(str(tmp_path / "empty"), SIDE)


@pytest.mark.parametrize("value", [None, [1], [1, "a", []], [1, 2, [3]], "abc"])
def test_a_bad_position_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="a data position must be"):
        Position.from_json(value)


def test_a_thread_ahead_changes_nothing_passes_errors_on_and_ends(folder: Path) -> None:
    plain = first(FolderSource(folder), 8)
    ahead = prefetched(Stream(FolderSource(folder), (SIDE,), seed=3).batches(2))
    assert same(list(itertools.islice(ahead, 8)), plain)
    ahead.close()  # type: ignore[attr-defined]

    def failing() -> Any:
        yield plain[0]
        raise DataError("broken")

    after = prefetched(failing())
    assert next(after).keys == plain[0].keys
    with pytest.raises(DataError, match="broken"):
        next(after)
    assert list(prefetched(iter(plain[:3])))[2].keys == plain[2].keys
