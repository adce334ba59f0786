"""`speed="auto"`: a trial chooses precision and memory format once; what is given is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]

from cascade_runs import QUICK
from selfcascade.training import speed_trial
from selfcascade.training.speed_trial import combinations, fastest, name, seconds_of
from training_runs import equal, settings, trained, weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _another_precision(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(speed_trial, "has_bfloat16", lambda device: True)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_what_is_given_is_not_tried_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(**given: Any) -> list[str]:
        return [name(each) for each in combinations(settings(tmp_path, **given), CPU)]

    assert tried() == ["float32", "float32, channels last", "bf16", "bf16, channels last"]
    assert tried(mixed_precision="no") == ["float32", "float32, channels last"]
    assert tried(mixed_precision="fp16", channels_last=False) == ["fp16"]
    monkeypatch.setattr(speed_trial, "has_bfloat16", lambda device: False)
    assert tried() == ["float32", "float32, channels last"]


def test_a_change_has_to_be_worth_it_and_what_does_not_fit_is_left_out() -> None:
    both = [{"mixed_precision": "no", "channels_last": last} for last in (False, True)]

    def chosen(*seconds: float | None) -> Any:
        return fastest({name(each): (each, value) for each, value in zip(both, seconds, strict=True)})["channels_last"]

    assert [chosen(1.0, 0.96), chosen(1.0, 0.9), chosen(None, 5.0)] == [False, True, True]
    with pytest.raises(ValueError, match="no memory for a pass, tried with float32; float32, channels last"):
        chosen(None, None)


@pytest.mark.parametrize("method", ["upsamplers", "lora", "full"])
def test_a_trial_leaves_the_model_as_it_was(tmp_path: Path, method: str) -> None:
    pipe: Any = QUICK.build()
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    config = settings(tmp_path, method=method, speed="auto", attention="local", resolution=128)
    for each in combinations(config, CPU):
        seconds = seconds_of(pipe, config, each)
        assert seconds is not None and seconds > 0
    assert equal(before, dict(pipe.unet.state_dict()))
    assert all(weight.is_contiguous() for weight in pipe.unet.parameters())


def test_the_choice_is_recorded_and_a_continued_run_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"float32": 4.0, "float32, channels last": 3.0, "bf16": 2.0, "bf16, channels last": 1.0}
    monkeypatch.setattr(speed_trial, "seconds_of", lambda pipe, config, each: taken[name(each)])
    told: list[str] = []
    first = trained(tmp_path / "a", speed="auto", max_train_steps=2, announce=told.append)
    assert (first.config.mixed_precision, first.config.channels_last) == ("bf16", True)
    assert told[0].startswith("seconds of a pass: float32 4, ") and told[0].endswith("takes bf16, channels last")
    assert json.loads((tmp_path / "a" / "speed_trial.json").read_text())["seconds"] == taken
    recorded = json.loads((tmp_path / "a" / "training.json").read_text())
    assert recorded["mixed_precision"] == "bf16" and recorded["channels_last"] is True
    taken["float32"] = 0.1  # on another machine, or in another hour
    AcceleratorState._reset_state(reset_partial_state=True)
    resumed = trained(tmp_path / "a", speed="auto", max_train_steps=4, resume_from_checkpoint="latest")
    assert resumed.config.mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)
    given = trained(tmp_path / "b", mixed_precision="bf16", channels_last=True, max_train_steps=4)
    assert equal(weights(given), weights(resumed))


def test_a_whole_u_net_with_channels_last_is_saved_as_any(tmp_path: Path) -> None:
    made = trained(tmp_path, method="full", channels_last=True, max_train_steps=2, learning_rate=1e-3)
    assert not all(weight.is_contiguous() for weight in made.trained.values())
    loaded = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    assert equal(dict(loaded.named_parameters()), weights(made))  # type: ignore[arg-type]
    AcceleratorState._reset_state(reset_partial_state=True)
    plain = trained(tmp_path / "plain", method="full", max_train_steps=2, learning_rate=1e-3)
    for name_, value in weights(plain).items():  # sums in another order
        torch.testing.assert_close(value, weights(made)[name_], atol=2e-4, rtol=1e-3)
