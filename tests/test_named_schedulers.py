"""Schedulers by name: as diffusers' own `from_config` makes them, on U-Nets and on flows."""

# pyright: reportPrivateImportUsage=false

import inspect
from typing import Any

import diffusers
import pytest
import torch

from cascade_runs import SD, run
from selfcascade.base_models.named_schedulers import scheduler_named
from selfcascade.base_models.stage_scheduler import stage_scheduler
from selfcascade.models import BUNDLED
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.options.schedulers import SCHEDULERS, SPACINGS, parse_scheduler
from tiny import TINY

CURRENT: Any = diffusers.DDIMScheduler(beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "lms"])
def test_each_name_is_that_class_with_the_models_configuration(name: str) -> None:
    kind, settings = SCHEDULERS[name]
    made: Any = scheduler_named(CURRENT, name)
    expected = getattr(diffusers, kind).from_config(CURRENT.config, **settings)
    assert type(made) is type(expected) and dict(made.config) == dict(expected.config)
    assert made.config.beta_schedule == "scaled_linear" and made.config.steps_offset == 1


@pytest.mark.parametrize(
    ("name", "kind", "setting"),
    [
        (
            "DPM++ 2M Karras",
            "DPMSolverMultistepScheduler",
            {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++"},
        ),
        ("dpm++_2m_sde exponential", "DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}),
        ("Euler a", "EulerAncestralDiscreteScheduler", {}),
        ("euler-trailing", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
        ("EulerDiscreteScheduler karras", "EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ],
)
def test_names_are_read_as_people_write_them(name: str, kind: str, setting: dict[str, Any]) -> None:
    made: Any = scheduler_named(CURRENT, name)
    assert type(made).__name__ == kind and setting.items() <= dict(made.config).items()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eulr", "must be one of ddim, .*, not 'eulr'; did you mean euler"),
        ("euler foo", "'euler foo' ends in 'foo'; what may follow a name is karras, "),
        ("euler karras beta", "'euler karras beta' has two spacings"),
        ("", "must be one of ddim"),
    ],
)
def test_what_is_no_name_is_refused_before_anything_is_loaded(name: str, words: str) -> None:
    with pytest.raises(OptionError, match=f"^scheduler {words}"):
        Options(scheduler=name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ddim karras", "'ddim karras': DDIMScheduler has no karras sigmas"),
        ("NoSuchScheduler", "NoSuchScheduler is not a scheduler of diffusers"),
        ("FlowMatchEulerDiscreteScheduler", "does not fit the model, whose scheduler is DDIMScheduler"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        scheduler_named(CURRENT, name)


def test_what_needs_scipy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfcascade.options.optional.find_spec", lambda name: None)
    for name in ("lms", "euler beta"):
        with pytest.raises(OptionError, match=r"needs scipy: pip install 'selfcascade\[schedulers\]'"):
            scheduler_named(CURRENT, name)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "wan"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm++-2m", "unipc"])
def test_flows_have_schedulers_of_their_own(family: str, name: str) -> None:
    pipe: Any = TINY[family].build()
    pipe.scheduler = scheduler_named(pipe.scheduler, name)
    kind = type(pipe.scheduler)
    flow = kind.__name__.startswith("FlowMatch") or pipe.scheduler.config.use_flow_sigmas
    assert flow
    made = run(pipe, TINY[family])
    pictures = made.images if made.frames is None else made.frames
    assert torch.isfinite(pictures).all() and len(made.stages) == 2
    with pytest.raises(OptionError, match="'ddim' is not for flow models like this one; use euler, "):
        scheduler_named(pipe.scheduler, "ddim")


def test_a_cascade_with_a_named_scheduler_is_the_one_with_diffusers_own() -> None:
    pictures = []
    for own in (False, True):
        pipe: Any = SD.build()
        config = pipe.scheduler.config
        settings = {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++", "solver_order": 2}
        stock = diffusers.DPMSolverMultistepScheduler.from_config(config, **settings)
        pipe.scheduler = stock if own else scheduler_named(pipe.scheduler, "dpm++ 2m karras")
        pictures.append(run(pipe).images)
    assert torch.equal(*pictures)


def test_every_spacing_is_a_setting_of_diffusers() -> None:
    known = inspect.signature(diffusers.DPMSolverMultistepScheduler.__init__).parameters
    assert all(set(settings) <= set(known) for settings in SPACINGS.values())
    for name in SCHEDULERS:
        assert parse_scheduler(name).kind == SCHEDULERS[name][0]


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm2", "dpm++-2m", "dpm++-2m-sde", "dpm++-2s", "deis", "unipc"])
def test_a_schedule_whose_first_timesteps_round_to_the_same_runs_from_its_beginning(name: str, spacing: str) -> None:
    """The bundled model's first noise levels lie so close; diffusers' own look-up starts at the second of them."""
    given: Any = diffusers.DDIMScheduler.from_pretrained(BUNDLED / "scheduler")
    stock: Any = scheduler_named(given, f"{name} {spacing}")
    ours: Any = stage_scheduler(stock, None)
    results = []
    for scheduler in (stock, ours):
        scheduler.set_timesteps(20)
        if scheduler is stock:
            scheduler.set_begin_index(0)
        draw, z = torch.Generator().manual_seed(0), torch.ones(1, 4, 2, 2)
        for timestep in scheduler.timesteps:
            said = torch.randn(z.shape, generator=draw)
            z = scheduler.step(said + scheduler.scale_model_input(z, timestep), timestep, z)[0]
            draw.manual_seed(int(draw.initial_seed()) + 1)
        results.append(z)
    if "sde" not in name:  # which draws noise of its own
        assert torch.equal(*results)
    assert torch.isfinite(results[1]).all() and ours.step_index == len(ours.timesteps)


@pytest.mark.parametrize("name", ["dpm++-2m exponential", "euler exponential", "euler beta"])
def test_a_spacing_replaces_the_one_that_the_pipelines_scheduler_has(name: str) -> None:
    if "beta" in name:
        pytest.importorskip("scipy")
    karras = diffusers.DPMSolverMultistepScheduler.from_config(CURRENT.config, use_karras_sigmas=True)
    made: Any = scheduler_named(karras, name)  # pyright: ignore[reportArgumentType]
    used = {setting for setting in ("karras", "exponential", "beta") if made.config[f"use_{setting}_sigmas"]}
    assert used == {name.split()[-1]}
