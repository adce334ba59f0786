"""Values that are no finite numbers never come out as a picture: one sentence names the stage and what to try."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade_runs import SD, SMALL, run, seeded
from command_line import made, refuse
from selfcascade import METHODS, SelfCascade
from tiny import TINY

NAMES = ("stable-diffusion", "stable-diffusion-xl", "animatediff", "text-to-video-synthesis", "flux", "wan", "ltx")


def spoilt_at(index: int, value: float) -> Any:
    """A callback that puts a value into the latents of a stage."""

    def callback(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        latents = kwargs["latents"].clone()
        if kwargs["stage"].index == index:
            latents[(0,) * latents.ndim] = value
        return {"latents": latents}

    return callback


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("index", "value"), [(0, float("nan")), (1, float("inf"))])
def test_the_stage_is_named_in_every_family(name: str, index: int, value: float) -> None:
    family = TINY[name]
    pipe: Any = family.build()
    sentence = rf"^stage {index} of 1, \d+x\d+, has values that are not finite: "
    if name == "text-to-video-synthesis":  # its pipeline knows no callback
        pipe.unet.conv_out.bias.data[0] = value
        sentence = r"^stage 0 of 1, .*: weight conv_out.bias of the unet has such too; load the model from whole files$"
    options = {} if name == "text-to-video-synthesis" else {"callback_on_step_end": spoilt_at(index, value)}
    with pytest.raises(FloatingPointError, match=sentence):
        run(pipe, family, num_inference_steps=2, output_type="pil", **options)
    assert "decode" not in vars(pipe.vae)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_whatever_the_form(output_type: str) -> None:
    with pytest.raises(FloatingPointError, match=r"^stage 1 of 1, 128x128, has values"):
        run(SD.shared(), SMALL, callback_on_step_end=spoilt_at(1, float("-inf")), output_type=output_type)


@pytest.mark.parametrize(("network", "weight"), [("unet", "conv_in.weight"), ("vae", "decoder.conv_out.bias")])
def test_a_weight_that_is_no_number_is_named(network: str, weight: str) -> None:
    pipe: Any = SD.build()
    getattr(pipe, network).get_parameter(weight).data.view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match=f"weight {weight} of the {network} has such too"):
        run(pipe, SMALL, output_type="pil")


def test_a_vae_that_overflows_in_half_precision_is_told_what_to_do() -> None:
    pipe: Any = SD.build().to(torch.float16)
    pipe.vae.decoder.conv_out.weight.data *= 6e4
    sentence = r"what the VAE decoded to 64x64 has .*: try dtype float32 or bfloat16, as float16 overflows$"
    with pytest.raises(FloatingPointError, match=sentence):
        run(pipe, SMALL, scale=1, num_inference_steps=1, output_type="pil")


def test_pivots_in_rgb_and_own_pictures_are_checked_too() -> None:
    pipe: Any = SD.build()
    pipe.vae.encoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"^the pivot enlarged to 128x128 has .*: weight encoder\.conv_out\.bias"
    ):
        run(pipe, SMALL, upsampling="rgb")
    with pytest.raises(FloatingPointError, match=r"^the image encoded at 128x128 has values"):
        cascade = SelfCascade(pipe, native_size=(64, 64))
        cascade.upscale(torch.rand(1, 3, 64, 64), height=128, width=128, num_inference_steps=2, generator=seeded())


def test_a_method_that_only_enlarges_is_checked_too() -> None:
    pipe: Any = SD.build()
    pipe.vae.decoder.conv_out.bias.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"^the picture of 256x256 has values"):
        METHODS["lanczos"](pipe, "a", height=256, width=256, num_inference_steps=1, generator=seeded())


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("network", ["unet", "vae"])
def test_the_command_line_says_it_in_a_line_and_writes_nothing(network: str, tmp_path: Path) -> None:
    shutil.copytree("sd", "broken")
    (file,) = Path("broken", network).glob("*.safetensors")
    weights = load_file(file)
    name = next(name for name in sorted(weights, reverse=True) if "conv_out.bias" in name and "encoder" not in name)
    save_file(weights | {name: torch.full_like(weights[name], float("nan"))}, file, {"format": "pt"})
    before = made(tmp_path)
    line = refuse("generate", "a house", "--model", "broken", "--steps", "2", "--output", "a.png", status=1)
    assert "not finite" in line and f"of the {network} has such too" in line
    assert made(tmp_path) == before
