"""What looks like data and is not read is counted by name; what is known to be none is left out quietly."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_files import write_clip
from selfcascade.cascade import Size
from selfcascade.data import (
    ClipFiles,
    ClipTableSource,
    DataError,
    FolderSource,
    ShardSource,
    Skip,
    Source,
    Stream,
    open_source,
)
from selfcascade.data.collages.names import files_in, texts_in, words_of
from selfcascade.data.collages.photographs import photographs_in
from selfcascade.media.frame_files import probe_frames
from selfcascade.media.video_files import ClipError

SIDE = Size(32, 32)


def encoded() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 40, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def shard(path: Path, *names: str) -> Path:
    """A shard of pictures with these names, each with a caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            for part, data in ((name, encoded()), (str(Path(name).with_suffix(".txt")), b"a house")):
                member = tarfile.TarInfo(part)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with captions."""
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encoded())
        (tmp_path / f"{number}.txt").write_text("a house")
    return tmp_path


def used_and_left_out(source: Source) -> tuple[list[str], dict[str, str]]:
    """Keys of what an epoch offers, and the reason against each key that it does not."""
    offered = list(source.entries(0, 0))
    keys = sorted(entry.key for entry in offered if not isinstance(entry, Skip))
    return keys, {entry.key: entry.reason for entry in offered if isinstance(entry, Skip)}


CLUTTER = [
    "._0.png", "._3.png", "._0.txt", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png", ".git/a.png",
    "__MACOSX/0.png", "sub/@eaDir/a.png", "sub/.thumbnails/a.jpg", "0.json", "README.md", "sub/notes.txt", "._a.heic",
]  # fmt: skip


@pytest.mark.parametrize("name", CLUTTER)
def test_what_is_no_data_is_left_out_quietly(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\0\5\x16\7" * 20)
    assert used_and_left_out(open_source(str(folder), SIDE)) == (["0.png", "1.png"], {})


NOT_READ = {
    "a.heic": "picture format is not read", "sub/a.HEIC": "picture format is not read",
    "a.jxl": "picture format is not read", "a.cr2": "picture format is not read", "a.wmv": "clip format is not read",
    "a.mp4": "no picture, and not read", "a.tar.gz": "archive among pictures is not read",
    "A.TGZ": "archive among pictures is not read", "sub/a.tar": "archive among pictures is not read",
    "a.tar.zst": "archive among pictures is not read", "a.zip": "archive among pictures is not read",
    "a.parquet": "archive among pictures is not read",
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_READ)
def test_what_looks_like_data_is_counted_by_name(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"something")
    (folder / name).with_suffix(".txt").write_text("a house")
    source = open_source(str(folder), SIDE)
    assert used_and_left_out(source) == (["0.png", "1.png"], {name: NOT_READ[name]})
    stream = Stream(source, (SIDE,))
    next(batch for batch in stream.batches(1) if batch.position.epoch)
    assert stream.report.examples == {NOT_READ[name]: name}


def test_another_form_of_what_is_read_is_no_loss(folder: Path) -> None:
    for name in ("0.heic", "0.mp4", "1.dng"):
        (folder / name).write_bytes(b"something")
    assert used_and_left_out(FolderSource(folder)) == (["0.png", "1.png"], {})


def test_a_folder_of_nothing_else_says_what_it_has(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.heic").write_bytes(b"something")
        shard(tmp_path / f"part/{number}.tar", "a.png")
    words = r"has no pictures \(.*\): (.*; )?picture format is not read 3 \(as 0\.heic\)"
    with pytest.raises(DataError, match=words) as caught:
        open_source(str(tmp_path), SIDE)
    assert "archive among pictures is not read 3 (as part/0.tar)" in str(caught.value)


def test_what_lies_beside_shards_is_counted(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", "0.png")
    shard(tmp_path / "B.TAR", "0.png")
    shard(tmp_path / "more/c.tar", "0.png")
    (tmp_path / "d.tar.gz").write_bytes(b"something")
    (tmp_path / "more/e.png").write_bytes(encoded())
    for quiet in ("a.parquet", "a_stats.json", "._a.tar", "._d.tar.gz", "._x.png"):
        (tmp_path / quiet).write_bytes(b"something")
    assert used_and_left_out(open_source(str(tmp_path), SIDE)) == (
        ["B.TAR/0", "a.tar/0"],
        {
            "more/c.tar": "archive among shards is not read",
            "d.tar.gz": "archive among shards is not read",
            "more/e.png": "no shard, and not read",
        },
    )
    assert used_and_left_out(open_source(str(tmp_path / "*.[tT]*"), SIDE))[0] == ["B.TAR/0", "a.tar/0"]
    assert used_and_left_out(open_source(str(tmp_path / "B.TAR"), SIDE)) == (["B.TAR/0"], {})


def test_a_mac_s_twins_in_a_shard_are_left_out_and_other_formats_counted(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", "0.PNG", "._0.PNG", "sub/._1.png", "__MACOSX/0.png", "2.heic", "3.jxl")
    assert used_and_left_out(ShardSource([path])) == (
        ["a.tar/0"],
        {"a.tar/2": "picture format is not read", "a.tar/3": "picture format is not read"},
    )


def test_endings_in_capitals_count(tmp_path: Path) -> None:
    for name in ("a.PNG", "b.Png", "sub/c.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded())
    (tmp_path / "a.TXT").write_text("a house")
    (tmp_path / "b.Txt").write_text("a tree")
    (tmp_path / "sub/METADATA.CSV").write_text("file_name,text\nc.PNG,a boat\n")
    entries = [entry for entry in FolderSource(tmp_path).entries(0, 0) if not isinstance(entry, Skip)]
    found = {entry.key: entry.caption for entry in entries}
    assert found == {"a.PNG": "a house", "b.Png": "a tree", "sub/c.PNG": "a boat"}
    texts = texts_in(tmp_path)
    assert [words_of(tmp_path / name, texts) for name in ("a.PNG", "b.Png")] == ["a house", "a tree"]


def test_a_caption_beside_a_cut_out_counts_whatever_the_case_of_its_ending(tmp_path: Path) -> None:
    for ending in ("txt", "TXT", "Txt", "tXt"):
        (tmp_path / f"{ending}.txt").with_suffix(f".{ending}").write_text("a boat")
        assert words_of(tmp_path / f"{ending}.png", texts_in(tmp_path)) == "a boat"


@pytest.mark.parametrize("ending", ["mp4", "MP4", "Mp4"])
def test_the_clips_of_a_table_may_have_their_ending_in_any_case(tmp_path: Path, ending: str) -> None:
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").rename(tmp_path / f"a.{ending}")
    (tmp_path / "clips.csv").write_text("videoid,name\na,a walk\n")
    (entry,) = ClipTableSource(tmp_path / "clips.csv").entries(0, 0)
    assert not isinstance(entry, Skip) and entry.key == f"a.{ending}"


@pytest.mark.parametrize("ending", ["heic", "HEIC", "Jxl"])
def test_formats_that_are_not_read_are_named_in_folders_of_assets_and_of_frames(tmp_path: Path, ending: str) -> None:
    for name in (f"b.{ending}", "a.JPEG", "c.PNG"):
        (tmp_path / name).write_bytes(encoded())
    with pytest.warns(UserWarning, match=rf"backgrounds '.*': 1 pictures are not read here \(b\.{ending}"):
        assert list(photographs_in(tmp_path)) == ["a", "c"]
    with pytest.raises(ClipError, match=rf"'b\.{ending}' is of a format that is not read"):
        probe_frames(tmp_path)


def test_cut_outs_of_a_mac_have_no_twins(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".hidden/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    assert files_in(tmp_path, frozenset({".png"}), "sprites") == [tmp_path / "a.png"]


def test_a_folder_of_clips_counts_what_it_does_not_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.MP4")
    (tmp_path / "a.TXT").write_text("a walk")
    for name in ("._a.MP4", "a.jpg", "b.wmv", "frames/0001.png", "c.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    assert used_and_left_out(FolderSource(tmp_path, media=ClipFiles())) == (
        ["a.MP4"],
        {
            "b.wmv": "clip format is not read",
            "frames/0001.png": "no clip, and not read",
            "c.zip": "archive among clips is not read",
        },
    )


QUOTES = {
    "to the end": ('0.png,"a house\n1.png,a tree\n', {"0.png": None, "1.png": "a tree"}),
    "to a later quote": ('0.png,"a house\n1.png,"a tree"\n', {"0.png": None, "1.png": "a tree"}),
    "at the end": ('0.png,a house\n1.png,"a tree', {"0.png": "a house", "1.png": None}),
    "amid a field": ('0.png,a 6" house\n1.png,a tree\n', {"0.png": 'a 6" house', "1.png": "a tree"}),
    "after a field": ('0.png,"a house" by night\n1.png,a tree\n', {"0.png": "a house by night", "1.png": "a tree"}),
    "closed later": ('0.png,"a house\nby night"\n1.png,a tree\n', {"0.png": "a house\nby night", "1.png": "a tree"}),
    "doubled": ('0.png,"a ""red"" house"\r\n1.png,a tree\r\n', {"0.png": 'a "red" house', "1.png": "a tree"}),
    "in many rows": ('0.png,"a\n' * 3000 + "1.png,a tree\n", {"0.png": None, "1.png": "a tree"}),
}


@pytest.mark.parametrize("case", QUOTES)
def test_an_unclosed_quote_costs_its_own_row_alone(folder: Path, case: str) -> None:
    text, captions = QUOTES[case]
    for number in range(2):
        (folder / f"{number}.txt").unlink()
    (folder / "metadata.csv").write_bytes(b"file_name,text\n\n" + text.encode())
    offered = list(FolderSource(folder).entries(0, 0))
    found = {entry.key: entry.caption for entry in offered if not isinstance(entry, Skip)}
    assert found == {name: words for name, words in captions.items() if words is not None}
    bad = [skip for skip in offered if isinstance(skip, Skip) and skip.reason == "bad CSV"]
    assert len(bad) == (3000 if case == "in many rows" else list(captions.values()).count(None))


@pytest.mark.parametrize("case", QUOTES)
def test_a_table_s_unclosed_quote_costs_its_own_row_alone(tmp_path: Path, case: str) -> None:
    text, captions = QUOTES[case]
    for name in captions:
        shutil.copyfile(write_clip(tmp_path / "x.mp4", 2), tmp_path / f"{name}.mp4")
    (tmp_path / "t.csv").write_bytes(b"videoid,name\n\n" + text.encode())
    offered = list(ClipTableSource(tmp_path / "t.csv").entries(0, 0))
    found = {entry.key: entry.caption for entry in offered if not isinstance(entry, Skip)}
    assert found == {f"{name}.mp4": words for name, words in captions.items() if words is not None}
    assert len(offered) - len(found) == (3000 if case == "in many rows" else list(captions.values()).count(None))
