"""What used to end in a library's own error ends in a sentence, and what was replaced without a word is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade_runs import SD, run
from command_line import made, refuse
from selfcascade import SelfCascade
from selfcascade.base_models import FAMILIES, Family
from selfcascade.base_models.scheduler_kinds import predicts_flow
from selfcascade.experiments.experiment import read_experiment
from selfcascade.metrics.distances import frechet_distance, kernel_distance
from selfcascade.options.presets import defaults_of
from selfcascade.report.results import read_config, read_result
from selfcascade.report.tables import read_costs
from selfcascade.training.checkpoints import CheckpointError, load_checkpoint
from tiny import TINY

EPSILON = ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
# Families whose networks predict a flow, and the others.
OF_FLOW = {
    name: isinstance(entry.build().scheduler, diffusers.FlowMatchEulerDiscreteScheduler) for name, entry in TINY.items()
}


@pytest.mark.parametrize("name", TINY)
def test_a_scheduler_of_the_other_kind_is_refused(name: str) -> None:
    """It would run, for half of the pairs, and read what the network says as something else."""
    pipe: Any = TINY[name].build()
    for kind in EPSILON if OF_FLOW[name] else FLOWS:
        cascade = SelfCascade(pipe, native_size=TINY[name].native)
        own, pipe.scheduler = pipe.scheduler, getattr(diffusers, kind)()
        with pytest.raises(ValueError, match=f"^scheduler {kind} .* predicts? a flow"):
            SelfCascade(pipe, native_size=TINY[name].native)
        with pytest.raises(ValueError, match=f"^scheduler {kind} "):  # replaced later
            cascade.plan()
        pipe.scheduler = own


def test_schedulers_for_flows_that_are_no_flow_match_are_taken() -> None:
    pipe: Any = TINY["wan"].build()
    pipe.scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert len(SelfCascade(pipe, native_size=TINY["wan"].native).plan()) == 2


def test_every_class_that_is_served_says_whether_it_predicts_a_flow() -> None:
    def said(family: type[Family], name: str) -> bool | None:
        kind: Any = getattr(diffusers, name, None)
        return True if kind is None or "dummy" in kind.__module__ else predicts_flow(family(kind.__new__(kind)))

    unsaid = [name for family in FAMILIES for name in family.classes if said(family, name) is None]
    assert unsaid == [], f"Family.flow must be stated for {unsaid}"


@pytest.mark.parametrize(
    ("family", "scheduler"), [("z-image", "UniPCMultistepScheduler"), ("flux", "DPMSolverMultistepScheduler")]
)
def test_a_schedule_that_a_scheduler_cannot_make_is_refused_by_its_name(family: str, scheduler: str) -> None:
    pipe: Any = TINY[family].build()
    pipe.scheduler = getattr(diffusers, scheduler)(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(ValueError, match=f"scheduler {scheduler} does not make the schedule .* use the scheduler that"):
        run(pipe, TINY[family])


@pytest.mark.parametrize("generator", [5, "0", [], [5], np.random.default_rng(0)])
def test_what_is_no_generator_is_refused(generator: Any) -> None:
    with pytest.raises(ValueError, match=r"^generator must be a torch\.Generator or a list of them, not "):
        run(SD.build(), generator=generator)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize("wrong", [np.ones((4, 3)), [[1.0, 2.0]], torch.ones(4, 3, dtype=torch.complex64), None])
def test_distances_of_what_is_no_tensor_are_refused(distance: Callable[..., float], wrong: Any) -> None:
    right = torch.rand(4, 3)
    with pytest.raises(ValueError, match=r"^real must "):
        distance(wrong, right)
    with pytest.raises(ValueError, match=r"^fake must "):
        distance(right, wrong)


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def say(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def lose_weight(part: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        del weights[min(weights)]
        save_file(weights, path, {"format": "pt"})

    return change


DEEP = "[" * 100_000
BROKEN = {
    "lost words": (lose("tokenizer/tokenizer.json"), "tokenizer knows 2 of the 514 tokens"),
    "lost length": (lose("tokenizer/tokenizer_config.json"), "tokenizer_config.json' is missing"),
    "no length": (say("tokenizer/tokenizer_config.json", model_max_length=10**30), "says no model_max_length"),
    "lost text configuration": (lose("text_encoder/config.json"), "text_encoder/config.json' is missing"),
    "lost weight of the unet": (lose_weight("unet"), "unet lacks weight conv_in.bias"),
    "lost weight of the vae": (lose_weight("vae"), "vae lacks weight decoder.conv_in.bias"),
    "lost weight of the text": (lose_weight("text_encoder"), "text_encoder lacks weight "),
    "deep index": (write("model_index.json", DEEP), "model_index.json' cannot be read: it is nested too deeply"),
    "index in a list": (write("model_index.json", "[]"), "must hold a JSON object, not a list"),
    "index without a class": (write("model_index.json", "{}"), "does not name the pipeline's class"),
    "nan": (write("vae/config.json", '{"scaling_factor": NaN}'), "NaN is not a number in JSON"),
    "infinite": (write("unet/config.json", '{"sample_size": 1e999}'), "1e999 is too large"),
    "no scale": (say("vae/config.json", scaling_factor=0), "vae has scaling_factor 0, which must be a finite number"),
    "scale in words": (say("vae/config.json", scaling_factor="x"), "vae has scaling_factor 'x', which must be"),
    "no training steps": (
        say("scheduler/scheduler_config.json", num_train_timesteps=0),
        "num_train_timesteps 0, which",
    ),
    "native size in words": (
        say("unet/config.json", sample_size="8x"),
        "native size '8x'; give --native-size",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_model_that_is_not_whole_is_refused(
    workplace: Path, models: Path, change: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(models / "sd", workplace / "broken")
    change(workplace / "broken")
    assert sentence in refuse("generate", "a cat", "--model", "broken", "--steps", "4")
    assert made(workplace) == {"broken"}


BAD_JSON = {"deep": DEEP, "deep object": '{"a":' * 50_000, "nan": '{"a": NaN}', "infinite": '{"a": -Infinity}'}
BAD_JSON |= {"too large": '{"a": 1e400}', "a list": "[1]", "empty": "", "bytes": "\udcff", "digits": "1" * 5000}


@pytest.mark.parametrize("text", BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_nobody_means_is_refused_wherever_it_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint-000001" / "manifest.json"
    path.parent.mkdir()
    raw = text.encode(errors="surrogateescape")
    for name in ("x.json", "report.json", "selfcascade.json"):
        (tmp_path / name).write_bytes(raw)
    path.write_bytes(raw)
    pipe: Any = SD.build()
    pipe.register_to_config(_name_or_path=str(tmp_path))
    for read in (
        lambda: read_result(tmp_path / "x.json"),
        lambda: read_costs(tmp_path / "x.json").pixels,
        lambda: read_config(tmp_path),
        lambda: read_experiment(tmp_path, "x"),
        lambda: load_checkpoint(path.parent),
        lambda: defaults_of(pipe),
    ):
        with pytest.raises(ValueError) as caught:  # CheckpointError is one
            read()
        assert str(tmp_path) in str(caught.value) or isinstance(caught.value, CheckpointError), caught.value
