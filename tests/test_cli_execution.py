"""How the command line runs a model: the picture is the plain run's within rounding, or a sentence says why not."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import record, refuse, succeed
from selfcascade.base_models.precision import has_bfloat16

pytestmark = pytest.mark.usefixtures("workplace")
SMALL = ["--steps", "3", "--preset", "paper", "--scale", "2"]


def picture(model: str, *options: str) -> np.ndarray:
    """A picture's bytes, as numbers that can be subtracted."""
    (path,) = succeed("generate", "a house", "--model", model, *SMALL, *options)
    return np.asarray(Image.open(path)).astype(int)


def test_channels_last_differs_by_rounding(quick_model: str) -> None:
    assert abs(picture(quick_model, "--channels-last") - picture(quick_model)).max() <= 1  # sums in another order


def test_autocast_differs_by_the_rounding_of_bfloat16(quick_model: str) -> None:
    if not has_bfloat16("cpu"):
        pytest.skip("this CPU does not compute in bfloat16")
    distance = abs(picture(quick_model, "--autocast") - picture(quick_model))
    assert 0 < distance.mean() < 1 and distance.max() <= 16  # its numbers have 8 bits, and the steps add up


def test_autocast_without_bfloat16_is_refused(quick_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfcascade.loading.execution.has_bfloat16", lambda device: False)
    words = "--autocast needs bfloat16, which this cpu does not compute; leave it out"
    assert words in refuse("generate", "a house", "--model", quick_model, "--device", "cpu", "--autocast")


@pytest.mark.parametrize("kind", ["model", "sequential", "group"])
@pytest.mark.parametrize("command", ["generate", "upscale", "plan", "compare"])
def test_offload_without_an_accelerator_is_refused(kind: str, command: str, quick_model: str) -> None:
    Image.new("RGB", (64, 64)).save("own.png")
    first = {"generate": ["a house"], "upscale": ["own.png"], "plan": [], "compare": ["a house"]}[command]
    told = refuse(command, *first, "--model", quick_model, "--device", "cpu", "--offload", kind)
    assert told.endswith("--offload spares the memory of a GPU, and the device is cpu; leave it out")


def test_a_compiled_network_makes_the_same_picture(quick_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as always, and then run by PyTorch itself: the compiler of C++ takes half a minute."""
    compiled, compile_module = list[str](), torch.nn.Module.compile

    def traced(self: torch.nn.Module, *args: Any, **options: Any) -> None:
        compiled.append(type(self).__name__)
        compile_module(self, *args, **{**options, "backend": "eager"})

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    assert np.array_equal(picture(quick_model, "--compile"), picture(quick_model))
    assert set(compiled) == {"BasicTransformerBlock"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_the_bundled_model_compiled_to_machine_code_makes_the_same_picture() -> None:
    (path,) = succeed("generate", "a house", "--scale", "2", "--steps", "4", "--compile", "--output", "fast.png")
    (plain,) = succeed("generate", "a house", "--scale", "2", "--steps", "4", "--output", "plain.png")
    distance = abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(plain)).astype(int))
    assert distance.max() <= 1 and record(path)["settings"]["compile"] is True
    assert Path(path).is_file()
