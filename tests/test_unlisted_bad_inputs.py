"""Bad inputs of every kind to the commands, the files and the public calls: one line, nothing computed or written."""

# ruff: noqa: E501 (tables, a kind of input a line)

import json
import os
import re
import signal
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import selfcascade
from cascade_runs import SD
from command_line import run
from selfcascade import (
    FeatureUpsamplers,
    Method,
    Preset,
    SelfCascade,
    apply,
    load_bundled,
    load_model,
    remove,
)
from selfcascade.models import load_super_resolver, load_upsamplers
from selfcascade.training import TrainingConfig
from tiny.parts import clip_text

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
RECORD: dict[str, Any] = {"schema": 1, "kind": "selfcascade.picture", "settings": {"prompt": "a"}, "result": {}}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(side: int) -> bytes:
    """The head of a PNG that says it is so large."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def recorded(**settings: Any) -> bytes:
    return json.dumps({**RECORD, "settings": {"prompt": "a", **settings}}).encode()


FILES: dict[str, bytes] = {
    "zero.json": b"", "list.json": b"[]", "null.json": b"null", "utf16.json": '{"a": 1}'.encode("utf-16"),
    "deep.json": b'{"a":' * 50_000, "nan.json": recorded(scale=NAN), "bool.json": recorded(num_inference_steps=True),
    "huge.json": recorded(seed=HUGE), "text.json": recorded(height="256"), "minus.json": recorded(height=-0.0),
    "nul.json": recorded(model="a\0b"), "settings.json": json.dumps({**RECORD, "settings": []}).encode(),
    "no-settings.json": json.dumps({**RECORD, "settings": None}).encode(),
    "schema.json": json.dumps({**RECORD, "schema": True}).encode(), "kind.json": b'{"schema": 1, "kind": ["a"]}',
    "prompt.json": recorded(prompt=["a"]), "surrogate.json": b'{"schema": 1, "kind": "\\ud800"}',
    "lone.json": recorded(prompt="\ud800"),
    "zero.png": b"", "head.png": b"\x89PNG\r\n\x1a\n", "huge.png": png_of(10**9), "text.png": b"a house",
    "zero.mp4": b"", "text.mp4": b"a house", "zero.gif": b"", "zero.safetensors": b"",
    "long.safetensors": struct.pack("<Q", 2**62) + b"{}", "zero.tar": b"", "zero.csv": b"", "text.parquet": b"PAR1",
    "binary.txt": bytes(range(256)), "zero.txt": b"", "blank.txt": b"\n \n", "file": b"",
    "column.csv": b"prompt,colour\na,red\n", "nan.csv": b"prompt,scale\na,nan\n", "bool.jsonl": b'{"prompt": "a", "seed": true}\n',
    "huge.jsonl": b'{"prompt": "a", "seed": ' + b"9" * 400 + b"}\n", "deep.jsonl": b"[" * 50_000 + b"\n",
    "list.jsonl": b"[1]\n", "no-prompt.csv": b"seed\n1\n", "ragged.csv": b"prompt,seed\na\n", "nul.csv": b"prompt\na\0b\n",
    "suite/a.json": b'{"samplings": {"a": {"scale": NaN}}}', "deep/a.json": b'{"a":' * 50_000, "list/a.json": b"[]",
    "bool/a.json": b'{"samplings": {"a": {}}, "samples": [true]}', "zero/a.json": b"",
    "index/zero/model_index.json": b"", "index/list/model_index.json": b"[]", "index/deep/model_index.json": b'{"a":' * 50_000,
    "index/class/model_index.json": b'{"_class_name": 5}', "index/none/model_index.json": b"{}",
    "index/unknown/model_index.json": b'{"_class_name": "NopePipeline"}',
    "index/code/model_index.json": b'{"_class_name": ["pipeline", "Own"]}',
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with damaged files, links in a circle, pipes and folders where files belong."""
    place = tmp_path_factory.mktemp("bad")
    for name, data in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    for name in ("dir.json", "dir.png", "dir.mp4", "dir.txt", "dir.safetensors", "index/dir/model_index.json", "empty"):
        (place / name).mkdir(parents=True)
    for ending in ("json", "png", "mp4", "txt", "safetensors", "tar", "csv"):
        (place / f"loop.{ending}").symlink_to(f"loop.{ending}")
        os.mkfifo(place / f"pipe.{ending}")
    (place / "loop").symlink_to("loop")
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    Image.fromarray(np.full((20, 20), NAN, np.float32)).save(place / "nan.tif")
    Image.new("LAB", (20, 20)).save(place / "lab.tif")
    (place / "frames").mkdir()
    Image.new("RGB", (32, 32)).save(place / "frames/1.png")
    return place


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Whoever opens a pipe that nobody writes to waits for ever."""
    earlier = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a pipe"))
    signal.setitimer(signal.ITIMER_REAL, 6)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, earlier)


OUT = ["--output", "new.png"]
COMMANDS: list[list[str]] = [
    *(["generate", "--from", f"{name}.json", *OUT] for name in (
        "zero", "list", "null", "utf16", "deep", "nan", "bool", "huge", "text", "minus", "nul", "settings", "no-settings",
        "schema", "kind", "prompt", "surrogate", "dir", "loop", "pipe", "lone",
    )),
    *(["generate", "--from", name, *OUT] for name in ("zero.png", "head.png", "huge.png", "dot.png", "pipe.png", "a\nb.json", "")),
    *(["upscale", name, *OUT] for name in (
        "zero.png", "head.png", "huge.png", "text.png", "dot.png", "dir.png", "loop.png", "pipe.png", "nan.tif", "lab.tif",
        "file", "", ".", "a\nb.png", "missing.png", "zero.gif", "a" * 300 + ".png",
    )),
    *(["upscale", name, "--output", "new.mp4"] for name in ("zero.mp4", "text.mp4", "dir.mp4", "loop.mp4", "pipe.mp4", "frames")),
    *(["generate", "a", *flags, *OUT] for flags in (
        ["--seed", "-1"], ["--seed", "18446744073709551616"], ["--seed", "1.5"], ["--height", "1000000008"], ["--height", "-0"],
        ["--scale", "nan"], ["--scale", "inf"], ["--scale", "-0.0"], ["--scale", "1e308"], ["--pixels", "nan"],
        ["--native-size", "0x64"], ["--native-size", "64x"], ["--native-size", "1000000000x1000000000"],
        ["--native-size", "-64x64"], ["--guidance-scale", "nan"], ["--steps", "5,,5"], ["--steps", ","],
        ["--steps", "999999999"], ["--pivot-step", "0"], ["--anchor", "nan"], ["--energy", "-0.1"], ["--fps", "nan"],
        ["--frames", "0"], ["--lora", ":"], ["--lora", "zero.safetensors:nan"], ["--lora", "zero.safetensors"],
        ["--lora", "long.safetensors"], ["--lora", "dir.safetensors"], ["--lora", "loop.safetensors"],
        ["--lora", "pipe.safetensors"], ["--control-scale", "nan"], ["--controlnet", "empty"], ["--device", "cuda:999"],
        ["--device", "cpu:1"], ["--device", ""], ["--scheduler", "\n"], ["--count", "0"], ["--upsamplers", "empty"],
        ["--upsamplers", "loop"], ["--upsamplers", "a\nb"], ["--controlnet", "loop", "--control-image", "dot.png"],
    )),
    *(["generate", "a", "--output", name] for name in (
        "", ".", "/", "file/x.png", "dir.png", "loop.png/x.png", "/proc/x.png", "/dev/null/x.png", "a\nb.txt", "pipe.png/x.png",
        "é" * 200 + ".png", "loop/x.png",
    )),
    *(["plan", "--model", name] for name in (
        "", "loop", "zero.safetensors", "long.safetensors", "pipe.safetensors", "a//b", "../x/y/z", "x\ny", "a" * 300, "empty",
        *(f"index/{name}" for name in ("zero", "list", "deep", "class", "none", "unknown", "code", "dir")),
    )),
    ["plan", "--batch", "0"], ["info", "--model", "file"], ["info", "--device", "cuda:"],
    *(["compare", "a", "--methods", names, *OUT] for names in ("", ",", "direct,direct", "nope", "direct,,lanczos")),
    ["compare", "a", "--output", "file/x.png"], ["compare", "a", "--output", "new.mp4"],
    *(["train", "--train-data", "collages", *flags] for flags in (
        ["--output-dir", "file/x"], ["--output-dir", "loop/x"], ["--rank", "0"], ["--resolution", "0"], ["--learning-rate", "nan"],
        ["--max-train-steps", "0"], ["--seed", "-1"], ["--resolution", "-256"], ["--output-dir", "/proc/x"], ["--output-dir", ""],
        ["--learning-rate", "inf"], ["--resume-from-checkpoint", ""],
    )),
    *(["train", "--train-data", name, "--output-dir", "new"] for name in (
        "", "loop", "zero.csv", "pipe.tar", "pipe.csv", "file", "empty", "a\nb", "collages:sprites=loop",
        "collages:split=", "loop.tar", "loop.csv",
    )),
    *(["evaluate", name] for name in ("missing", "file", "suite", "deep", "list", "bool", "zero", "loop", "", "empty")),
    ["evaluate", "suite", "--pictures", "1"], ["evaluate", "suite", "nope"],
    *(["report", name, "--output", "new"] for name in ("missing", "file", "loop", "empty", "")),
    ["report", "empty", "--output", "file/x"], ["report", "empty", "--costs", "deep.json", "--output", "new"],
    *(["batch", name, "--output", "new"] for name in (
        "missing.txt", "dir.txt", "loop.txt", "pipe.txt", "zero.txt", "blank.txt", "binary.txt", "zero.csv", "text.parquet",
        "column.csv", "nan.csv", "bool.jsonl", "huge.jsonl", "deep.jsonl", "list.jsonl", "no-prompt.csv", "ragged.csv",
        "nul.csv", "file", "",
    )),
    ["batch", "column.csv", "--output", "file/x"], ["batch", "column.csv", "--output", "new", "--part", "4/4"],
    *(["web", *flags] for flags in (
        ["--port", "0"], ["--port", "70000"], ["--output", "file"], ["--output", "file/x"], ["--auth", "x"], ["--memory", "nan"],
        ["--host", ""], ["--host", "a b"], ["--auth", ":"],
    )),
    ["--nope"], ["nope"], ["generate", "a", "--output"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: ascii(" ".join(arguments))[1:70])
def test_a_command_says_one_line_and_leaves_nothing(
    files: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("selfcascade.models.BUNDLED", files / "nowhere")  # what gets as far as a model fails there
    before = sorted(files.rglob("*"))
    result = run(*arguments)
    lines = result.stderr.splitlines()
    assert result.exit_code == 2 and len(lines) == 1 and result.stdout == "", result.output + repr(result.exception)
    assert lines[0].startswith("selfcascade: error: ") and len(lines[0]) < 600
    assert "is not installed" not in lines[0], "refused by chance alone"
    assert sorted(files.rglob("*")) == before


def picture() -> Image.Image:
    return Image.new("RGB", (64, 64))


def closed() -> Image.Image:
    image = picture()
    image.close()
    return image


def cascade(**given: Any) -> Any:
    return SelfCascade(SD.shared(), **given)


class Nameless(Method):
    summary = "a"
    name: Any = 5

    def make(self, request: Any) -> Any:
        return request


def enlarge(image: Any, **given: Any) -> Callable[[], Any]:
    return lambda: cascade().upscale(image, "a", height=128, width=128, num_inference_steps=2, **given)


def sample(**given: Any) -> Callable[[], Any]:
    return lambda: cascade()(**{"prompt": "a", "height": 128, "width": 128, "num_inference_steps": 2, **given})


def config(**given: Any) -> Callable[[], Any]:
    return lambda: TrainingConfig(**{"train_data": "scenes", "output_dir": "new", **given})


CALLS: dict[str, Callable[[], Any]] = {
    "a pipeline of None": lambda: SelfCascade(None),  # type: ignore[arg-type]
    "a pipeline of text": lambda: SelfCascade("sd"),  # type: ignore[arg-type]
    "a network for a pipeline": lambda: SelfCascade(clip_text()),  # type: ignore[arg-type]
    **{f"native size {size!r}": lambda size=size: cascade(native_size=size)
       for size in ((0, 64), (True, True), 64, (64,), (64, NAN), (-64, 64), ("64", "64"), (64, 64, 64), (HUGE, HUGE))},
    "a family by name": lambda: cascade(family="sd"),
    "a family that is an object": lambda: cascade(family=object()),
    "upsamplers of another kind": lambda: cascade(upsamplers=object()),
    "upsamplers by name": lambda: cascade(upsamplers="full"),
    **{f"prompt {prompt!r}": sample(prompt=prompt) for prompt in (5, ["a", 5], b"a", [[]], {"a": 1}, True)},
    **{f"negative prompt {value!r}": sample(negative_prompt=value) for value in (5, ["a", "b"], True, b"a")},
    **{f"generator {value!r}": sample(generator=value) for value in ([], [None], "cpu", [torch.Generator()] * 3, True)},
    **{f"pivot of {name}": sample(pivot=value) for name, value in {
        "whole numbers": torch.zeros(1, 4, 8, 8, dtype=torch.int64), "one axis": torch.zeros(4), "no batch": torch.zeros(0, 4, 8, 8),
        "other channels": torch.zeros(1, 3, 8, 8), "another device": torch.zeros(1, 4, 8, 8, device="meta"), "text": "a",
        "complex numbers": torch.zeros(1, 4, 8, 8, dtype=torch.complex64), "a layout": torch.zeros(1, 4, 8, 8).to_sparse(),
        "truths": torch.zeros(1, 4, 8, 8, dtype=torch.bool), "an array": np.zeros((1, 4, 8, 8)), "infinity": torch.full((1, 4, 8, 8), INF),
    }.items()},
    **{f"image of {name}": enlarge(image) for name, image in {
        "None": None, "a number": 5, "nothing": [], "a path": "a.png", "a Path": Path("a.png"), "bytes": b"a",
        "whole numbers": torch.zeros(1, 3, 64, 64, dtype=torch.int64), "NaN": torch.full((1, 3, 64, 64), NAN),
        "0 to 255": torch.full((1, 3, 64, 64), 255.0), "three axes": torch.zeros(3, 64, 64), "no batch": torch.zeros(0, 3, 64, 64),
        "no pixels": torch.zeros(1, 3, 0, 64), "four channels": torch.zeros(1, 4, 64, 64), "bools": torch.zeros(1, 3, 64, 64, dtype=torch.bool),
        "complex numbers": torch.zeros(1, 3, 64, 64, dtype=torch.complex64), "meta": torch.zeros(1, 3, 64, 64, device="meta"),
        "two sizes": [picture(), Image.new("RGB", (32, 32))], "two kinds": [picture(), torch.zeros(3, 64, 64)], "closed": closed(),
        "LAB": Image.new("LAB", (64, 64)), "a dict": {"image": picture()},
    }.items()},
    **{f"plan {given!r}": lambda given=given: cascade().plan(**given) for given in (
        {"height": -0.0}, {"height": "128"}, {"scale": True}, {"scale": 1e308}, {"scale": -0.0}, {"scale": "2"}, {"pixels": -1},
        {"scale": 2, "pixels": 4}, {"scale": 2, "height": 128}, {"height": 128.0, "width": 128}, {"height": 10**9, "width": 10**9},
        {"num_inference_steps": []}, {"num_inference_steps": 2.5}, {"pivot_step": HUGE, "scale": 2},
        {"preset": 5}, {"preset": True}, {"anchor": True}, {"guidance_scale": "7"}, {"height": np.float64(NAN)},
    )},
    **{f"apply {value!r}": lambda value=value: apply(value) for value in (None, 5, "sd")},
    **{f"remove {value!r}": lambda value=value: remove(value) for value in (None, 5)},
    "apply to a class": lambda: apply(type(SD.shared())),
    **{f"method {value!r}": lambda value=value: selfcascade.register_method(value) for value in (None, Nameless, Nameless())},
    **{f"family {value!r}": lambda value=value: selfcascade.register_family(value)
       for value in (None, 5, object, "sd", type("Bare", (selfcascade.Family,), {}), type("Word", (selfcascade.Family,), {"classes": "sd"}))},
    **{f"levels {value!r}": lambda value=value: FeatureUpsamplers(value, 32)
       for value in ([], [[]], [[0]], [[-4]], [[True]], [["a"]], None, 5, [[NAN]], [4])},
    **{f"time channels {value!r}": lambda value=value: FeatureUpsamplers([[4]], value) for value in (0, True, "a", NAN, -1, None)},
    **{f"fingerprint {value!r}": lambda value=value: FeatureUpsamplers([[4]], 8, fingerprint=value) for value in (5, ["a"], [NAN])},
    **{f"upsamplers {name!r}": lambda name=name: load_upsamplers(name) for name in ("", "loop", "file", "empty", "a\0b", None, 5)},
    **{f"model {name!r}": lambda name=name: load_model(name) for name in (5, "", None, "a\0b", b"sd", True)},
    **{f"dtype {value!r}": lambda value=value: load_model("bundled", dtype=value) for value in (torch.float16, "half", 5, "")},
    **{f"config {value!r}": lambda value=value: load_model("zero.safetensors", config=value) for value in (5, "loop")},
    "bundled in another dtype": lambda: load_bundled(dtype="int8"), "a super-resolver of None": lambda: load_super_resolver(None),  # type: ignore[arg-type]
    **{f"preset {given!r}": lambda given=given: Preset(**{"name": "a", "summary": "b", "pivot_share": 0.5, "later_pivot_share": 0.5,
       "upsampling": "rgb", **given}) for given in (
        {"pivot_share": NAN}, {"pivot_share": True}, {"upsampling": "nearest"}, {"name": 5}, {"anchor": -0.1}, {"matched": 1}, {"step_share": INF},
    )},
    **{f"training {given!r}"[:60]: config(**given) for given in (
        {"rank": True}, {"resolution": (True, True)}, {"learning_rate": NAN}, {"learning_rate": -0.0}, {"learning_rate": INF},
        {"output_dir": "a\0b"}, {"train_data": 5}, {"seed": HUGE}, {"max_train_steps": 2.5}, {"lr_scheduler": "foo"}, {"preset": 5},
        {"train_batch_size": True}, {"validation_prompt": "a"}, {"validation_prompt": (5,)}, {"unknown": 1}, {"output_dir": ""},
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS, ids=lambda name: re.sub(r" at 0x[0-9a-f]+", "", ascii(name))[1:60])
def test_a_call_says_one_line_before_it_computes(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(type(SD.shared().unet), "forward", lambda *given, **named: pytest.fail("it was computed"))
    before = sorted(files.rglob("*"))
    with warnings.catch_warnings(action="ignore"), pytest.raises((ValueError, TypeError)) as error:
        CALLS[name]()
    words = str(error.value)
    assert "expected str, bytes" not in words
    ours = "selfcascade" in Path(str(error.traceback[-1].path)).parts or "pydantic" in type(error.value).__module__
    assert ours, f"raised in {error.traceback[-1].path}: {words}"
    assert words and len(words) < 600 and ("pydantic" in type(error.value).__module__ or "\n" not in words)
    assert sorted(files.rglob("*")) == before
