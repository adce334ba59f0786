"""What `upscale` enlarges is never written over, whatever --force says."""

from pathlib import Path

import pytest
from PIL import Image

from command_line import WITH_MODEL, made, refuse, succeed

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
