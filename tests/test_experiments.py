"""Experiments on the bundled model, small: what is missing is made, once, and the figures mean what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from cascade_runs import QUICK
from command_line import run, succeed
from selfcascade import METHODS, FeatureUpsamplers, SelfCascade
from selfcascade.cascade import Size
from selfcascade.data.scenes import render, sample_scene
from selfcascade.evaluation import BaseSamples, PromptSet, Sampling, sample
from selfcascade.evaluation.scenes_benchmark import SceneEvaluator, scene_prompts
from selfcascade.experiments import read_experiment
from selfcascade.experiments.experiment import Experiment, names_of
from selfcascade.metrics.detectors import PatchDetector
from selfcascade.metrics.registry import IMAGE_METRICS, Metric, with_interval
from selfcascade.metrics.video import relative
from selfcascade.report.tables import columns_of

SUITE = Path(__file__).parents[1] / "experiments/training-curves"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def renders(prompts: PromptSet, side: int) -> torch.Tensor:
    numbers = range(prompts.first_seed, prompts.first_seed + len(prompts))
    pictures = [torch.from_numpy(render(sample_scene(number, held_out=True), side, side)) for number in numbers]
    return torch.stack(pictures).permute(0, 3, 1, 2).contiguous()


def test_real_renders_are_read_right_and_flawed_ones_by_the_patches(cache: Path) -> None:
    prompts = scene_prompts(30)
    evaluator = SceneEvaluator(128, 128, cache, real_count=100, draws=8)
    pictures = renders(prompts, 128)
    real = evaluator.evaluate(pictures, prompts)
    soft = interpolate(interpolate(pictures, scale_factor=0.5, mode="area"), scale_factor=2, mode="bilinear")
    soft = evaluator.evaluate(soft, prompts)
    moved = evaluator.evaluate(pictures.roll(1, 0), prompts)
    assert real["composition"]["all"] > 0.97
    assert soft["composition"]["all"] > 0.9
    assert soft["patch_kid"][0] > 3 * abs(real["patch_kid"][0])
    assert moved["composition"]["all"] < 0.2
    assert moved["patch_fid"][0] == pytest.approx(real["patch_fid"][0], rel=0.3)
    assert real["fid"][1] <= real["fid"][0] <= real["fid"][2]
    assert all(0.8 < band < 1.25 for band in real["detail"])
    assert soft["detail"][0] < 0.3
    base = interpolate(renders(scene_prompts(30, 51_000_000), 128), scale_factor=0.5, mode="area")
    near, far = (evaluator.evaluate(one, prompts, base) for one in (pictures, torch.rand_like(pictures)))
    assert near["fid_b"][0] < 0.5 * far["fid_b"][0] and near["kid_b"][0] < far["kid_b"][0]
    assert near["fid"] == real["fid"]
    wide = SceneEvaluator(64, 128, cache, real_count=30, draws=4).evaluate(pictures[..., :64, :], prompts)
    assert "composition" not in wide and wide["repetition"]["mean"] > 0
    with pytest.raises(ValueError, match=r"\(128, 128\) pixels"):
        evaluator.evaluate(pictures[..., :64], prompts)


def test_a_new_metric_is_computed_and_has_a_column_by_its_entry_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = Metric("red", "red", with_interval(relative), extract=lambda pictures: pictures[:, 0].mean((1, 2)))
    monkeypatch.setitem(IMAGE_METRICS, "red", red)
    prompts = scene_prompts(4)
    evaluator = SceneEvaluator(64, 64, cache, real_count=4, draws=4)
    real = torch.cat(list(evaluator.real()))
    found = evaluator.evaluate(real * torch.tensor([0.5, 1, 1]).view(3, 1, 1), prompts)
    assert found["red"][0] == pytest.approx(0.5)
    assert columns_of(clips=False).beside["red"](found) == found["red"][0]


def test_experiments_of_older_files_say_questions() -> None:
    samplings = {"base": {"method": "lanczos"}}
    older = Experiment(**{"samplings": samplings, "questions": (3,), "questions_at_last": (5,)})
    assert older == Experiment(samplings=samplings, samples=(3,), samples_at_last=(5,))


def test_samples_are_those_of_whole_cascades_with_the_scenes_seeds(cache: Path, bundled_pipe: Any) -> None:
    pipe = bundled_pipe
    prompts = scene_prompts(2)
    sampling = Sampling(pivot_step=600, upsampling="rgb", num_inference_steps=3)
    made = sample(pipe, prompts, sampling, BaseSamples(pipe, prompts, Size(64, 64), sampling, cache))
    settings: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 3, "guidance_scale": 3.0}
    settings |= {"preset": "paper", "pivot_step": 600, "upsampling": "rgb", "output_type": "pt"}
    for row, words in enumerate(prompts.captions(range(2))):
        generator = torch.Generator().manual_seed(prompts.first_seed + row)
        whole = SelfCascade(pipe)(words, generator=generator, **settings).images[0]  # type: ignore[union-attr]
        assert (made[row] - whole).abs().mean() < 0.01  # they are sampled in bfloat16


def test_every_method_samples_and_those_that_start_from_a_base_sample_take_the_shared_one(
    cache: Path, bundled_pipe: Any
) -> None:
    pipe: Any = QUICK.build()
    prompts = scene_prompts(2)
    sampling = Sampling(num_inference_steps=3)
    pivots = BaseSamples(pipe, prompts, Size(64, 64), sampling, cache)
    for name in METHODS:
        if name in ("self-cascade-tuned", "full-ft", "lora", "sr"):
            continue
        pictures = sample(pipe, prompts, Sampling(method=name, num_inference_steps=3), pivots)
        assert pictures.shape == (2, 3, 128, 128) and 0 <= pictures.min() <= pictures.max() <= 1
    assert "forward" not in vars(pipe.unet)
    with pytest.raises(ValueError, match=r"method must be one of direct, .*, not 'magic'"):
        Sampling(method="magic")
    pipe = bundled_pipe
    pivots = BaseSamples(pipe, prompts, Size(64, 64), sampling, cache)
    base = interpolate(torch.cat(list(pivots.pictures(pipe))), scale_factor=2, mode="bicubic", antialias=True)
    pictures = sample(pipe, prompts, Sampling(method="lanczos", num_inference_steps=3), pivots)
    assert (pictures - base).abs().mean() < 0.02


def test_only_missing_results_are_made(tmp_path: Path, quick_model: str) -> None:
    suite, runs = tmp_path / "suite", str(tmp_path / "runs")
    suite.mkdir()
    shared = {"num_inference_steps": 2, "upsampling": "rgb"}
    training = {"train_batch_size": 1}
    (tmp_path / "defaults.json").write_text(json.dumps({"shared": shared, "shared_training": training}))
    settings = {
        "model": quick_model,
        "training": {"method": "upsamplers"},
        "samplings": {"cascade": {"pivot_step": 600}},
        "real_pictures": 8,
        "base_pictures": 4,
        "at_steps": [0, 2, 3],
        "samples": [3],
        "samples_at_last": [3, 4],
    }
    (suite / "micro.json").write_text(json.dumps(settings))
    (suite / "free.json").write_text(json.dumps({**settings, "training": None, "at_steps": [0]}))
    listed = run("evaluate", str(suite), "micro", "--runs", runs, "--dry-run")
    assert "micro seed 0: 4 results missing" in listed.stderr
    succeed("evaluate", str(suite), "--runs", runs)
    folder = suite / "results/micro/seed-0"
    names = [f"cascade-step{step:06d}-n{count}.json" for step, count in ((0, 3), (2, 3), (3, 3), (3, 4))]
    assert sorted(path.name for path in folder.glob("*.json")) == names
    first, last = (json.loads((folder / name).read_text()) for name in (names[0], names[3]))
    free = json.loads((suite / "results/free/seed-0/cascade-step000000-n3.json").read_text())
    assert free["tflops_per_sample"] > 0 and last["tflops_per_sample"] is None  # of upsamplers no plan tells it
    # Untrained upsamplers change nothing but, on some processors, the last digits of sums in bfloat16.
    assert first["patch_fid"] == pytest.approx(free["patch_fid"], rel=1e-3)
    weights = sum(weight.numel() for weight in FeatureUpsamplers.from_unet(QUICK.shared().unet, "micro").parameters())
    assert (last["pictures"], last["trained_parameters"], last["sampling"]["pivot_step"]) == (4, weights, 600)
    sheet = suite / "results/free/seed-0/cascade-step000000.webp"
    assert Image.open(sheet).size == (4 * 128, 128) and len(sheet.with_suffix(".txt").read_text().splitlines()) == 4
    assert succeed("report", str(tmp_path), "--output", str(tmp_path / "report"))[-1].endswith("index.html")
    table = (tmp_path / "report/README.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| micro")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[2:5] == [f"{weights:,}", "3", "4 x 1"] and float(cells[5]) == pytest.approx(last["fid"][0], rel=0.01)
    before = (folder / names[1]).read_text()
    (folder / names[1]).unlink()
    (folder / names[2]).unlink()
    succeed("evaluate", str(suite), "--runs", runs)
    again = json.loads((folder / names[1]).read_text())
    assert {**again, "seconds_per_training_step": 0, "seconds_per_picture": 0} == {
        **json.loads(before),
        "seconds_per_training_step": 0,
        "seconds_per_picture": 0,
    }


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("table1", ("self-cascade-quality", "tuned-micro")),
        pytest.param("table1", (), marks=pytest.mark.slow),
        pytest.param("ratios", (), marks=pytest.mark.slow),
    ],
)
def test_the_committed_suites_run_in_miniature_and_their_report_has_every_method(
    name: str, rows: tuple[str, ...], tmp_path: Path
) -> None:
    """Whole suites take minutes; one row that only enlarges, one of the cascade and one that trains take seconds."""
    suite, output = SUITE.parent / name, ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    few = ["--pictures", "2", "--steps", "2", "--real-pictures", "8"]
    succeed("evaluate", str(suite), *rows, "--seed", "0", *few, *output)
    succeed("report", str(tmp_path), "--output", str(tmp_path / "report"))
    table = (tmp_path / "report/README.md").read_text()
    found = {line.split("|")[1].split(",")[0].strip() for line in table.splitlines() if line.startswith("| ")}
    assert {*rows} <= found if rows else {path.stem for path in suite.glob("*.json")} <= found


@pytest.mark.parametrize("name", ["micro", "full", "lora-r4", "lora-r32", "full-ft"])
def test_the_committed_experiments_can_be_read(name: str) -> None:
    experiment = read_experiment(SUITE, name)
    assert experiment.shared_training["train_batch_size"] == 8
    assert all(experiment.sampling(sampling).scale == 2 for sampling in experiment.samplings)


@pytest.mark.parametrize("name", names_of(SUITE.parent / "levers"))
def test_the_committed_levers_name_one_setting_each_for_stages_that_exist(name: str) -> None:
    experiment = read_experiment(SUITE.parent / "levers", name)
    for sampling in map(experiment.sampling, experiment.samplings):
        stages = {2: 1, 4: 2}[int(sampling.scales[0])]
        assert sampling.upsampling in ("rgb", "latent-bilinear") and sampling.of_base["num_inference_steps"] == 25
        assert not isinstance(sampling.pivot_step, list) or len(sampling.pivot_step) == stages


def test_bad_suites_are_named(tmp_path: Path) -> None:
    assert "holds no experiment" in run("evaluate", str(tmp_path)).stderr
    (tmp_path / "one.json").write_text('{"samplings": {}, "at_stepz": [1]}')
    assert "at_stepz" in run("evaluate", str(tmp_path)).stderr
    (tmp_path / "one.json").write_text('{"samplings": {"direct": {"directly": true}}}')
    assert "directly" in run("evaluate", str(tmp_path)).stderr
    assert "must be one of one" in run("evaluate", str(tmp_path), "two").stderr


def test_a_patch_detector_refuses_what_is_no_patch() -> None:
    detector = PatchDetector({"kind": 3})
    assert detector(torch.rand(2, 3, 40, 24))["kind"].shape == (2, 3)
    with pytest.raises(ValueError, match="at least 16"):
        detector.features(torch.rand(1, 3, 8, 8))
