"""What stages above the base have of their own, on the command line: as in Python, and made again from the record."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cascade_runs import SETTINGS, seeded
from command_line import record, refuse, run
from selfcascade import SelfCascade, load_model

pytestmark = pytest.mark.usefixtures("workplace")
SMALL = ["--model", "sd", "--native-size", "64x64", "--steps", "3", "--preset", "paper"]
OWN = ["--strength", "0.5", "--stage-prompt", "bricks", "--stage-scheduler", "dpm++ 2m karras"]


def test_a_picture_is_the_one_of_python_and_is_made_again_from_its_record(workplace: Path) -> None:
    made = run("generate", "a house", *SMALL, *OWN, "--output", "a.png")
    assert made.exit_code == 0, made.output
    assert made.stderr == "selfcascade: strength 0.5 is K = 500 of 1000 training timesteps\n"
    given: dict[str, Any] = {**SETTINGS, "num_inference_steps": 3, "output_type": "pil", "pivot_step": 500}
    own = {"stage_prompt": "bricks", "stage_scheduler": "dpm++ 2m karras"}
    expected: Any = SelfCascade(load_model("sd", "cpu"), native_size=(64, 64))(
        "a house", **given, **own, generator=seeded()
    )
    assert Image.open("a.png").tobytes() == expected.images[0].tobytes()
    settings = record("a.png")["settings"]
    assert (settings["pivot_step"], settings["strength"], settings["stage_prompt"]) == ([500], None, "bricks")
    assert "Hires prompt: bricks, Hires sampler: dpm++ 2m karras" in Image.open("a.png").info["parameters"]
    again = run("generate", "--from", "a.png", "--output", "b.png")
    assert "the pixels are the same as recorded in a.png" in again.stderr
    other = run("generate", "--from", "a.png", "--strength", "0.25", "--output", "c.png")
    assert record("c.png")["settings"]["pivot_step"] == [250], other.output


def test_one_of_strength_and_k() -> None:
    line = refuse("generate", "a", "--model", "sd", "--strength", "0.5", "--pivot-step", "500")
    assert line.endswith("--strength cannot be given with --pivot-step: K is the strength times T; leave one out")
