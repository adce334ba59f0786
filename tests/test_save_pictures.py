"""Pictures and sidecars come whole or not at all, under names that were free, and can be read back."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from selfcascade.media import save_pictures
from selfcascade.media.grids import Panel, picture_grid
from selfcascade.media.read_records import read_record
from selfcascade.media.save_clips import write_webp
from selfcascade.media.save_pictures import check_output, parameters_text, save_picture, untimed, versions
from selfcascade.media.whole_files import umask

KIND = "selfcascade.picture"
TEXT = "a house 🏠\nNegative prompt: blur\nSteps: 3, Seed: 0, Size: 8x4, Version: selfcascade 0.1.0"


def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((8, 4)).convert("RGB")


def record(seconds: float = 1.5) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": KIND,
        "settings": {"prompt": "a house 🏠"},
        "result": {"stages": [{"seconds": seconds}]},
    }


def save(path: Path, force: bool = False) -> tuple[Path, Path]:
    return save_picture(picture(), record(), path, TEXT, force)


def test_a_png_carries_the_text_other_tools_read_and_its_own_record(tmp_path: Path) -> None:
    path, sidecar = save(tmp_path / "new" / "folder" / "a.png")
    with Image.open(path) as image:
        assert image.tobytes() == picture().tobytes()
        assert image.info["parameters"] == TEXT
    assert json.loads(sidecar.read_text("utf-8")) == record()
    assert read_record(sidecar, KIND) == record()
    assert read_record(path, KIND)["settings"] == record()["settings"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def test_the_same_picture_is_the_same_file_however_long_it_took(tmp_path: Path) -> None:
    files = [save_picture(picture(), record(time), tmp_path / f"{time}.png", TEXT)[0] for time in (1.0, 2.0)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("extension", [".jpg", ".JPEG", ".webp", ".avif", ".tif", ".TIFF"])
def test_other_formats_carry_the_text_as_user_comment(tmp_path: Path, extension: str) -> None:
    path, sidecar = save(tmp_path / f"a{extension}")
    with Image.open(path) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment == b"UNICODE\0" + TEXT.encode("utf-16-be")
        assert image.mode == "RGB"
        if extension.lower() in (".webp", ".tif", ".tiff"):
            assert image.tobytes() == picture().tobytes()
        assert np.abs(np.asarray(image, int) - np.asarray(picture(), int)).max() <= 6
    assert sidecar.name == "a.json"
    assert read_record(path, KIND) == untimed(record())  # also where the .json is lost


def exif_block(path: Path) -> bytes:
    """The TIFF block of a file's EXIF, found by the container's own rules."""
    data = path.read_bytes()
    if data[:4] == b"RIFF":
        place = data.index(b"EXIF")
        (length,) = struct.unpack("<L", data[place + 4 : place + 8])
        return data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
    place = data.index(b"\xff\xe1")
    (length,) = struct.unpack(">H", data[place + 2 : place + 4])
    return data[place + 4 : place + 2 + length].removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "clip.webp"])
def test_the_user_comment_has_the_type_that_the_standard_gives_it(tmp_path: Path, name: str) -> None:
    if name == "clip.webp":
        write_webp([picture(), picture().rotate(90)], 8, tmp_path / name, TEXT)
    else:
        save(tmp_path / name)
    block = exif_block(tmp_path / name)
    assert block[:8] == b"MM\0\x2a\0\0\0\x08"
    (entries,) = struct.unpack(">H", block[8:10])
    assert (entries, struct.unpack(">HHLL", block[10:22])) == (1, (0x8769, 4, 1, 26))  # the Exif IFD, a LONG
    (count,) = struct.unpack(">H", block[26:28])
    version, *notes, comment = (block[place : place + 12] for place in range(28, 28 + 12 * count, 12))
    assert len(notes) == (name != "clip.webp")  # a maker's note, which holds a picture's record
    assert struct.unpack(">HHL4s", version) == (0x9000, 7, 4, b"0232")
    tag, kind, length, place = struct.unpack(">HHLL", comment)
    assert (tag, kind) == (0x9286, 7)  # UserComment, UNDEFINED
    assert block[place : place + length] == b"UNICODE\0" + TEXT.encode("utf-16-be")


def test_a_text_too_long_for_a_jpeg_is_left_to_the_sidecar(tmp_path: Path) -> None:
    path, _ = save_picture(picture(), record(), tmp_path / "a.jpg", "x" * 40_000)
    with Image.open(path) as image:
        assert not image.getexif()


def test_taken_names_get_a_number_also_when_only_the_sidecar_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    (tmp_path / "a-2.png").symlink_to("nowhere")
    names = [save(tmp_path / "a.png")[0].name for _ in range(2)]
    assert names == ["a-3.png", "a-4.png"]
    assert (tmp_path / "a.json").read_text() == "mine"


def test_force_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("old")
    assert save(tmp_path / "a.png", force=True)[0] == tmp_path / "a.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]


def test_names_are_claimed_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    assert [save(tmp_path / "a.png")[0].name for _ in range(2)] == ["a.png", "a-2.png"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["_encode", "publish"])
def test_nothing_is_left_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(save_pictures, where, fail)
    with pytest.raises(type(error)):
        save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_name_taken_at_the_last_moment_leaves_no_lone_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = save_pictures.publish

    def raced(file: Path, path: Path) -> bool:
        if path.name == "a.png":
            path.write_text("another process")
        return publish(file, path)

    monkeypatch.setattr(save_pictures, "publish", raced)
    assert save(tmp_path / "a.png")[0].name == "a-2.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-2.json", "a-2.png", "a.png"]


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.txt", ".png", "folder.png", "file/a.png", "x" * 250 + ".png"])
def test_places_that_cannot_be_written_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="output"):
        check_output(tmp_path / name)


def test_a_place_that_can_be_written_is_left_untouched(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "a.png")
    assert not list(tmp_path.iterdir())


BAD_RECORDS = {
    "missing.json": None,
    "folder.json": None,
    "a.txt": b"{}",
    "empty.json": b"",
    "text.json": b"hello",
    "binary.json": b"\xff\xfe\x00",
    "list.json": b"[]",
    "deep.json": b"[" * 100_000,
    "long.json": b"1" * 5000,
    "other.json": b'{"kind": "selfcascade.comparison", "schema": 1}',
    "future.json": b'{"kind": "selfcascade.picture", "schema": 2}',
    "text.png": b"hello",
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_what_is_no_record_is_refused_in_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    content = BAD_RECORDS[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_record(tmp_path / name, KIND)
    assert "\n" not in str(caught.value)


def test_a_png_from_elsewhere_is_no_record(tmp_path: Path) -> None:
    picture().save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="no 'selfcascade' chunk"):
        read_record(tmp_path / "plain.png", KIND)


def test_parameters_have_the_form_that_other_tools_parse() -> None:
    text = parameters_text("a house", "blur", {"Steps": 3, "Model": "a:b, c", "Skipped": None})
    assert text == 'a house\nNegative prompt: blur\nSteps: 3, Model: "a:b, c"'
    assert parameters_text("a house", None, {"Seed": 1}) == "a house\nSeed: 1"


def test_versions_name_what_decides_the_pixels() -> None:
    assert {"selfcascade", "python", "torch", "diffusers"} <= set(versions())


def test_a_grid_shows_its_pictures_at_one_size_with_captions() -> None:
    panels = [Panel(Image.new("RGB", (8, 8), "red"), "small", "8 x 8"), None, Panel(Image.new("L", (64, 32)), "wide")]
    grid = picture_grid(panels, columns=2, side=32, heading="a heading that is much longer than the grid is wide")
    colours = {colour: count for count, colour in grid.getcolors(100_000) or ()}
    assert colours[(255, 0, 0)] == 32 * 32
    assert colours[(0, 0, 0)] == 32 * 16
    assert grid.width == 3 * 16 + 2 * 32
    assert (
        grid.tobytes() == picture_grid(panels, 2, 32, "a heading that is much longer than the grid is wide").tobytes()
    )


@pytest.mark.parametrize("text", ["", "x" * 500, "日本 🏠", "line\nline", "one " * 200])
def test_a_grid_takes_any_caption(text: str) -> None:
    assert picture_grid([Panel(picture(), text, text)], 1, 64, text).height < 500


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="a grid needs a panel"):
        picture_grid([None], 1)


def test_a_tiff_has_its_user_comment_in_the_type_of_the_standard(tmp_path: Path) -> None:
    data = save(tmp_path / "a.tif")[0].read_bytes()
    order = "<" if data[:2] == b"II" else ">"

    def directory(place: int) -> dict[int, tuple[int, int, int]]:
        (count,) = struct.unpack_from(f"{order}H", data, place)
        entries = [struct.unpack_from(f"{order}HHLL", data, place + 2 + 12 * index) for index in range(count)]
        assert entries == sorted(entries)
        return {tag: (kind, length, value) for tag, kind, length, value in entries}

    first = directory(struct.unpack_from(f"{order}L", data, 4)[0])
    kind, length, place = directory(first[0x8769][2])[0x9286]
    assert (kind, data[place : place + length]) == (7, b"UNICODE\0" + TEXT.encode("utf-16-be"))


def test_a_jpeg_keeps_the_users_text_where_the_record_does_not_fit(tmp_path: Path) -> None:
    long = {**record(), "settings": {"prompt": "x" * 66_000}}
    path, _ = save_picture(picture(), long, tmp_path / "a.jpg", TEXT)
    with pytest.raises(ValueError, match="no 'selfcascade' chunk or maker's note"):
        read_record(path, KIND)
    assert TEXT.encode("utf-16-be") in path.read_bytes()
    path, _ = save_picture(picture(), long, tmp_path / "a.tif", TEXT)
    assert read_record(path, KIND) == untimed(long)
