"""The sound of a clip goes over to the clip that is made of it, or a sentence says that it does not."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from selfcascade.cli.saving import sound_for
from selfcascade.media.save_clips import save_clip
from selfcascade.media.sound import Sound, sound_of
from selfcascade.options import Options

RATE, FPS = 44100, 8


def clip_with_a_tone(path: Path, seconds: float = 2.0, codec: str = "aac", tone_from: float = 0.0) -> Path:
    """A grey clip that is silent until `tone_from` seconds, and then sounds at 440 Hz."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=FPS)
        sound: Any = container.add_stream(codec, rate=RATE)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        for _ in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        times = np.arange(round(seconds * RATE)) / RATE
        wave = (0.5 * np.sin(2 * np.pi * 440 * times) * (times >= tone_from)).astype(np.float32)
        for first in range(0, len(wave), 1024):
            beat = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], format="fltp", layout="mono")
            beat.sample_rate, beat.pts, beat.time_base = RATE, first, Fraction(1, RATE)
            container.mux(sound.encode(beat))
        container.mux(sound.encode())
    return path


def heard(path: Path) -> np.ndarray:
    """The samples of a file, mono, as a player has them."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (index,) * 3) for index in range(count)]


def test_the_sound_is_the_same_samples(tmp_path: Path) -> None:
    own = clip_with_a_tone(tmp_path / "own.mp4")
    made, _ = save_clip(pictures(16), FPS, {}, tmp_path / "made.mp4", "", sound=sound_of(own))
    wanted, found = heard(own), heard(made)
    assert abs(len(found) - 2 * RATE) < 2048
    assert np.array_equal(found[: len(wanted)], wanted[: len(found)]) and np.abs(found).max() > 0.3


def test_a_part_of_a_clip_has_its_own_part_of_the_sound(tmp_path: Path) -> None:
    own = clip_with_a_tone(tmp_path / "own.mp4", tone_from=1.25)
    made, _ = save_clip(pictures(8), FPS, {}, tmp_path / "made.mp4", "", sound=Sound(own, start=1.0))
    samples = np.abs(heard(made))
    begins = np.argmax(samples > 0.1) / RATE
    assert abs(begins - 0.25) < 0.05 and abs(len(samples) / RATE - 1.0) < 0.06


@pytest.mark.parametrize(
    ("output", "codec", "words"),
    [
        ("a.gif", "aac", "only an .mp4 holds sound"),
        ("a.webp", "aac", "only an .mp4 holds sound"),
        ("frames", "aac", "only an .mp4 holds sound"),
        ("a.mp4", "mp2", "an .mp4 does not hold mp2"),
    ],
)
def test_what_cannot_be_carried_over_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, codec: str, words: str
) -> None:
    own = clip_with_a_tone(tmp_path / "own.mkv", 0.5, codec)
    assert sound_for(Options(image=str(own)), tmp_path / output) is None
    assert capsys.readouterr().err == f"selfcascade: the sound of {str(own)!r} is not carried over: {words}\n"


def test_a_silent_clip_and_a_folder_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_clip(pictures(4), FPS, {}, tmp_path / "own.mp4", "")
    for source in ("own.mp4", "."):
        assert sound_for(Options(image=str(tmp_path / source)), tmp_path / "b.mp4") is None
    assert capsys.readouterr().err == ""
