"""Every mistake on the command line is one line on stderr, the right exit status, and nothing on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command_line import WITH_MODEL, made, refuse, run, start
from selfcascade.options import Options

pytestmark = pytest.mark.usefixtures("workplace")

FIRST = {"generate": ["a house"], "upscale": ["own.png"], "compare": ["a house"], "plan": []}
OPTIONS = {
    "generate": "--height --width --seed --count --steps --pivot-step --guidance-scale --native-size",
    "upscale": "--height --width --seed --count --steps --pivot-step --guidance-scale --native-size",
    "compare": "--height --width --seed --steps --pivot-step --guidance-scale --native-size",
    "plan": "--height --width --batch --steps --pivot-step --guidance-scale --native-size",
}
VALUES = ("-1", "0", "nan", "inf", "99999999999999999999999", "many", "", "1.5")
FINE = {("--seed", "0"), ("--guidance-scale", "0"), ("--guidance-scale", "1.5")}
BAD_NUMBERS = [
    (command, option, value)
    for command, options in OPTIONS.items()
    for option in options.split()
    for value in VALUES
    if (option, value) not in FINE
]


@pytest.mark.parametrize(("command", "option", "value"), BAD_NUMBERS)
def test_bad_numbers_are_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str, value: str
) -> None:
    monkeypatch.setattr("selfcascade.models.load_model", None)
    Image.new("RGB", (64, 64)).save("own.png")
    line = refuse(command, *FIRST[command], option, value, "--model", "sd")
    assert option in line or option.strip("-").replace("-", "_") in line
    assert made(tmp_path) == {"own.png"}


BAD = {
    "no prompt": (["generate"], "PROMPT"),
    "empty prompt": (["generate", ""], "prompt must not be empty"),
    "blank prompt": (["compare", "  \n"], "prompt must not be empty"),
    "long prompt": (["generate", "x" * 10_000], "at most 8000 characters, not 10000"),
    "invalid text": (["generate", "a\udc80"], "UTF-8"),
    "unknown command": (["paint"], "No such command 'paint'"),
    "unknown option": (["generate", "a", "--colour", "red"], "--colour"),
    "option without value": (["generate", "a", "--seed"], "--seed"),
    "two prompts": (["generate", "a", "b"], "b"),
    "method": (
        ["generate", "a", "--method", "magic"],
        "method must be one of direct, attn-sf, ",
    ),
    "fine-tuned without weights": (["generate", "a", "--method", "lora"], "method lora needs --weights: "),
    "weights without a method": (
        ["generate", "a", "--weights", "w"],
        "--weights is for methods full-ft, lora and sr",
    ),
    "in a cascade without weights": (
        ["generate", "a", "--in-cascade"],
        "--in-cascade is for methods full-ft and lora",
    ),
    "fine-tuned among others": (["compare", "a", "--methods", "direct,lora"], "method lora needs weights of its own"),
    "methods": (["compare", "a", "--methods", "direct,magic"], "method must be one of"),
    "doubled methods": (["compare", "a", "--methods", "direct,direct"], "different names"),
    "no methods": (["compare", "a", "--methods", ""], "different names"),
    "preset": (["generate", "a", "--preset", "best"], "preset must be one of paper"),
    "upsampling": (["generate", "a", "--upsampling", "nearest"], "upsampling must be one of latent-bilinear"),
    "native size": (["generate", "a", "--native-size", "64"], "HEIGHTxWIDTH"),
    "seed runs over": (["generate", "a", "--seed", str(2**63 - 1), "--count", "2"], "seed must be"),
    "extension": (["generate", "a", "--output", "a.gif"], ".png"),
    "folder as output": (["generate", "a", "--output", "folder.png"], "is a folder"),
    "file as folder": (["generate", "a", "--output", "own.png/a.png"], "cannot be written"),
    "no such record": (["generate", "--from", "missing.json"], "does not exist"),
    "not a record": (["generate", "--from", "own.png"], "no record"),
    "missing image": (["upscale", "missing.png"], "does not exist"),
    "no image": (["upscale", "text.png"], "not a picture"),
    "folder as image": (["upscale", "folder.png"], "is a folder"),
    "tiny image": (["upscale", "tiny.png"], "16 or more"),
    "device": (["generate", "a", "--device", "tpu"], "device must be cpu, cuda, cuda:N or mps"),
    "absent device": (["generate", "a", "--device", "cuda:99"], "not on this machine"),
    "dtype": (["generate", "a", "--dtype", "int8"], "dtype must be one of float32"),
    "missing model": (
        ["generate", "a", "--model", "nobody/nothing"],
        "model 'nobody/nothing' is not a folder, none of",
    ),
    "model path": (["generate", "a", "--model", "./no/such/folder"], "model './no/such/folder' is neither"),
    "empty folder": (["info", "--model", "folder.png"], "model_index.json"),
    "file as model": (["plan", "--model", "text.png"], "is a file"),
    "damaged model": (["plan", "--model", "damaged"], "cannot be loaded"),
    "video model": (["compare", "a", "--model", "video"], "makes video"),
    "not divisible": (["generate", "a", "--height", "257"], "height must be a multiple of 8, not 257"),
    "smaller than native": (["generate", "a", "--height", "64", "--width", "64"], "smaller than the native size"),
    "too many steps": (["generate", "a", "--steps", "2000"], "--steps must be a whole number from 1 to 1000"),
    "pivot too late": (
        ["generate", "a", "--pivot-step", "1001"],
        "--pivot-step must be a whole number from 1 to 1000",
    ),
    "too many pivots": (["generate", "a", "--pivot-step", "700", "--pivot-step", "600"], "--pivot-step has 2 values"),
    "smaller than image": (["upscale", "own.png", "--height", "32", "--width", "32"], "smaller than"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    arguments, reason = BAD[case]
    Path("folder.png").mkdir()
    Path("text.png").write_text("hello")
    Path("damaged").mkdir()
    Path("damaged/model_index.json").write_text("{")
    Image.new("RGB", (64, 64)).save("own.png")
    Image.new("RGB", (1, 1)).save("tiny.png")
    before = made(tmp_path)
    if "--model" not in arguments and arguments[0] != "paint":
        arguments = [arguments[0], *WITH_MODEL[:2], *arguments[1:]]
    assert reason in refuse(*arguments)
    assert made(tmp_path) == before


BAD_SETTINGS: dict[str, Any] = {
    "unknown": 1,
    "prompt": None,
    "seed": "0",
    "height": 1.5,
    "width": True,
    "guidance_scale": float("nan"),
    "negative_prompt": "\0",
    "native_size": [64],
    "pivot_step": [],
    "num_inference_steps": 0,
    "method": "magic",
    "image": "missing.png",
}


@pytest.mark.parametrize("key", BAD_SETTINGS)
def test_bad_records_are_refused(key: str) -> None:
    settings = Options(prompt="a house", model="sd").as_record() | {key: BAD_SETTINGS[key]}
    Path("bad.json").write_text(json.dumps({"schema": 1, "kind": "selfcascade.picture", "settings": settings}))
    assert key in refuse("generate", "--from", "bad.json")


def test_a_failure_is_one_line_and_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("selfcascade.pipeline.SelfCascade.__call__", fail)
    assert "RuntimeError: out of memory" in refuse("generate", "a house", *WITH_MODEL, status=1)
    assert made(tmp_path) == set()
    result = run("generate", "a house", *WITH_MODEL, "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "selfcascade: error: RuntimeError: out of memory"


@pytest.mark.parametrize("arguments", [["generate"], ["generate", "a", "--height", "tall"], ["paint"]])
def test_the_process_itself_says_one_line(arguments: list[str]) -> None:
    process = start(*arguments)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, len(errors.splitlines())) == (2, "", 1)


NO_FOLDER = {
    "generate": (["generate", "a house", "--model", "sd"], "output folder 'outputs' cannot be written to"),
    "upscale": (["upscale", "own.png", "--model", "sd"], "output folder 'outputs' cannot be written to"),
    "train": (["train", "--output-dir", "outputs/run"], "output_dir folder 'outputs/run' cannot be written to"),
    "report": (["report", "--output", "outputs/report"], "output folder 'outputs/report' cannot be written to"),
}


@pytest.mark.parametrize("command", NO_FOLDER)
def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("selfcascade.models.load_model", None)
    monkeypatch.setattr("selfcascade.models.read_model", None)
    Image.new("RGB", (64, 64)).save("own.png")
    Path("outputs").write_text("a file where a folder would be")
    arguments, reason = NO_FOLDER[command]
    assert reason in refuse(*arguments)
    assert made(tmp_path) == {"own.png", "outputs"}


def test_options_are_named_as_the_command_line_spells_them() -> None:
    assert "error: --frames is for video" in refuse("generate", "a house", "--model", "sd", "--frames", "4")
    assert "error: --sheet is for video" in refuse("generate", "a house", "--model", "sd", "--sheet")
