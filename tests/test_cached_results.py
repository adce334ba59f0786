"""What is cached of one model, data set or setting is never taken for another's."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from cascade_runs import QUICK
from clip_score import tiny_clip_score
from command_line import run, succeed
from selfcascade import load_bundled
from selfcascade.cascade import Size
from selfcascade.data.scenes import render, sample_scene
from selfcascade.evaluation import BaseSamples, Sampling
from selfcascade.evaluation.data_benchmark import DataBenchmark
from selfcascade.evaluation.make_samples import model_digest
from selfcascade.evaluation.moving_scenes_benchmark import MovingSceneEvaluator
from selfcascade.evaluation.parts import in_parts
from selfcascade.evaluation.scenes_benchmark import SceneEvaluator, scene_prompts
from selfcascade.experiments import read_experiment, runs_of
from selfcascade.experiments.experiment import names_of
from selfcascade.experiments.records import check_result
from selfcascade.metrics.i3d import I3D

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def scaled(name: str) -> Callable[[Any], None]:
    """Changes the last number of a part's last weight."""

    def change(pipe: Any) -> None:
        list(getattr(pipe, name).parameters())[-1].data.view(-1)[-1] += 1

    return change


def rescheduled(pipe: Any) -> None:
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)


@pytest.mark.parametrize(
    "change", [scaled("unet"), scaled("vae"), scaled("text_encoder"), rescheduled, lambda pipe: pipe.unet.half()]
)
def test_any_change_of_a_model_gives_it_another_name(change: Callable[[Any], None]) -> None:
    pipe = QUICK.build()
    before = model_digest(pipe)
    assert before == model_digest(QUICK.build())
    change(pipe)
    assert before != model_digest(pipe)


def test_a_model_that_is_loaded_again_has_the_same_name() -> None:
    assert model_digest(load_bundled()) == model_digest(load_bundled())


def test_base_samples_are_of_their_own_steps_and_guidance(tmp_path: Path, quick_model: str) -> None:
    pipe = QUICK.build()
    made = [
        BaseSamples(pipe, scene_prompts(1), Size(64, 64), Sampling(**own), tmp_path)
        for own in ({"num_inference_steps": 2}, {"num_inference_steps": 3}, {"num_inference_steps": [2, 5]})
    ]
    assert made[0].name == made[2].name != made[1].name
    suite = tmp_path / "suite"
    suite.mkdir()
    samplings = {f"steps{steps}": {"method": "lanczos", "num_inference_steps": steps} for steps in (2, 3)}
    settings = {"model": quick_model, "samplings": samplings, "samples": [2], "samples_at_last": [2]}
    (suite / "steps.json").write_text(json.dumps({**settings, "real_pictures": 20, "base_pictures": 3}))
    succeed("evaluate", str(suite), "--runs", str(tmp_path / "runs"))
    folder = suite / "results/steps/seed-0"
    first, second = (json.loads((folder / f"steps{steps}-step000000-n2.json").read_text()) for steps in (2, 3))
    assert first["fid_b"] != second["fid_b"]  # Lanczos differs in its base sample alone


def results_of(suite: Path, tmp_path: Path, **settings: Any) -> list[dict[Any, Any]]:
    return [one.missing() for one in runs_of(suite, [], tmp_path / "runs", settings, tmp_path / "out")]


def test_a_result_of_other_settings_is_not_taken(tmp_path: Path, quick_model: str) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    settings: dict[str, Any] = {
        "model": quick_model, "samplings": {"base": {"method": "lanczos", "num_inference_steps": 2}}, "samples": [2],
        "samples_at_last": [2], "real_pictures": 20, "base_pictures": 3,
    }  # fmt: skip
    (suite / "one.json").write_text(json.dumps(settings))
    own = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "made")]
    succeed("evaluate", str(suite), *own)
    (path,) = (tmp_path / "made/suite/results").rglob("*.json")
    (tmp_path / "out/one/seed-0").mkdir(parents=True)
    path.rename(moved := tmp_path / "out/one/seed-0" / path.name)
    assert results_of(suite, tmp_path) == [{}]
    for name, other, words in (
        ("model", "elsewhere", f"model '{quick_model}', not 'elsewhere'"),
        ("real_pictures", 30, "real_pictures 20, not 30"),
        ("samplings", {"base": {"method": "lanczos", "num_inference_steps": 3}}, "num_inference_steps 2, not 3"),
        ("samplings", {"base": {"num_inference_steps": 2}}, "method 'lanczos', not 'self-cascade'"),
        ("training", {"method": "upsamplers"}, "training None, not {'method': 'upsamplers'}"),
    ):
        with pytest.raises(ValueError, match=rf"base-step000000-n2\.json was made with {words}; delete it"):
            results_of(suite, tmp_path, **{name: other})
    for damaged in ("{", "[]", "{}"):
        moved.write_text(damaged)
        with pytest.raises(ValueError, match=r"n2\.json cannot be read, delete it to make it again"):
            results_of(suite, tmp_path)


def test_a_setting_that_only_one_side_names_is_compared_by_its_default(tmp_path: Path) -> None:
    plain, settings = Sampling(num_inference_steps=2), {"model": "elsewhere", "upsamplers": None}
    enlarged, path = replace(plain, pivot_upscaler="bundled"), tmp_path / "result.json"
    for held, asked, words in (
        (plain, enlarged, "pivot_upscaler None, not 'bundled'"),
        (enlarged, plain, "pivot_upscaler 'bundled', not None"),
    ):
        path.write_text(json.dumps({"sampling": held.as_record(), "settings": settings}))
        check_result(path, held, settings)
        with pytest.raises(ValueError, match=f"was made with {words}; delete it"):
            check_result(path, asked, settings)


def test_checkpoints_of_other_models_data_and_settings_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    held: dict[str, Any] = {"samplings": {"base": {}}, "at_steps": [0, 20], "training": {"preset": "micro"}}
    (folder / "one.json").write_text(json.dumps(held))
    changes: list[dict[str, Any]] = [
        {}, {"model": "elsewhere"}, {"train_data": "other"}, {"training": {"preset": "full"}}, {"at_steps": [0, 40]},
    ]  # fmt: skip
    found = []
    for one in changes:
        (run_of,) = runs_of(folder, [], tmp_path / "runs", one, tmp_path / "out")
        found.append(run_of._config(Size(128, 128)).folder)
    assert found[0] == found[4] and len(set(found)) == 4 and {path.parent for path in found} == {found[0].parent}


def test_steps_to_measure_at_are_among_those_trained_to(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    held: dict[str, Any] = {"samplings": {"base": {}}, "at_steps": [0, 200]}
    for more, words in (
        ({"more_seeds": [1], "more_seeds_at": 300}, r"more_seeds_at must be among at_steps, \[0, 200\], not 300"),
        ({"samplings": {"a": {"at_steps": [200, 7]}}}, r"at_steps of sampling 'a' must be among at_steps, .* not 7"),
    ):
        (folder / "one.json").write_text(json.dumps({**held, **more}))
        with pytest.raises(ValueError, match=words):
            read_experiment(folder, "one")


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in EXPERIMENTS.glob("*/results")))
def test_the_committed_results_are_of_the_committed_settings(suite: str, tmp_path: Path) -> None:
    for one in runs_of(EXPERIMENTS / suite, names_of(EXPERIMENTS / suite), tmp_path):
        one.missing()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six scenes of 64 pixels with captions, and a tiny CLIP beside them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        pixels = (render(sample_scene(number), 64, 64) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"number {number}")
    clip = tiny_clip_score()
    clip.model.save_pretrained(tmp_path / "clip")
    clip.tokenizer.save_pretrained(tmp_path / "clip")
    return folder


def test_features_of_own_data_are_of_these_very_files(data: Path, tmp_path: Path) -> None:
    def key(place: str = str(data)) -> str:
        return DataBenchmark(place, Size(64, 64), f"clip:{tmp_path / 'clip'}").key

    first = key()
    assert first == key() and len(first) < 40
    os.utime(data / "3.png", (1, 1))
    second = key()
    assert second != first
    weights = tmp_path / "clip/model.safetensors"
    os.utime(weights, (1, 1))
    third = key()
    assert third not in (first, second)
    (data / "5.png").unlink()
    assert key() not in (first, second, third)
    assert key(str(data).replace("pictures", "p*")) not in (first, second, third, key())


def test_seeds_of_own_data_share_no_noise(data: Path, tmp_path: Path) -> None:
    benchmark = DataBenchmark(str(data), Size(64, 64), f"clip:{tmp_path / 'clip'}")
    asked = [benchmark.prompts(5, seed) for seed in (0, 1)]
    assert len({generator.initial_seed() for own in asked for generator in own.generators(range(5))}) == 10


def test_what_is_trained_is_not_measured_on_what_it_learnt(data: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    settings = {"training": {"method": "upsamplers"}, "samplings": {"cascade": {}}, "at_steps": [1]}
    (suite / "one.json").write_text(json.dumps(settings))
    own = ["--data", str(data), "--detector", f"clip:{tmp_path / 'clip'}", "--output", str(tmp_path / "out")]
    assert "train_data must be other pictures than data" in run("evaluate", str(suite), *own).stderr
    assert "train_data must be" in run("evaluate", str(suite), *own, "--train-data", str(data)).stderr
    listed = run("evaluate", str(suite), *own, "--train-data", str(tmp_path / "others"), "--dry-run")
    assert "one seed 0: 2 results missing" in listed.stderr
    experiment = read_experiment(suite, "one", {"data": str(data), "train_data": "others", "detector": "clip:x"})
    assert experiment.train_data == "others"


@pytest.mark.parametrize(
    ("name", "value"),
    [("samplings", {}), ("seeds", []), ("seeds", [50]), ("at_steps", []), ("samples", []), ("samples_at_last", [])],
)
def test_empty_settings_are_named(name: str, value: Any, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"samplings": {"base": {}}, name: value}))
    with pytest.raises(ValueError, match=name):
        read_experiment(tmp_path, "one")


def test_pictures_are_evaluated_the_same_in_parts(tmp_path: Path) -> None:
    evaluator = SceneEvaluator(64, 64, tmp_path, real_count=20, draws=4)
    pictures = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = evaluator.evaluate(pictures, scene_prompts(7), pictures)
    parted = evaluator.evaluate(iter(pictures.split(3)), scene_prompts(7), pictures)
    assert whole["composition"] == parted["composition"] and parted["pictures"] == 7
    for name in ("fid", "patch_fid", "fid_b", "patch_kid"):
        assert parted[name] == pytest.approx(whole[name], rel=1e-3, abs=1e-5)


def test_a_detector_of_clips_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detector_name must be given with a detector, and only then, not ''"):
        MovingSceneEvaluator(64, 64, tmp_path, detector=I3D(classes=3))


def numbered(made: list[range]) -> Callable[[range], dict[str, torch.Tensor]]:
    """Makes parts of two tensors, and lists what it was asked for."""

    def make(group: range) -> dict[str, torch.Tensor]:
        made.append(group)
        return {"pictures": torch.tensor(group), "seconds": torch.zeros(len(group))}

    return make


def test_a_part_of_more_or_fewer_samples_is_made_anew(tmp_path: Path) -> None:
    made: list[range] = []
    for count in (7, 7, 10, 10, 7):
        found = in_parts(numbered(made), [range(0, 5), range(5, count)], tmp_path, "parts")
        assert found.rows("pictures", range(count)).tolist() == list(range(count))
    assert made == [range(0, 5), range(5, 7), range(5, 10), range(5, 7)]


def test_a_part_of_other_samples_is_made_anew(tmp_path: Path) -> None:
    made: list[range] = []
    for groups in ([range(0, 5), range(5, 10)], [range(0, 5), range(10, 15)]):
        found = in_parts(numbered(made), groups, tmp_path, "parts")
        assert torch.cat(list(found.each("pictures"))).tolist() == [number for group in groups for number in group]
    assert made == [range(0, 5), range(5, 10), range(10, 15)]


def test_a_part_of_other_settings_is_made_anew(tmp_path: Path) -> None:
    made: list[range] = []
    for settings in ("a", "b", "b", "a"):
        in_parts(numbered(made), [range(0, 5)], tmp_path, "parts", settings)
    assert len(made) == 3


def test_rows_are_read_out_of_the_parts_that_hold_them(tmp_path: Path) -> None:
    parts = in_parts(numbered([]), [range(0, 5), range(5, 10), range(10, 12)], tmp_path, "parts")
    for wanted in (range(0, 5), range(3, 11), range(11, 12), range(6, 7)):
        assert parts.rows("pictures", wanted).tolist() == list(wanted)
    assert [len(part) for part in parts.each("pictures", 7)] == [5, 2]
    assert torch.cat(list(parts.pictures(7))).mul(255).round().tolist() == list(range(7))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def one_row_short(path: Path) -> None:
    save_file({name: value[:-1] for name, value in load_file(path).items()}, path)


def one_bit_other(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": cut_off, "empty": lambda path: path.write_bytes(b""), "zeros": lambda path: path.write_bytes(bytes(99)),
    "no tensors": lambda path: save_file({}, path), "one row short": one_row_short,
    "one bit other": one_bit_other,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_made_anew(damage: str, tmp_path: Path) -> None:
    made: list[range] = []
    groups = [range(0, 5), range(5, 10)]
    whole = in_parts(numbered(made), groups, tmp_path, "parts").paths[1]
    before = whole.read_bytes()
    DAMAGES[damage](whole)
    in_parts(numbered(made), groups, tmp_path, "parts")
    assert made == [*groups, groups[1]] and whole.read_bytes() == before


@pytest.mark.parametrize("damage", [*DAMAGES, "a figure less", "a figure of another form"])
def test_kept_features_that_lack_something_are_made_anew(damage: str, tmp_path: Path) -> None:
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def figures() -> dict[str, Any]:
        return SceneEvaluator(64, 64, tmp_path, real_count=8, draws=2).evaluate(pictures, scene_prompts(4))

    right = figures()
    (path,) = tmp_path.glob("real-pictures-*")
    content, kept = path.read_bytes(), load_file(path)
    if damage == "a figure less":
        save_file({name: value for name, value in kept.items() if name != "repetition"}, path)
    elif damage == "a figure of another form":
        save_file({**kept, "octaves": kept["octaves"][:, :1].contiguous()}, path)
    else:
        DAMAGES[damage](path)
    assert figures() == right and path.read_bytes() == content
    changed = path.stat().st_mtime_ns
    assert figures() == right and path.stat().st_mtime_ns == changed
