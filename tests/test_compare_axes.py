"""`compare` over any options: each picture is the one that `generate` makes with those values."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from command_line import made, record, refuse, run, succeed
from selfcascade.cli.axes import cells, labels, read_axis
from selfcascade.options.checks import OptionError

SMALL = ["--model", "sd", "--native-size", "64x64", "--steps", "2"]


def test_axes_run_along_columns_and_rows() -> None:
    axes = [read_axis("anchor=0,0.5"), read_axis('--prompt="a, b",c')]
    assert cells(axes) == [
        {"prompt": "a, b", "anchor": 0.0},
        {"prompt": "a, b", "anchor": 0.5},
        {"prompt": "c", "anchor": 0.0},
        {"prompt": "c", "anchor": 0.5},
    ]
    assert labels(axes) == [("0", "a, b"), ("0.5", "a, b"), ("0", "c"), ("0.5", "c")]
    assert read_axis("steps=4,8/4").values == (4, (8, 4))
    assert read_axis("num-inference-steps=4").name == "num_inference_steps"
    assert read_axis("vae-tiling=yes,no").values == (True, False)
    assert read_axis("native_size=64x64").values == ((64, 64),)
    assert read_axis("lora=a.safetensors:0.5").values == (("a.safetensors:0.5",),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("anchor", "--xyz must be OPTION=VALUE,VALUE"),
        ("anchor=0,,1", "--xyz must be OPTION=VALUE,VALUE"),
        ("ancor=0", "is not an option of compare; did you mean anchor"),
        ("fps=8", "is not an option of compare"),
        ("anchor=0,0", "anchor has a value twice"),
        ("anchor=much", "anchor must be a number from 0 to 1, not 'much'"),
        ("anchor=2", r"anchor must be a number from 0 to 1, not 2\.0"),
        ("preset=best", "preset must be one of"),
        ("seed=1.5", "seed must be a whole number"),
    ],
)
def test_what_is_no_axis_is_refused(text: str, sentence: str) -> None:
    with pytest.raises((OptionError, ValueError), match=sentence):
        read_axis(text)


@pytest.mark.usefixtures("workplace")
def test_every_picture_is_the_one_that_generate_makes(workplace: Path) -> None:
    grid = ["--xyz", "preset=paper,fast", "--xyz", "seed=0,5"]
    lines = succeed("compare", "a house", *SMALL, *grid, "--output", "g.png", "--csv", "g.csv")
    singles = ["g/001-paper-0.png", "g/002-fast-0.png", "g/003-paper-5.png", "g/004-fast-5.png"]
    assert lines[-5:] == ["g.png", *singles]
    succeed("generate", "a house", *SMALL, "--preset", "fast", "--seed", "5", "--output", "own.png")
    assert Image.open("own.png").tobytes() == Image.open(singles[3]).tobytes()
    assert record("own.png")["settings"] == record(singles[3])["settings"]
    kept = json.loads(Path("g.json").read_text())["pictures"]
    assert [one["settings"]["seed"] for one in kept] == [0, 0, 5, 5]
    with Path("g.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["preset"], row["seed"], row["picture"]) for row in rows] == [
        ("paper", "0", singles[0]),
        ("fast", "0", singles[1]),
        ("paper", "5", singles[2]),
        ("fast", "5", singles[3]),
    ]
    assert rows[3]["sha256"] == record("own.png")["result"]["sha256"]
    assert "the pixels are the same" in run("generate", "--from", singles[0], "--output", "again.png").stderr
    assert Image.open("g.png").width > 2 * 256
    assert "'g.csv' exists; give another name, or --force" in refuse("compare", "a", *SMALL, "--csv", "g.csv")


@pytest.mark.usefixtures("workplace")
def test_what_needs_another_model_or_scheduler_loads_it() -> None:
    axis = ["--xyz", "scheduler=ddim,euler", "--methods", "self-cascade"]
    succeed("compare", "a house", *SMALL, "--preset", "paper", *axis, "--output", "s.png")
    for number, name in enumerate(("ddim", "euler"), 1):
        given = ["--preset", "paper", "--scheduler", name, "--output", f"{name}.png"]
        succeed("generate", "a house", *SMALL, *given)
        single = next(Path("s").glob(f"{number:03}-*.png"))
        assert Image.open(f"{name}.png").tobytes() == Image.open(single).tobytes()


@pytest.mark.usefixtures("workplace")
def test_bad_axes_leave_nothing(workplace: Path) -> None:
    three = ["--xyz", "seed=1", "--xyz", "anchor=0", "--xyz", "energy=0"]
    assert "has two axes at most, not seed, anchor and energy" in refuse("compare", "a", *SMALL, *three)
    assert "two axes of seed" in refuse("compare", "a", *SMALL, "--xyz", "seed=1", "--xyz", "seed=2")
    assert "which the comparison leaves out" in refuse(
        "compare", "a", *SMALL, "--methods", "direct", "--xyz", "anchor=0,1"
    )
    assert "400 pictures at most" in refuse("compare", "a", *SMALL, "--xyz", f"seed={','.join(map(str, range(401)))}")
    assert "--csv must end in .csv" in refuse("compare", "a", *SMALL, "--csv", "x.txt")
    assert made(workplace) == set()
