"""Names of files made of what is in them: what is filled in, what is refused, and that nothing leaves its folder."""

from pathlib import Path
from typing import Any

import pytest

from command_line import made, record, refuse, succeed
from selfcascade.cli.names import FIELDS, MAX_BYTES, example, named

VALUES: dict[str, object] = {**FIELDS, "prompt": "a red house", "seed": 7, "width": 96, "height": 64}


def told(pattern: str, **values: object) -> str:
    return str(named(Path(pattern), {**VALUES, **values}))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{prompt:.5}-{seed}-{width}x{height}.png", "a red-7-96x64.png"),
        ("out/{method}/{seed:04}.webp", "out/self-cascade/0007.webp"),
        ("{guidance:.2f}.jpg", "7.50.jpg"),
        ("{{{seed}}}.png", "{7}.png"),
        ("frames-{seed}", "frames-7"),
        ("/tmp/{number}.png", "/tmp/1.png"),
        ("v1.5-{seed}", "v1.5-7"),
    ],
)
def test_fields_are_filled_in(pattern: str, expected: str) -> None:
    assert told(pattern) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("../../etc/passwd", "etc-passwd.png"),
        ("..", "untitled.png"),
        ("", "untitled.png"),
        ('a/b\\c:d*e?f"g<h>i|j\0k\nl', "a-b-c-d-e-f-g-h-i-j-k l.png"),
        ("~root $HOME `id` %PATH%", "root -HOME -id- -PATH.png"),
        ("ein Häuschen 家", "ein Häuschen 家.png"),
        ("{seed} {0}", "seed- -0.png"),
        ("é" * 500, "é" * (MAX_BYTES // 2) + ".png"),
    ],
)
def test_values_add_no_folder_and_nothing_that_a_file_system_minds(prompt: str, expected: str) -> None:
    assert told("{prompt}.png", prompt=prompt) == expected


REFUSED: list[tuple[str, str]] = [
    ("{promt}.png", "unknown field 'promt'; there are prompt, .*; did you mean prompt"),
    ("{}.png", "unknown field ''"),
    ("{prompt.__class__}.png", "unknown field 'prompt.__class__'"),
    ("{prompt[0]}.png", r"unknown field 'prompt\[0\]'"),
    ("{prompt!r}.png", "may say a width or a precision"),
    ("{seed:>99999999}.png", "may say a width or a precision"),
    ("{seed:{width}}.png", "may say a width or a precision"),
    ("{prompt:d}.png", "cannot be written as 'd'"),
    ("{seed.png", "is not a valid pattern"),
    ("seed}.png", "is not a valid pattern"),
]


@pytest.mark.parametrize(("pattern", "sentence"), REFUSED)
def test_what_is_no_pattern_is_refused(pattern: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        example(Path(pattern))


def test_pictures_get_their_names_and_none_is_overwritten(workplace: Path) -> None:
    small = ["--model", "sd", "--native-size", "64x64", "--scale", "1", "--steps", "1"]
    line = refuse("generate", "a", *small, "--output", "{size}.png")
    assert "output has an unknown field 'size'" in line and made(workplace) == set()
    shared: list[Any] = ["generate", "a/b", *small, "--count", "2", "--force"]
    assert succeed(*shared, "--output", "{prompt}-{seed}.png") == ["a-b-0.png", "a-b-1.png"]
    assert succeed(*shared, "--output", "{width}.png") == ["64.png", "64-2.png"]  # the second would replace the first
    assert succeed(*shared[:-3], "--output", "{scheduler}.png") == ["DDIM.png"]
    assert succeed(*shared[:-3], "--scheduler", "Euler A", "--output", "{scheduler}.png") == ["Euler A.png"]
    assert [record(name)["settings"]["seed"] for name in ("64.png", "64-2.png")] == [0, 1]
    assert succeed(*shared[:-1], "--output", "{width}.tiff") == ["64-3.tiff", "64-4.tiff"]
