"""What a training needs beside the core is looked up before anything is loaded, and nothing is passed over."""

import importlib.util
import sys
from pathlib import Path

import pytest

from cascade_runs import QUICK
from command_line import refuse
from selfcascade.methods.fine_tuned import lora
from selfcascade.training.extras import TRACKERS, check_extras
from training_runs import settings, trained

MISSING = {
    "peft": ({"method": "lora"}, "method 'lora' needs the package peft: pip install 'selfcascade[train]'"),
    "tensorboard": (
        {"report_to": "tensorboard"},
        "report_to 'tensorboard' needs the package tensorboard: pip install 'selfcascade[train]'",
    ),
    "wandb": ({"report_to": "wandb"}, "report_to 'wandb' needs the package wandb: pip install wandb"),
    "bitsandbytes": ({"use_8bit_adam": True}, "use_8bit_adam needs the package bitsandbytes: pip install bitsandbytes"),
}


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("package", MISSING)
def test_a_missing_package_is_named_with_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("selfcascade.training.launch.load_model", None)
    options, sentence = MISSING[package]
    given = [part for name, value in options.items() for part in (f"--{name}", *([] if value is True else [value]))]
    assert sentence in refuse("train", *given, "--model", "sd", "--output-dir", "run")
    assert not Path("run").exists()


def test_trackers_are_those_that_accelerate_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import LoggerType

    assert sorted(TRACKERS) == sorted(set(LoggerType.list()) - {"all"})
    with pytest.raises(ValueError, match=r"report_to must be one of aim, .*, all, not 'tensorbord'"):
        check_extras(settings(tmp_path, report_to="tensorbord"))
    assert importlib.util.find_spec("tensorboard") is not None
    check_extras(settings(tmp_path, report_to="all"))
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="report_to 'all' needs the package tensorboard"):
        check_extras(settings(tmp_path, report_to="all"))


def test_a_lora_to_sample_with_needs_peft_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = QUICK.build()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"a LoRA needs the package peft: pip install"), lora(pipe, tmp_path):
        pass


def test_going_on_from_nothing_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    trained(tmp_path, announce=told.append, max_train_steps=1, resume_from_checkpoint="latest")
    assert told == [f"no checkpoint is in {str(tmp_path)!r} yet; training starts at step 0"]
    trained(tmp_path, announce=told.append, max_train_steps=2, resume_from_checkpoint="latest")
    assert len(told) == 1


def test_going_on_where_checkpoints_are_gone_starts_the_curve_anew(tmp_path: Path) -> None:
    told: list[str] = []
    trained(tmp_path, max_train_steps=1)
    for checkpoint in tmp_path.glob("checkpoint-*"):
        checkpoint.rename(tmp_path.parent / checkpoint.name)
    run = trained(tmp_path, announce=told.append, max_train_steps=2, resume_from_checkpoint="latest")
    assert len(told) == 1 and [row["step"] for row in run.curve.rows()] == [1, 2]
