"""Clips that are no video files come back as they were written: equal frames, odd rates, numbers without noughts."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_files import STEP, numbers
from selfcascade.media.frame_files import are_frames, probe_frames, read_frames
from selfcascade.media.frame_rates import even_rate
from selfcascade.media.images import read_image
from selfcascade.media.save_clips import save_clip, write_webp
from selfcascade.media.video_files import ClipError, ClipInfo, probe_clip, read_clip

EQUAL = {
    "in the middle": [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7],
    "at the end": [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7],
    "at the beginning": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7],
    "nowhere": list(range(16)),
}


def greys(levels: Sequence[int]) -> list[Image.Image]:
    """A frame for each level, told apart by `clip_files.numbers`."""
    return [Image.fromarray(np.full((32, 48, 3), STEP * level, np.uint8)) for level in levels]


def saved(path: Path, levels: Sequence[int], fps: float) -> Path:
    record: dict[str, Any] = {"schema": 1, "kind": "selfcascade.clip", "result": {"fps": fps, "frames": len(levels)}}
    return save_clip(greys(levels), fps, record, path, "")[0]


@pytest.mark.parametrize("sidecar", [True, False])
@pytest.mark.parametrize("fps", [8, 12.5, 24, 60])
@pytest.mark.parametrize("where", EQUAL)
def test_equal_neighbours_come_back_from_a_webp_one_by_one(
    tmp_path: Path, where: str, fps: float, sidecar: bool
) -> None:
    path = saved(tmp_path / "a.webp", EQUAL[where], fps)
    if not sidecar:
        path.with_suffix(".json").unlink()
    info = probe_frames(path)
    frames, rate = read_frames(path, info)
    assert numbers(frames) == EQUAL[where] and info.frames == 16
    assert info.duration == pytest.approx(16 / fps, abs=1e-3)
    # Without the record the rate is that of times in whole milliseconds.
    assert rate == info.fps == pytest.approx(fps, rel=1e-9 if sidecar else 2e-3)
    assert numbers(read_frames(path, info, frames=3, start=7 / fps)[0]) == EQUAL[where][7:10]
    assert numbers(read_frames(path, info, fps=fps / 2)[0]) == EQUAL[where][::2]


@pytest.mark.parametrize("fps", [8, 12.5, 24])
@pytest.mark.parametrize("where", EQUAL)
def test_equal_neighbours_come_back_from_a_gif_one_by_one(tmp_path: Path, where: str, fps: float) -> None:
    path = saved(tmp_path / "a.gif", EQUAL[where], fps)
    info = probe_clip(path)
    frames, rate = read_clip(path)
    assert numbers(frames) == EQUAL[where] and info.frames == 16
    assert rate == info.fps == pytest.approx(fps, rel=1e-2)  # times in whole hundredths
    assert numbers(read_clip(path, fps=fps)[0]) == EQUAL[where]


def test_a_fast_gif_is_as_fast_when_it_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", range(16), 100)
    assert numbers(read_clip(path)[0]) == list(range(16)) and probe_clip(path).fps == pytest.approx(100)


def test_the_record_of_another_clip_says_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.webp", range(16), 8)
    saved(tmp_path / "other.webp", range(16), 24).with_suffix(".json").replace(path.with_suffix(".json"))
    assert probe_frames(path).fps == pytest.approx(8)


@pytest.mark.parametrize("record", ['{"fps": 8}', "[]", "{", '{"result": {"fps": 1e999, "frames": 16}}'])
def test_a_file_beside_it_that_is_no_record_says_nothing(tmp_path: Path, record: str) -> None:
    path = saved(tmp_path / "a.webp", range(16), 12.5)
    path.with_suffix(".json").write_text(record)
    assert probe_frames(path).fps == pytest.approx(12.5)


def test_pictures_without_times_have_eight_a_second(tmp_path: Path) -> None:
    first, *others = greys(range(4))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=0, lossless=True)
    info = probe_frames(tmp_path / "a.webp")
    assert info == ClipInfo(32, 48, 8.0, 0.5, 4)
    assert numbers(read_frames(tmp_path / "a.webp", info)[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("hundredths", "count", "rate"),
    [
        ([12, 13, 12, 113], 12, 8.0),
        ([4, 5, 4, 4, 38], 13, 13 / 0.55),
        ([1, 2, 2, 1, 2, 2], 6, 60.0),
        ([10, 100], 11, 10.0),
        ([7, 7, 7], 3, 1 / 0.07),
    ],
)
def test_the_rate_is_that_of_the_pictures_shown_shortest(hundredths: list[int], count: int, rate: float) -> None:
    assert even_rate([length / 100 for length in hundredths], 0.01) == (count, pytest.approx(rate))


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "9.png", "10.png", "11.png", "100.png"],
        ["a.png", "a1.png", "a2.png", "a10.png", "a10b.png", "b1.png"],
        ["f_08.png", "f_09.png", "f_9.png", "f_010.png"],
    ],
)
def test_the_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path, names: list[str]) -> None:
    for name, frame in zip(names, greys(range(len(names))), strict=True):
        frame.save(tmp_path / name)
    shown, _ = read_frames(tmp_path, probe_frames(tmp_path))
    assert numbers(shown) == list(range(len(names)))


def test_a_webp_of_too_many_pixels_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.webp"
    write_webp(greys(range(3)), 8, path)
    with warnings.catch_warnings(action="error"):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 - 1)  # Pillow warns
        assert are_frames(path) and probe_frames(path).frames == 3
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 // 3)  # and raises
        with pytest.raises(ClipError, match=r"'.*a\.webp' has too many pixels; at most 7680x4320"):
            probe_frames(path)
        assert not are_frames(path)
        with pytest.raises(ValueError, match="megapixels"):
            read_image(path)
