"""What a call does where it does not say: the same in Python and on the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import KDPM2DiscreteScheduler, StableDiffusionPipeline
from PIL import Image

from cascade_runs import FAMILIES, QUICK, SD, run, seeded
from command_line import WITH_MODEL, record, refuse, succeed
from command_line import run as run_command
from selfcascade import PRESETS, SelfCascade, load_bundled, load_model
from selfcascade.base_models.stage_scheduler import training_steps
from selfcascade.making import load, make
from selfcascade.options import Options
from selfcascade.options.presets import DEFAULT_PRESET, ModelDefaults, defaults_of
from tiny import TINY, TinyPipeline

pytestmark = pytest.mark.usefixtures("workplace")

OWN = {"num_inference_steps": 3, "guidance_scale": 2.5, "preset": "rgb", "native_size": [64, 96]}


def with_defaults(folder: Path, text: str, family: TinyPipeline = QUICK) -> Path:
    """A model's folder with this as its selfcascade.json."""
    family.shared().save_pretrained(folder)
    (folder / "selfcascade.json").write_text(text)
    return folder


@FAMILIES
def test_the_default_is_the_preset_that_measured_best(family: TinyPipeline) -> None:
    pipe: Any = family.shared()
    assert DEFAULT_PRESET == "quality" == SelfCascade(pipe, native_size=family.native).default_preset
    made = run(pipe, family, preset=None, num_inference_steps=10)  # with fewer, a shifted flow has none below K
    quality = PRESETS[DEFAULT_PRESET]
    used = made.pivot_settings
    assert (used.upsampling, used.anchor, used.energy) == (quality.upsampling, quality.anchor, quality.energy)
    assert made.stages[1].pivot_step == round(quality.pivot_share * training_steps(pipe.scheduler))
    assert made.stages[1].latents.isfinite().all()


def test_a_scheduler_that_cannot_be_anchored_has_another_default() -> None:
    pipe: Any = SD.build()
    pipe.scheduler = KDPM2DiscreteScheduler.from_config(pipe.scheduler.config)
    assert SelfCascade(pipe).default_preset == "rgb"
    assert torch.equal(run(pipe, preset=None).images, run(pipe, preset="rgb").images)
    with pytest.raises(ValueError, match="half steps"):
        run(pipe, preset="quality")


def test_the_bundled_models_carry_what_they_were_measured_with() -> None:
    for video in (False, True):
        cascade = SelfCascade(load_bundled("cpu", video=video))
        assert cascade.defaults == ModelDefaults(num_inference_steps=25, guidance_scale=3.0)
        stages = cascade.plan()
        assert [(stage.num_inference_steps, stage.guidance_scale) for stage in stages] == [(25, 3.0), (10, 3.0)]
        assert [stage.pivot_step for stage in stages] == [None, 500]


@pytest.mark.slow
def test_python_and_the_command_line_make_the_same_pixels_of_the_bundled_model() -> None:
    cascade = SelfCascade(load_bundled("cpu"))
    prompt = "a large red house on the left at night"
    made = cascade(prompt, generator=torch.Generator().manual_seed(7))
    (path,) = succeed("generate", prompt, "--seed", "7", "--device", "cpu")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(made.images[0]))
    settings = record(path)["settings"]
    assert (settings["preset"], settings["num_inference_steps"], settings["guidance_scale"]) == ("quality", 25, 3.0)


@pytest.mark.parametrize("text", ['{"native_size": [32, 32]}', json.dumps(OWN)], ids=["few", "all"])
def test_python_and_the_command_line_make_the_same_pixels(tmp_path: Path, text: str) -> None:
    folder = with_defaults(tmp_path / "own", text)
    made = SelfCascade(load_model(str(folder), "cpu"))("a house", generator=seeded(7))
    (path,) = succeed("generate", "a house", "--model", "own", "--seed", "7", "--device", "cpu")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(made.images[0]))
    settings = record(path)["settings"]
    expected = {"preset": "quality", "num_inference_steps": 50, "guidance_scale": 7.5} | json.loads(text)
    del expected["native_size"]
    assert {name: settings[name] for name in expected} == expected
    again = run_command("generate", "--from", Path(path).with_suffix(".json"), "--output", "again.png")
    assert "the pixels are the same" in again.stderr


def test_a_folder_carries_defaults_that_a_call_overrides(tmp_path: Path) -> None:
    pipe = load_model(str(with_defaults(tmp_path / "own", json.dumps(OWN))), "cpu")
    cascade = SelfCascade(pipe)
    assert cascade.native_size == (64, 96) and cascade.default_preset == "rgb"
    (base, above) = cascade.plan()
    assert (above.size, above.num_inference_steps, above.guidance_scale) == ((128, 192), 3, 2.5)
    assert (base.num_inference_steps, above.pivot_step) == (3, 700)
    (_, above) = cascade.plan(num_inference_steps=50, guidance_scale=5.0, preset="fast")
    assert (above.num_inference_steps, above.guidance_scale, above.pivot_step) == (5, 1.0, 500)
    assert SelfCascade(pipe, native_size=(128, 128)).native_size == (128, 128)


def test_a_pipeline_made_of_another_keeps_its_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_defaults(tmp_path / "own", json.dumps(OWN))
    pipe = load_model("own", "cpu")
    other: Any = StableDiffusionPipeline.from_pipe(pipe)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert defaults_of(pipe) == defaults_of(other) == ModelDefaults(**{**OWN, "native_size": (64, 96)})
    assert defaults_of(SD.shared()) == ModelDefaults()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"steps": 25}', "steps: Extra inputs are not permitted"),
        ('{"num_inference_steps": 0}', "num_inference_steps: Input should be greater than or equal to 1"),
        ('{"num_inference_steps": true}', "num_inference_steps: Input should be a valid integer"),
        ('{"guidance_scale": NaN}', "guidance_scale: Input should be a finite number"),
        ('{"preset": "best"}', "preset: .*must be one of paper, rgb, quality, fast, not 'best'"),
        ('{"native_size": [64]}', "native_size.1: Field required"),
        ('{"native_size": [64, -64]}', "native_size.1: Input should be greater than 0"),
        ("[]", "Input should be an object"),
        ("{", "Invalid JSON"),
        ("[" * 5000, "Invalid JSON"),
        (" " * 20_000, "cannot be read: the file is larger than 10000 bytes"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    pipe: Any = SD.build()
    (tmp_path / "selfcascade.json").write_text(text)
    pipe.register_to_config(_name_or_path=str(tmp_path))
    with pytest.raises(ValueError, match=rf"selfcascade\.json'.*{words}"):
        SelfCascade(pipe)


def test_a_record_without_a_preset_means_the_papers() -> None:
    """Records were made without one while `paper` was the default, and before anchor and energy were recorded."""
    size = [*WITH_MODEL, "--native-size", "64x64", "--height", "256", "--width", "256"]
    (first,) = succeed("generate", "a house", *size, "--preset", "paper", "--output", "first.png")
    old = record(first)
    assert old["settings"]["pivot_step"] == [700, 700]
    for name in ("anchor", "energy"):
        del old["settings"][name]
    old["settings"]["preset"] = None
    Path("old.json").write_text(json.dumps(old))
    result = run_command("generate", "--from", "old.json", "--output", "again.png")
    assert "the pixels are the same as recorded" in result.stderr
    smaller = ["--height", "128", "--width", "128", "--output", "small.png"]
    assert run_command("generate", "--from", "old.json", *smaller).exit_code == 0
    assert record("small.png")["settings"]["pivot_step"] == [700]


@pytest.mark.parametrize(
    ("name", "once"),
    [("quality", {"step_share": 1.0, "attention": "full"}), ("fast", {"step_share": 0.5, "attention": "full"})],
)
def test_a_record_means_the_preset_of_its_time(name: str, once: dict[str, Any], models: Path) -> None:
    """Records of version 0.1 do not tell steps and guidance above the base, nor, at first, attention."""
    size = {"height": 256, "width": 256, "native_size": (64, 64)}
    preset = replace(PRESETS[name], guided=True, **once)
    options = load(Options(model=str(models / "sd"), prompt="a house", preset=preset, num_inference_steps=12, **size))
    made = make(*options)
    old = made.record()
    assert old["settings"]["preset"] == name and old["result"]["preset"] == {
        "guided": True,
        "step_share": once["step_share"],
    }
    del old["result"]["preset"], old["settings"]["attention"]
    Path("old.json").write_text(json.dumps(old))
    result = run_command("generate", "--from", "old.json", "--output", "again.png")
    assert "the pixels are the same as recorded" in result.stderr
    made_again = run_command("generate", "--from", "again.json", "--output", "third.png")
    assert "the pixels are the same as recorded" in made_again.stderr
    now = run_command("generate", "--from", "old.json", "--preset", name, "--output", "now.png")
    assert now.exit_code == 0 and record("now.png")["result"]["sha256"] != old["result"]["sha256"]


@pytest.mark.parametrize(
    "told", [3, {"step_share": 0.5}, {"step_share": 2, "guided": True}, {"guided": 1, "step_share": 1.0}]
)
def test_a_preset_that_no_record_can_hold_is_refused(told: Any) -> None:
    (first,) = succeed("generate", "a house", *WITH_MODEL, "--native-size", "64x64", "--output", "first.png")
    changed = record(first)
    changed["result"]["preset"] = told
    Path("changed.json").write_text(json.dumps(changed))
    words = refuse("generate", "--from", "changed.json")
    assert "changed.json" in words and ("step_share" in words or "guided" in words)


def test_upsamplers_keep_the_preset_they_were_trained_for(tmp_path: Path) -> None:
    from selfcascade import FeatureUpsamplers

    pipe: Any = load_model(str(with_defaults(tmp_path / "own", '{"preset": "fast"}')), "cpu")
    upsamplers = FeatureUpsamplers.from_unet(pipe.unet, "micro", 650)
    assert SelfCascade(pipe, upsamplers).plan()[1].pivot_step == 650
    assert SelfCascade(pipe).plan()[1].pivot_step == round(1000 * PRESETS["fast"].pivot_share)
    assert SelfCascade(TINY["animatediff"].shared()).plan()[1].pivot_step == 500
