"""A family from outside the package: a few lines, for a pipeline class that the package does not know."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from cascade_runs import SD, SETTINGS, SMALL, run, seeded
from documents import ROOT, blocks, furnish, substituted
from selfcascade import Family, SelfCascade, Size, base_models, register_family


class Drawings(NamedTuple):
    """What `SidewaysPipeline` returns."""

    drawings: Any


class SidewaysPipeline(StableDiffusionPipeline):
    """Stable Diffusion for squares, whose latents lie on their side outside the scheduler."""

    def __call__(self, *, side: int, output_type: str, latents: Tensor | None = None, **arguments: Any) -> Drawings:  # type: ignore[override]
        latents = None if latents is None else latents.mT
        given = {**arguments, "height": side, "width": side, "latents": latents, "output_type": output_type}
        drawn = super().__call__(**given, return_dict=False)[0]
        return Drawings(drawn.mT if output_type == "latent" else drawn)


class Sideways(Family):
    """All that differs."""

    classes = ("SidewaysPipeline",)
    least_multiple = 8
    output_name = "drawings"

    def size_arguments(self, size: Size) -> dict[str, object]:
        return {"side": size.height}

    def to_spatial(self, latents: Tensor, size: Size) -> Tensor:
        return latents.mT

    def from_spatial(self, z: Tensor) -> Tensor:
        return z.mT

    def from_step(self, latents: Tensor, batch: int) -> Tensor:
        return latents.mT

    def to_step(self, z: Tensor) -> Tensor:
        return z


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test registers in a list of its own."""
    monkeypatch.setattr(base_models, "FAMILIES", list(base_models.FAMILIES))


def sideways() -> Any:
    pipe: Any = SMALL.shared()
    made = SidewaysPipeline(**pipe.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("options", [{}, {"anchor": 0.5, "upsampling": "rgb"}, {"output_type": "pt"}])
def test_a_registered_family_makes_what_the_class_behind_it_makes(options: dict[str, Any]) -> None:
    assert register_family(Sideways) is Sideways
    expected, made = run(SMALL.shared(), SMALL, **options), run(sideways(), SMALL, **options)
    assert torch.equal(made.stages[1].latents, expected.stages[1].latents)
    pictures = made.images.mT if options.get("output_type") is None else made.images
    assert torch.equal(pictures, expected.images)


def test_a_family_for_one_cascade_is_not_registered() -> None:
    cascade = SelfCascade(sideways(), native_size=(64, 64), family=Sideways)
    settings: dict[str, Any] = {**SMALL.inputs, **SETTINGS, "height": 128, "width": 128}
    made = cascade(**settings, generator=seeded())
    assert torch.equal(made.stages[1].latents, run(SMALL.shared(), SMALL).stages[1].latents)
    assert Sideways not in base_models.FAMILIES


def test_the_last_registered_family_serves_a_class() -> None:
    class Coarse(Family):
        classes = ("StableDiffusionPipeline",)
        least_multiple = 32

    class Coarser(Coarse):
        least_multiple = 64

    for family in (Coarse, Coarser, Coarse):
        register_family(family)
    assert base_models.FAMILIES.count(Coarse) == 1
    assert SelfCascade(SD.shared()).multiple == 64
    assert SelfCascade(SD.shared(), family=Coarse).multiple == 32


@pytest.mark.parametrize("bad", [Family, StableDiffusionPipeline, "Sideways", Sideways(None), None])  # type: ignore[arg-type]
def test_what_is_no_family_with_classes_is_not_registered(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"family must be a subclass of selfcascade\.Family that names its classes"):
        register_family(bad)
    if bad is not None and bad is not Family:
        with pytest.raises(ValueError, match=r"family must be a subclass of selfcascade\.Family or None"):
            SelfCascade(SD.shared(), family=bad)


def test_the_example_of_the_documents_makes_what_its_class_without_a_family_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/families.md"
    furnish(tmp_path, page, models_only=True)
    (example,) = (block.text for block in blocks(page) if block.language == "python")
    session: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(substituted(example), "families.md", "exec"), session)
    assert session["Squares"] in base_models.FAMILIES
    parts = session["pipe"].components
    plain = SelfCascade(StableDiffusionPipeline(**parts, requires_safety_checker=False))
    made = plain("a red house at night", scale=2, num_inference_steps=10, generator=seeded())
    assert made.images[0].size == (1024, 1024)
    with Image.open("house.png") as house:
        assert np.array_equal(np.asarray(house), np.asarray(made.images[0]))
    monkeypatch.setattr(base_models, "FAMILIES", [one for one in base_models.FAMILIES if one.__module__ != "__main__"])
    once = SelfCascade(session["pipe"], family=session["Squares"])
    assert isinstance(once.family, session["Squares"])
    assert not isinstance(SelfCascade(session["pipe"]).family, session["Squares"])
