"""Video frames are read as a player shows them: square pixels, upright, mirrored where they are, in their colours."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clip_files import numbers, red_corner, write_clip
from selfcascade.data import ClipFiles
from selfcascade.data.examples import Skip
from selfcascade.media.video_files import ClipError, probe_clip, read_clip

COLOUR = (200, 60, 40)
ASPECTS = [
    ("2", (36, 96)), ("1/2", (72, 48)), ("16/15", (36, 51)), ("1", (36, 48)), ("4/3", (36, 64)), ("10/11", (40, 48)),
]  # fmt: skip


def write_colour(path: Path, size: tuple[int, int], meant: int, tags: dict[str, int], frames: int = 2) -> Path:
    """A clip of one colour, coded with the matrix `meant`, that says what `tags` do."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=8)
        video.height, video.width, video.pix_fmt = *size, "yuv444p"
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), COLOUR, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=meant)
            frame.colorspace = tags.get("colorspace", 2)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize(("aspect", "size"), ASPECTS)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_pixels_are_square(tmp_path: Path, ending: str, aspect: str, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / f"a.{ending}", aspect=Fraction(aspect))
    info, (frames, _) = probe_clip(path), read_clip(path)
    assert (info.height, info.width) == frames.shape[1:3] == size
    assert numbers(frames) == list(range(10)) and red_corner(frames[0]) == "top left"
    right = frames[0, : size[0] // 3, : size[1] // 3].astype(int)  # the red corner is a third of both sides, as before
    assert abs(right[1:-2, 1:-2] - (255, 0, 0)).max() < 60


def test_turned_pixels_are_square_too(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", aspect=Fraction(2), rotation=90)
    info, (frames, _) = probe_clip(path), read_clip(path)
    assert (info.height, info.width) == frames.shape[1:3] == (96, 36) and red_corner(frames[0]) == "bottom left"


MIRRORED = [
    (0, {"hflip": True}, "top right"), (0, {"vflip": True}, "bottom left"),
    (180, {"hflip": True}, "bottom left"), (180, {"vflip": True}, "top right"),
    (90, {"hflip": True}, "bottom right"), (90, {"vflip": True}, "top left"),
    (-90, {"hflip": True}, "top left"), (-90, {"vflip": True}, "bottom right"),
]  # fmt: skip


@pytest.mark.parametrize(("degrees", "mirror", "corner"), MIRRORED)
def test_a_mirrored_clip_is_no_turned_one(tmp_path: Path, degrees: int, mirror: dict[str, bool], corner: str) -> None:
    path = write_clip(tmp_path / "a.mp4", rotation=degrees, mirror=mirror)
    info, (frames, _) = probe_clip(path), read_clip(path)
    assert (info.height, info.width) == frames.shape[1:3] == ((48, 36) if abs(degrees) == 90 else (36, 48))
    assert red_corner(frames[0]) == corner


@pytest.mark.parametrize("size", [(36, 64), (576, 720), (720, 64), (64, 1280)])
@pytest.mark.parametrize("tagged", [False, True])
def test_untagged_hd_is_bt709_and_untagged_sd_bt601(tmp_path: Path, size: tuple[int, int], tagged: bool) -> None:
    hd = size[0] > 576 or size[1] >= 1280
    # A tag that says the opposite of what the size would is heeded.
    meant, tag = (1, 1) if hd != tagged else (5, 6)
    path = write_colour(tmp_path / "a.mkv", size, meant, {"colorspace": tag} if tagged else {})
    frames, _ = read_clip(path)
    assert abs(frames[0].astype(int) - COLOUR).max() <= 2


HDR = {
    "PQ": {"color_trc": 16, "color_primaries": 9, "colorspace": 9},
    "HLG": {"color_trc": 18, "color_primaries": 9, "colorspace": 9},
    "bt.2020": {"color_trc": 14, "color_primaries": 9},
}


@pytest.mark.parametrize("words", HDR)
def test_hdr_is_refused_by_name(tmp_path: Path, words: str) -> None:
    path = write_colour(tmp_path / "a.mkv", (36, 64), 1, HDR[words])
    for read in (probe_clip, read_clip):
        with pytest.raises(ClipError, match=rf"'.*a\.mkv' has HDR colours \({words}\), which are not read") as caught:
            read(path)
        assert caught.value.reason == "clip is HDR"
    with pytest.raises(Skip, match="clip is HDR"):
        ClipFiles().load(path, "a", "draw")
