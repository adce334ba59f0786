"""What `upscale` enlarges is never written over, whatever --force says, and remarked on if far too large."""

from pathlib import Path

import pytest
from PIL import Image

from cascade_runs import QUICK
from command_line import WITH_MODEL, made, refuse, succeed
from selfcascade import SelfCascade
from selfcascade.cli.making import tell_size
from selfcascade.options import Options

pytestmark = pytest.mark.usefixtures("workplace")

SOURCES = ("own.png", "own-2.png", "other.jpg", "frames/0001.png", "outputs/upscaled.png")
CASES = {
    "the file itself": ("own.png", ["--output", "own.png"]),
    "the same by another path": ("own.png", ["--output", "frames/../own.png"]),
    "through a link": ("own.png", ["--output", "link.png"]),
    "from a link": ("link.png", ["--output", "own.png"]),
    "one of several": ("own-2.png", ["--output", "own.png", "--count", "2"]),
    "the default's place": ("outputs/upscaled.png", []),
    "its record": ("other.jpg", ["--output", "other.png"]),
    "a folder of frames": ("frames", ["--output", "frames"]),
    "a folder around it": ("frames/0001.png", ["--output", "frames"]),
    "one of its frames": ("frames", ["--output", "frames/0001.png"]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_and_everything_left_as_it_was(case: str, tmp_path: Path) -> None:
    source, options = CASES[case]
    for name in SOURCES:
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(name)
    Path("other.json").write_text("{}")
    Path("link.png").symlink_to("own.png")
    before, names = {name: Path(name).read_bytes() for name in SOURCES}, made(tmp_path)
    line = refuse("upscale", source, *options, "--force", "--model", "sd")
    assert f"would be written over the image, {source!r}; give another output" in line
    assert {name: Path(name).read_bytes() for name in SOURCES} == before and made(tmp_path) == names


def test_without_force_the_result_gets_a_name_of_its_own() -> None:
    Image.new("RGB", (64, 64), "red").save("own.png")
    before = Path("own.png").read_bytes()
    options = ["--height", "128", "--width", "128", "--native-size", "64x64", "--output", "own.png"]
    assert succeed("upscale", "own.png", *WITH_MODEL, *options) == ["own-2.png"]
    assert Path("own.png").read_bytes() == before and Image.open("own-2.png").size == (128, 128)


def test_a_target_far_above_the_native_size_is_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    cascade, options = SelfCascade(QUICK.shared(), native_size=(64, 64)), Options(image="photo.jpg")
    tell_size(cascade, options, Image.new("RGB", (4000, 3000)))
    said = capsys.readouterr().err
    assert (
        "the target has 11,719 times the pixels that model 'bundled' was trained at (64x64), which can take hours"
        in said
    )
    tell_size(cascade, options.changed(height=1024), Image.new("RGB", (256, 256)))
    assert "256 times" in capsys.readouterr().err
    tell_size(cascade, Options(prompt="a house", height=640, width=640))
    assert "100 times" in capsys.readouterr().err
    tell_size(cascade, options, Image.new("RGB", (256, 256)))  # 8 times a side
    tell_size(cascade, Options(prompt="a house", height=256, width=256))
    assert capsys.readouterr().err == ""
