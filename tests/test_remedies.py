"""What a refusal tells to do, done: it works."""

import inspect
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from cascade_runs import SD, SMALL, run
from command_line import refuse, succeed
from selfcascade import SelfCascade, load_model
from selfcascade.base_models import FAMILIES, UNSERVED
from selfcascade.cascade import Size
from selfcascade.options import Options
from selfcascade.options.optional import EXTRAS
from selfcascade.pipeline.calls import check_clips
from selfcascade.pipeline.planning import enlarged_size
from tiny import TINY

ROOT = Path(__file__).parents[1]
SIDES = {"height": 512, "width": 512}


@dataclass(frozen=True)
class Remedy:
    """A refusal and what it names.

    Attributes:
        sentence: The end of it, or more.
        refused: Is refused with it.
        followed: Does what it says.
    """

    sentence: str
    refused: Callable[[], Any]
    followed: Callable[[], Any]


def plan(scheduler: Any = None, **given: Any) -> Any:
    pipe: Any = SD.build()
    pipe.scheduler = pipe.scheduler if scheduler is None else scheduler
    return SelfCascade(pipe).plan(**{**SIDES, **given})


def replaced(family: str, scheduler: Any, kind: str | None = None, **config: Any) -> Any:
    """A family's pipeline with that scheduler, or with another made from its configuration, planned and run."""
    pipe: Any = TINY[family].build()
    pipe.scheduler = scheduler if kind is None else getattr(diffusers, kind).from_config(scheduler.config, **config)
    return run(pipe, SMALL if family == "stable-diffusion" else TINY[family], num_inference_steps=2)


def clip_of(family: str, frames: int) -> None:
    check_clips(SelfCascade(TINY[family].build(), native_size=TINY[family].native).family, frames, 0.0)


def overflowing(**config: Any) -> Any:
    pipe: Any = TINY["stable-diffusion-xl"].build().to(torch.float16)
    pipe.vae.decoder.conv_out.weight.data *= 6e4
    pipe.vae.register_to_config(**config)
    return run(pipe, SMALL, scale=1, num_inference_steps=1, output_type="np")


DDIM = diffusers.DDIMScheduler()
TRAILING = diffusers.DDIMScheduler(timestep_spacing="trailing")
CONTINUOUS = diffusers.EulerDiscreteScheduler(timestep_type="continuous")
COUNTING_UP = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
HALF_STEPS = diffusers.KDPM2DiscreteScheduler()
OFFSET = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, beta_schedule="scaled_linear")
TABLE = {
    "size": Remedy("514; 512 is the nearest", lambda: plan(height=514), plan),
    "size below the native": Remedy(
        "122; 128 is the nearest", lambda: plan(height=122, width=120), lambda: plan(height=128, width=120)
    ),
    "scale": Remedy("leave one of them out", lambda: plan(scale=2.0), lambda: plan(height=None, width=None, scale=2.0)),
    "steps below K": Remedy(
        "raise pivot_step or num_inference_steps",
        lambda: plan(TRAILING, pivot_step=100, num_inference_steps=4),
        lambda: (
            plan(TRAILING, pivot_step=300, num_inference_steps=4),
            plan(TRAILING, pivot_step=100, num_inference_steps=20),
        ),
    ),
    "one step": Remedy(
        "give more", lambda: plan(TRAILING, num_inference_steps=1), lambda: plan(TRAILING, num_inference_steps=2)
    ),
    "half steps": Remedy(
        "give anchor 0, or the pipeline another scheduler",
        lambda: plan(HALF_STEPS, anchor=0.5),
        lambda: (plan(HALF_STEPS, anchor=0.0), plan(DDIM, anchor=0.5)),
    ),
    "angles": Remedy(
        "use pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)",
        lambda: replaced("stable-diffusion", CONTINUOUS),
        lambda: replaced("stable-diffusion", CONTINUOUS, "DDIMScheduler"),
    ),
    "counting up": Remedy(
        "FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, invert_sigmas=False)",
        lambda: replaced("ltx", COUNTING_UP),
        lambda: replaced("ltx", COUNTING_UP, "FlowMatchEulerDiscreteScheduler", invert_sigmas=False),
    ),
    "of another kind": Remedy(
        "use pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)",
        lambda: replaced("ltx", DDIM),
        lambda: replaced("ltx", DDIM, "FlowMatchEulerDiscreteScheduler"),
    ),
    "for flows": Remedy(
        "or another of that kind, such as DDIMScheduler or EulerDiscreteScheduler",
        lambda: replaced("stable-diffusion", diffusers.FlowMatchEulerDiscreteScheduler()),
        lambda: (replaced("stable-diffusion", DDIM), replaced("stable-diffusion", diffusers.EulerDiscreteScheduler())),
    ),
    "too many steps": Remedy(
        "use fewer",
        lambda: plan(OFFSET, num_inference_steps=1000, preset="paper"),
        lambda: plan(OFFSET, num_inference_steps=999, preset="paper"),
    ),
    "overflow": Remedy(
        "for the VAE alone, force_upcast in its configuration", overflowing, lambda: overflowing(force_upcast=True)
    ),
    "device": Remedy(
        "is not on this machine; use cpu", lambda: load_model("sd", "cuda:63"), lambda: load_model("sd", "cpu")
    ),
    "file": Remedy(
        "or the folder of a model in diffusers' format",
        lambda: load_model("sd/model_index.json"),
        lambda: load_model("sd"),
    ),
    **{
        f"{family} {frames}": Remedy(
            f"not {frames}; {near} is the nearest",
            lambda family=family, frames=frames: clip_of(family, frames),
            lambda family=family, near=near: clip_of(family, near),
        )
        for family, frames, near in (("wan", 16, 17), ("ltx", 5, 9), ("ltx", 4, 1))
    },
}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("name", TABLE)
def test_a_remedy_works(name: str) -> None:
    entry = TABLE[name]
    with pytest.raises((ValueError, FloatingPointError), match=re.escape(entry.sentence)):
        entry.refused()
    entry.followed()


@pytest.mark.parametrize("name", UNSERVED)
def test_the_class_named_for_one_that_is_not_served_is_served_and_makes_the_same(name: str) -> None:
    (other,) = re.findall(r"use (\w+Pipeline)", UNSERVED[name])
    (family,) = {own for own in FAMILIES if other in own.classes}
    asked = inspect.signature(getattr(diffusers, name).__call__).parameters
    assert bool({"num_frames", "frames", "video_length"} & asked.keys()) is family.video


def test_extras_that_sentences_name_hold_what_is_missing() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"selfcascade\[(\w+)\]", sources))
    assert named <= extras.keys()
    for extra, package in (("eval", "torch-fidelity"), ("eval", "matplotlib"), ("train", "peft"), ("video", "av")):
        assert any(entry.startswith(package) for entry in extras[extra]), (extra, package)
    for package, own in EXTRAS.items():
        wanted = package.replace("_", "-")
        assert all(any(entry.startswith(wanted) for entry in extras[extra]) for extra in own), package


def test_remedies_are_spelled_as_the_caller_knows_them(workplace: Path) -> None:
    shutil.copytree("sd", "half-steps")
    HALF_STEPS.save_pretrained("half-steps/scheduler")
    index = workplace / "half-steps" / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "KDPM2DiscreteScheduler"))
    asked = ["generate", "a cat", "--model", "half-steps", "--steps", "2", "--scale", "1.5", "--output", "a.png"]
    assert "give --anchor 0, or the pipeline another scheduler" in refuse(*asked, "--anchor", "0.5")
    succeed(*asked, "--anchor", "0")


def test_a_crop_that_is_said_is_avoided_as_it_says() -> None:
    with pytest.warns(UserWarning, match="give height or width alone to keep all of it"):
        enlarged_size(Size(256, 512), 8, Options(height=512, width=512))
    assert enlarged_size(Size(256, 512), 8, Options(height=512)) == (512, 1024)


def test_a_clip_that_is_too_long_is_cut_as_the_refusal_says(workplace: Path) -> None:
    pytest.importorskip("av")
    from clip_files import write_clip

    write_clip(workplace / "long.mp4", frames=60, size=(32, 32))
    asked = ["upscale", "long.mp4", "--model", "video", "--steps", "2", "--output", "larger.webp"]
    line = refuse(*asked)
    (most,) = re.findall(r"at most (\d+)", line)
    assert line.endswith("use --frames")
    succeed(*asked, "--frames", most)
