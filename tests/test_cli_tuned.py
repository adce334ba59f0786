"""The tuned version on the command line: upsamplers from a folder, recorded and made again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from command_line import WITH_MODEL, record, refuse, run, succeed
from selfcascade import METHODS, FeatureUpsamplers
from selfcascade.cli.compare import _names
from selfcascade.models import bundled_upsamplers
from selfcascade.options import Options, uses
from tiny import TINY

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def upsamplers(tmp_path: Path) -> str:
    """A folder of upsamplers that do change the picture."""
    made = FeatureUpsamplers.from_unet(TINY["stable-diffusion"].build().unet, pivot_step=800, upsampling="rgb")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.save_pretrained(tmp_path / "trained")
    return "trained"


def settings_of(path: str | Path) -> dict[str, Any]:
    return record(path)["settings"]


def test_upsamplers_make_it_the_tuned_version_which_comes_back_bit_for_bit(upsamplers: str) -> None:
    (free,) = succeed("generate", "a house", *WITH_MODEL, "--pivot-step", "800", "--preset", "rgb")
    (tuned,) = succeed("generate", "a house", *WITH_MODEL, "--upsamplers", upsamplers, "--output", "tuned.png")
    (zero,) = succeed(
        "generate", "a house", *WITH_MODEL, "--upsamplers", upsamplers, "--upsampler-scale", "0", "--output", "zero.png"
    )
    settings = settings_of(tuned)
    assert settings["method"] == "self-cascade-tuned" and settings["upsamplers"] == upsamplers
    assert settings["pivot_step"] == [800] and settings["upsampling"] == "rgb"
    pixels = {name: Image.open(path).tobytes() for name, path in (("free", free), ("tuned", tuned), ("zero", zero))}
    assert pixels["zero"] == pixels["free"] != pixels["tuned"]
    result = run("generate", "--from", "tuned.json", "--output", "again.png")
    assert result.exit_code == 0 and "the pixels are the same" in result.stderr
    assert "Upsamplers: trained" in Image.open(tuned).info["parameters"]


def test_an_image_is_enlarged_with_them(upsamplers: str) -> None:
    Image.new("RGB", (128, 128), "orange").save("own.png")
    (path,) = succeed("upscale", "own.png", *WITH_MODEL, "--upsamplers", upsamplers)
    assert Image.open(path).size == (256, 256)
    assert settings_of(path)["method"] == "self-cascade-tuned"


def test_comparing_takes_the_tuned_version_in_where_there_are_upsamplers(upsamplers: str) -> None:
    succeed("compare", "a house", *WITH_MODEL, "--upsamplers", upsamplers, "--output", "with.png")
    compared = [picture["settings"]["method"] for picture in record("with.png")["pictures"]]
    without_weights = {*METHODS} - {"full-ft", "lora", "sr"}  # without upsamplers, test_cli has the tuned one left out
    assert len(compared) == len(without_weights) and set(compared) == without_weights


def test_the_bundled_model_has_upsamplers_of_its_own() -> None:
    named = ["--method", "self-cascade-tuned", "--steps", "3", "--output", "tuned.png"]
    (path,) = succeed("generate", "a house", *named)
    assert settings_of(path)["upsamplers"] == bundled_upsamplers()[0]
    assert "self-cascade-tuned" in _names(None, Options(prompt="a house"))  # what `compare` compares
    assert all(f" {name} " in uses()["upsamplers"].help for name in bundled_upsamplers())


def test_what_cannot_be_used_is_refused_in_one_line(upsamplers: str, tmp_path: Path) -> None:
    said = refuse("generate", "a house", *WITH_MODEL, "--method", "self-cascade-tuned")
    assert "method self-cascade-tuned needs --upsamplers: " in said
    assert "is not a folder with a config.json" in refuse("generate", "a house", *WITH_MODEL, "--upsamplers", "nowhere")
    assert "--upsampler-scale must be a number from -10 to 10, not 99.0" in refuse(
        "generate", "a house", *WITH_MODEL, "--upsampler-scale", "99"
    )
    other = FeatureUpsamplers.from_unet(TINY["animatediff"].build().unet)
    other.save_pretrained(tmp_path / "other")
    assert "made for a U-Net with skip" in refuse("generate", "a house", *WITH_MODEL, "--upsamplers", "other")
    weights = next((tmp_path / "trained").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be loaded" in refuse("generate", "a house", *WITH_MODEL, "--upsamplers", upsamplers)
    weights.unlink()
    assert "cannot be loaded" in refuse("generate", "a house", *WITH_MODEL, "--upsamplers", upsamplers)
