"""The benchmark of all methods counts what `selfcascade plan` derives from shapes."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cascade_runs import QUICK
from selfcascade import SelfCascade, Size
from selfcascade.cost.plan import estimate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("methods")


def test_a_cascade_costs_what_its_plan_says(methods) -> None:
    pipe = QUICK.build()
    case = methods.Case("self-cascade", 0, {"preset": "paper"})
    counted = methods.count(pipe, case, Size(128, 128), 2)
    planned = estimate(pipe, SelfCascade(pipe).plan(128, 128, 2, preset="paper"))
    assert counted["unet_passes"] == {"64": planned[0].steps, "128": planned[1].steps}
    tflops = sum(cost.tflops for cost in planned if cost.tflops is not None)
    tokens = torch.zeros(1, 77, dtype=torch.long)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for _ in ("prompt", "negative prompt"):
            pipe.text_encoder(tokens)
    read = counter.get_total_flops() / 1e12  # which the plan leaves out
    assert counted["tflops"] == pytest.approx(tflops + read, rel=1e-6)
    peak = max(cost.peak_bytes for cost in planned if cost.peak_bytes is not None)
    assert counted["weights_bytes"] < counted["peak_bytes"] < 1.2 * peak


def test_the_report_shows_what_is_measured_and_a_dash_elsewhere(methods) -> None:
    row = {"pixels": 4, "size": [128, 128], "trained_parameters": 0, "method": "direct", "seconds": [2.0, 4.0, 3.0]}
    results = {"steps": 25, "guidance_scale": 3.0, "torch": "2", "timing": None, "rows": [row]}
    assert methods.report(results).splitlines()[-1] == "| direct | - | - | - | - | - | 3.00 | 1.00x |"


def test_what_local_attention_costs_is_linear_in_pixels() -> None:
    rows = json.loads((BENCHMARKS / "attention.json").read_text())["forwards"]
    natives = {row["model"]: row for row in rows if row["native"]}
    for row in rows:
        native = natives[row["model"]]
        pixels = row["height"] * row["width"] / (native["height"] * native["width"])
        if pixels >= 1:
            assert row["local"] / native["full"] == pytest.approx(pixels, rel=0.1)


def test_a_network_that_nothing_changes_costs_what_the_planner_says_of_direct_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    costs, pipelines, unets = (importlib.import_module(name) for name in ("costs", "pipelines", "unet_methods"))
    pipe, size = QUICK.build(), Size(128, 128)
    parts = (pipelines.weightless(type(part).from_config, config=part.config) for part in (pipe.vae, pipe.unet))
    vae, unet = parts
    scheduler = pipelines.library.DDIMScheduler(**pipelines.NOISE)
    kind = pipelines.library.StableDiffusionPipeline
    weightless = pipelines.on_cpu(kind(vae, None, None, unet, scheduler, None, None, requires_safety_checker=False))
    model = pipelines.Model(lambda: weightless, pipelines.embeddings(77, 16), Size(64, 64), {}, {})
    direct = costs.planned(SelfCascade(weightless, native_size=size), model, size)
    assert unets.changed(weightless, size, lambda timestep: None) == pytest.approx(direct.network, rel=1e-9)
    assert unets.changed(weightless, size, lambda timestep: timestep) == pytest.approx(direct.network, rel=1e-9)
    paper = costs.planned(SelfCascade(weightless), model, size, preset="paper")
    assert [stage.height for stage, _ in paper.stages] == [64, 128] and paper.last < paper.network < direct.network * 2
    upsamplers = costs.tuned_cascade(weightless, "full").upsamplers
    assert 0 < unets.upsampling_adds(weightless, upsamplers, paper.stages) < paper.network


def test_packages_that_are_not_installed_keep_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    costs, held = importlib.import_module("costs"), json.loads((BENCHMARKS / "costs.json").read_text())
    name = "SD 2.1-base"
    assert {row["method"] for row in held["rows"]} > set(costs.PEERS)
    assert costs.run([], held)["rows"] == held["rows"]
    counted = [row for row in held["rows"] if row["model"] == name and row["method"] not in costs.PEERS]
    monkeypatch.setattr(costs, "measure", lambda model: {name: counted}[model])
    assert costs.run([name], held)["rows"] == held["rows"]
    peer = {**next(row for row in held["rows"] if row["method"] == costs.HIDIFFUSION_PACKAGE), "network": 1.0}
    monkeypatch.setattr(costs, "measure", lambda model: {name: [peer, *counted]}[model])
    again = costs.run([name], held)["rows"]
    assert [row for row in again if row not in held["rows"]] == [peer] and len(again) == len(held["rows"])


def test_hidiffusion_makes_the_picture_of_its_authors_package_with_the_same_shifts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peer, turns = (importlib.import_module(name) for name in ("hidiffusion_peer", "turns"))
    if not peer.is_installed():
        pytest.skip("the package hidiffusion is not installed")
    torch.manual_seed(0)
    pipe, rand, passes = turns.pipeline(), torch.rand, list[int]()

    def picture(method: str) -> torch.Tensor:
        given = {**turns.SIZES["4x"]._asdict(), "num_inference_steps": 5, "guidance_scale": 5.0, "output_type": "pt"}
        given |= {**turns.embeddings(turns.WIDTH), "generator": torch.Generator().manual_seed(0)}
        return turns.METHODS[method](pipe, None, **given).images

    def quarter(*shape: Any, **named: Any) -> torch.Tensor:
        """The package draws each layer's shift at random; ours turns by a quarter from step to step."""
        return torch.tensor([((len(passes) - 1) % 4 + 0.5) / 4]) if shape == (1,) else rand(*shape, **named)

    direct, ours = picture("direct"), picture("hidiffusion")
    hook = pipe.unet.register_forward_pre_hook(lambda *_: passes.append(1))
    with peer.applied(pipe), monkeypatch.context() as patched:
        patched.setattr(torch, "rand", quarter)
        theirs = picture("direct")
    hook.remove()
    assert len(passes) == 5 and not torch.equal(ours, direct)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert torch.equal(picture("direct"), direct)  # nothing of the package is left


def test_the_default_preset_with_local_attention_costs_the_same_a_pixel_at_every_size() -> None:
    rows = json.loads((BENCHMARKS / "costs.json").read_text())["rows"]
    a_pixel: dict[str, list[float]] = {}
    for row in rows:
        if (row["method"], row["attention"]) == ("quality", "local"):
            steps, pixels = row["stages"][-1][-1], row["height"] * row["width"]
            a_pixel.setdefault(row["model"], []).append(row["last"] / steps / pixels)
    assert len(a_pixel) >= 4
    for values in a_pixel.values():
        assert max(values) / min(values) < 1.1
