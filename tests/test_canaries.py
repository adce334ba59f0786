"""Small pictures of every method, their features and figures, are what they were when `PROTOCOL` was last raised.

Results are kept for months, and must be those that the present code would make. Where a number moves, older results are
of other code: raise `REVISIONS` of the method, or `PROTOCOL` where all move (`evaluation/revisions.py`), and
write the new numbers with

    python tests/test_canaries.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cascade_runs import QUICK, sampled, shaken
from selfcascade import METHODS, PRESETS
from selfcascade.cascade import Size
from selfcascade.evaluation import open_benchmark, revisions
from selfcascade.metrics.damages import blurred
from selfcascade.upsamplers.model import FeatureUpsamplers

PLACE = Path(__file__).with_name("canaries.json")
NEEDS_MORE = ("full-ft", "lora", "sr")  # weights of their own; the first two are sampled by other methods
SAMPLED = sorted(name for name in METHODS if name not in NEEDS_MORE)


def numbers(values: torch.Tensor) -> list[float]:
    """Mean, standard deviation, and two corners."""
    flat = values.double().flatten()
    return [float(f"{x:.5g}") for x in (flat.mean(), flat.std(), flat[0], flat[-1])]


def of_method(name: str) -> list[float]:
    pipe: Any = QUICK.build()
    own: dict[str, Any] = (
        {"preset": "rgb"} if name.startswith("self-cascade") else {}
    )  # presets have their own revisions
    if name != "self-cascade-tuned":
        return numbers(sampled(name, pipe, QUICK, **own))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the blocks of "full" start from random weights
        both = [shaken(FeatureUpsamplers.from_unet(pipe.unet, preset)) for preset in ("micro", "full")]
    return [one for upsamplers in both for one in numbers(sampled(name, pipe, QUICK, upsamplers=upsamplers, **own))]


def of_preset(name: str) -> list[float]:
    return numbers(sampled("self-cascade", QUICK.build(), QUICK, preset=name, num_inference_steps=25))


def of_figures(folder: Path) -> dict[str, list[float]]:
    """Features, patches' places and figures of two blurred renders, by the present protocol."""
    benchmark = open_benchmark("scenes", "scenes", Size(64, 64), split="validation")
    prompts = benchmark.prompts(3, 0)
    pictures = blurred(benchmark.true_samples(prompts, range(3), Size(64, 64)), 1.0)
    judged = benchmark.evaluator(64, 64, folder, 3, protocol=2).judge(pictures, prompts)
    found = {name: numbers(torch.as_tensor(judged.features[name][:])) for name in sorted(judged.features)}
    return found | {
        name: [float(f"{judged.figures[name][0]:.5g}")] for name in ("kid", "patch_kid", "fid", "patch_fid")
    }


@pytest.fixture(scope="module")
def held() -> dict[str, Any]:
    return json.loads(PLACE.read_text())


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_are_those_of_the_revision(name: str, held: dict[str, Any]) -> None:
    assert held["revisions"].get(name, 1) == revisions.REVISIONS.get(name, 1), "write the new numbers"
    # Processors differ in the last digits of convolutions, which a few steps of a sampler multiply.
    assert of_method(name) == pytest.approx(held["methods"][name], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_samples_are_those_of_the_preset_s_revision(name: str, held: dict[str, Any]) -> None:
    assert held["preset revisions"].get(name, 1) == revisions.PRESET_REVISIONS.get(name, 1), "write the new numbers"
    assert of_preset(name) == pytest.approx(held["presets"][name], rel=1e-3, abs=1e-3)


def test_figures_are_those_of_the_protocol(held: dict[str, Any], tmp_path: Path) -> None:
    assert held["protocol"] == revisions.PROTOCOL, "write the new numbers"
    found = of_figures(tmp_path)
    assert set(found) == set(held["figures"])
    for name, values in found.items():
        assert values == pytest.approx(held["figures"][name], rel=2e-3, abs=2e-4), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        content = {
            "protocol": revisions.PROTOCOL,
            "revisions": revisions.REVISIONS,
            "methods": {name: of_method(name) for name in SAMPLED},
            "preset revisions": revisions.PRESET_REVISIONS,
            "presets": {name: of_preset(name) for name in PRESETS},
            "figures": of_figures(Path(folder)),
        }
    PLACE.write_text(json.dumps(content, indent=1) + "\n")
