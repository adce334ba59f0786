"""Named sets, rows of floors, records of single pictures, and results that the present code would not make."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from cascade_runs import QUICK
from command_line import run, succeed
from selfcascade.cascade import Size
from selfcascade.data.scenes import render, sample_scene
from selfcascade.evaluation import SPLITS, open_benchmark, revisions
from selfcascade.evaluation.per_picture import PerPicture, read_record, record_of, write_record
from selfcascade.evaluation.prompts import SEED_STEP
from selfcascade.evaluation.provenance import noise_levels, protocol_of, unlike, weight_files
from selfcascade.evaluation.splits import NUMBERS, split_of_caption
from selfcascade.evaluation.true_pivots import TruePivots
from selfcascade.experiments import runs_of
from selfcascade.experiments.floors import floor_settings

SIDE = Size(64, 64)
SETTINGS: dict[str, Any] = {
    "samplings": {"2x": {"method": "self-cascade", "scale": 1.25, "preset": "rgb"}},
    "shared": {"num_inference_steps": 2, "guidance_scale": 3.0},
    "samples": [3], "samples_at_last": [3], "real_pictures": 10, "base_pictures": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, quick_model: str) -> Path:
    """A suite of one cascade, its validation results made."""
    folder = tmp_path_factory.mktemp("protocol") / "suite"
    folder.mkdir()
    (folder / "rgb.json").write_text(json.dumps({**SETTINGS, "model": quick_model}))
    succeed("evaluate", str(folder), "--split", "validation", "--runs", str(folder.parent / "runs"))
    return folder


def result_of(suite: Path, name: str) -> Path:
    (path,) = (suite / "validation" / name / "seed-0").glob("*.json")
    return path


def test_no_seed_of_one_set_is_in_another() -> None:
    last = 50 * SEED_STEP  # seeds are below 50
    ranges = [range(first, first + last) for numbers in NUMBERS.values() for first in numbers]
    ranges.append(range(70_000_000, 70_000_000 + last))  # real samples
    ordered = sorted(ranges, key=lambda one: one.start)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(ordered))
    asked = {split: open_benchmark("scenes", "scenes", SIDE, split=split).prompts(40, 1) for split in SPLITS}
    assert len({prompts.first_seed for prompts in asked.values()}) == len(SPLITS)
    number = NUMBERS["validation"].prompt + SEED_STEP
    assert dict(asked["validation"].truths[0]) == dict(sample_scene(number, held_out=True).truth)


def test_collages_have_the_combinations_of_their_set() -> None:
    asked = {
        split: set(open_benchmark("collages", "scenes", SIDE, split=split).prompts(60, 0).prompts) for split in SPLITS
    }
    assert not asked["test"] & asked["validation"] and not asked["tuning"] & asked["validation"]
    with pytest.raises(ValueError, match="of the split 'tuning', and split is 'test'; leave one of them out"):
        open_benchmark("collages:split=tuning", "scenes", SIDE, split="test")


def test_ones_own_captions_fall_into_sets_by_their_words() -> None:
    found = [split_of_caption(f"picture number {number}") for number in range(400)]
    counts = {split: found.count(split) / 400 for split in SPLITS}
    assert counts == pytest.approx({"tuning": 0.25, "validation": 0.25, "test": 0.5}, abs=0.08)
    assert split_of_caption(" A Dog ") == split_of_caption("a dog")


def test_real_samples_of_prompts_are_renders_of_their_own_scenes() -> None:
    benchmark = open_benchmark("scenes", "scenes", SIDE, split="test")
    prompts = benchmark.prompts(3, 0)
    scene = sample_scene(prompts.first_seed + 2, held_out=True)
    true = benchmark.true_samples(prompts, range(1, 3), Size(32, 48))
    assert torch.equal(true[1], torch.from_numpy(render(scene, 32, 48)).permute(2, 0, 1))


def test_every_suite_has_real_samples_and_enlarged_ones_of_the_same_captions(suite: Path) -> None:
    results = {name: json.loads(result_of(suite, name).read_text()) for name in ("rgb", "real", "lanczos")}
    assert [one["sampling"]["method"] for one in results.values()] == ["self-cascade", "real", "lanczos"]
    assert {(one["pictures"], one["seed"], one["sampling"]["height"]) for one in results.values()} == {(3, 0, 80)}
    assert results["real"]["composition"]["all"] == 1
    assert results["real"]["patch_kid"][0] < results["lanczos"]["patch_kid"][0]
    records = {name: read_record(record_of(result_of(suite, name))) for name in results}
    assert {record.first for record in records.values()} == {NUMBERS["validation"].prompt}
    assert len({json.dumps(record.real) for record in records.values()}) == 1


def test_floors_are_of_all_sizes_seeds_and_counts_of_a_suite() -> None:
    own = [
        {"samplings": {"wide": {"scale": [1, 2]}, "tall": {"scale": [2, 1]}}, "seeds": [0, 2], "samples": [20]},
        {"samplings": {"w": {"scale": [1, 2], "preset": "rgb"}}, "training": {}, "seeds": [5], "samples_at_last": [9]},
    ]
    found = floor_settings("real", own)
    assert found["samplings"] == {
        "wide": {"method": "real", "upsampling": None, "scale": [1, 2]},
        "tall": {"method": "real", "upsampling": None, "scale": [2, 1]},
    }
    assert (found["seeds"], found["samples_at_last"], found["at_steps"]) == ([0, 2], [9, 20], [0])


def test_a_set_of_captions_may_have_its_own_number_of_pictures(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "rgb.json").write_text(json.dumps({**SETTINGS, "samples_of": {"validation": 2}}))
    for split, count in (("validation", 2), ("test", 3)):
        runs = list(runs_of(suite, [], tmp_path, {"split": split}))
        assert [run.name for run in runs] == ["rgb", "real", "lanczos"]
        assert [set(map(tuple, run.missing().values())) for run in runs] == [{(count,)}] * 3
    (suite / "slow.json").write_text(json.dumps({**SETTINGS, "samples_of": {"validation": 0, "test": 1}}))
    for split, counts in (("validation", [2, 0, 2, 2]), ("test", [3, 1, 3, 3])):  # the floors have as many as any row
        left = [run.missing() for run in runs_of(suite, [], tmp_path, {"split": split})]
        assert [sum(map(sum, missing.values())) for missing in left] == counts
    (suite / "slow.json").unlink()
    before = run("evaluate", str(suite), "--split", "test", "--runs", str(tmp_path), "--dry-run")
    assert "split test comes after validation" in before.stderr
    (suite / "rgb.json").write_text(json.dumps({**SETTINGS, "samples_of": {"validation": 0}}))
    assert all(not run.missing() for run in runs_of(suite, [], tmp_path, {"split": "validation"}))
    told = run("evaluate", str(suite), "--split", "test", "--runs", str(tmp_path), "--dry-run")
    assert told.exit_code == 0 and told.stderr.count("1 results missing") == 3


def test_a_record_has_what_the_figures_are_of(suite: Path) -> None:
    path = result_of(suite, "rgb")
    result, record = json.loads(path.read_text()), read_record(record_of(path))
    assert record.all_right.mean() == pytest.approx(result["composition"]["all"], abs=1e-4)
    for name, attribute in enumerate(record.attributes):
        own = record.known[:, name]
        if own.any():
            share = record.right[own, name].mean()
            assert share == pytest.approx(result["composition"][attribute], abs=1e-4)
    assert record.values["seconds"].mean() + result["seconds_per_base_sample"] == pytest.approx(
        result["seconds_per_picture"], rel=1e-3
    )
    assert record.values["repetition"].mean() == pytest.approx(result["repetition"]["mean"], rel=1e-3)
    lanczos = json.loads(result_of(suite, "lanczos").read_text())
    other = read_record(record_of(result_of(suite, "lanczos")))
    for name, points in record.points.items():
        assert points.shape[1] <= 32 and points.dtype == np.float16

        def within(points: np.ndarray) -> float:
            gram = points.astype(float) @ points.astype(float).T
            return (gram.sum() - np.trace(gram)) / 6

        difference = result[name][0] - lanczos[name][0]
        assert within(points) - within(other.points[name]) == pytest.approx(difference, rel=0.01)


def test_a_result_made_again_is_the_same(suite: Path) -> None:
    path = result_of(suite, "rgb")
    before, held = json.loads(path.read_text()), load_file(record_of(path))
    path.unlink()
    succeed("evaluate", str(suite), "rgb", "--split", "validation", "--runs", str(suite.parent / "runs"))
    after, again = json.loads(path.read_text()), load_file(record_of(path))
    assert all(np.array_equal(held[name], again[name]) for name in held if name != "values.seconds")
    assert {**after, "seconds_per_picture": 0} == {**before, "seconds_per_picture": 0}


def test_a_result_says_how_it_was_made(suite: Path, quick_model: str) -> None:
    made = json.loads(result_of(suite, "rgb").read_text())["made_by"]
    assert (made["protocol"], made["method"], made["revision"]) == (revisions.PROTOCOL, "self-cascade", 1)
    assert made["dtype"] == "float32" and made["preset"] == {"name": "rgb", "revision": 1}
    assert made["threads"] == torch.get_num_threads() and made["versions"]["torch"] == torch.__version__
    assert made["weights"] == weight_files(quick_model, None, None)
    assert any("unet" in place for place in made["weights"])
    (level,) = made["K"]
    abar = float(QUICK.shared().scheduler.alphas_cumprod[level["timestep"]])
    assert level["log_snr_of_a_native_pixel"] == pytest.approx(np.log(1.25**2 * abar / (1 - abar)), abs=1e-3)


def test_the_noise_level_of_a_native_pixel_counts_its_latent_pixels() -> None:
    scheduler = QUICK.shared().scheduler
    native, four = noise_levels([700, 700], scheduler, [1, 4])
    assert four["log_snr_of_a_native_pixel"] - native["log_snr_of_a_native_pixel"] == pytest.approx(np.log(4), abs=1e-3)


def test_results_that_would_be_made_otherwise_are_refused(
    suite: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ("evaluate", str(suite), "rgb", "--split", "validation", "--runs", str(tmp_path), "--dry-run")
    assert "rgb seed 0: 0 results missing" in run(*asked).stderr
    monkeypatch.setattr(revisions, "REVISIONS", {"self-cascade": 2})
    assert "was made with revision 1 of self-cascade, not 2; delete it" in run(*asked).stderr
    monkeypatch.undo()
    result = json.loads(result_of(suite, "rgb").read_text())
    weights = result["made_by"]["weights"]
    assert unlike(result, weights) is None
    place = next(iter(weights))
    assert unlike(result, {**weights, place: "0" * 16}) == f"other weights, {place}"
    assert protocol_of(result) == f"protocol {revisions.PROTOCOL}"
    made = result["made_by"]
    earlier = {**{name: value for name, value in made.items() if name != "method"}, "preset": 1}  # of the tuned version
    result |= {"made_by": earlier, "settings": {**result["settings"], "upsamplers": "micro"}}
    monkeypatch.setattr(revisions, "REVISIONS", {"self-cascade-tuned": 2})
    assert unlike(result, {}) == "revision 1 of self-cascade-tuned, not 2"
    monkeypatch.setattr(revisions, "REVISIONS", {"self-cascade": 2})
    assert unlike(result, {}) == "revision 1 of self-cascade-tuned, not 2"
    monkeypatch.undo()
    result["made_by"] = {**made, "method": "self-cascade-tuned", "preset": {"name": "quality", "revision": 1}}
    assert unlike(result, {}) == "an earlier preset 'quality'"  # which the upsamplers brought
    del result["made_by"]  # as results were before they said so
    assert unlike(result, {}) is None and protocol_of(result) == "protocol 1"
    result["sampling"]["preset"] = "quality"  # whose values have changed since then
    assert unlike(result, {}) == "an earlier preset 'quality'"


def test_test_captions_come_last_and_whole(suite: Path, tmp_path: Path) -> None:
    runs = ("--runs", str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (other / "rgb.json").write_text((suite / "rgb.json").read_text())
    told = run("evaluate", str(other), "--split", "test", *runs, "--dry-run").stderr
    assert "split test comes after validation, on which all is chosen: rgb seed 0" in told
    told = run("evaluate", str(suite), "rgb", "--split", "test", *runs, "--dry-run").stderr
    assert "split test is for whole suites as they are; leave out names, --seed and all other settings" in told
    assert "real seed 0: 1 results missing" in run("evaluate", str(suite), "--split", "test", *runs, "--dry-run").stderr
    assert "split" in run("evaluate", str(suite), "--split", "train", *runs, "--dry-run").stderr


def test_records_are_read_as_written_and_damaged_ones_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    right, known = rng.random((5, 3)) < 0.5, rng.random((5, 3)) < 0.8
    points = {"kid": rng.random((5, 4)).astype(np.float16)}
    record = PerPicture(7, ("a", "b", "c"), right, known, points, {"kid": "real"}, {})
    write_record(tmp_path / "one.safetensors", record)
    found = read_record(tmp_path / "one.safetensors")
    assert np.array_equal(found.right, right) and np.array_equal(found.known, known)
    assert np.array_equal(found.points["kid"], points["kid"]) and (found.first, found.real) == (7, {"kid": "real"})
    assert found.all_right.tolist() == [
        all(r or not k for r, k in zip(*own, strict=True)) for own in zip(right, known, strict=True)
    ]
    assert len(found.head(2)) == 2 and found.numbers == range(7, 12)
    (tmp_path / "one.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"one\.safetensors cannot be read; make its result again"):
        read_record(tmp_path / "one.safetensors")


def test_true_pivots_are_the_small_pictures_encoded() -> None:
    pipe: Any = QUICK.shared()
    benchmark = open_benchmark("scenes", "scenes", SIDE, split="validation")
    prompts = benchmark.prompts(3, 0)
    pivots = TruePivots(pipe, prompts, SIDE, lambda indices, size: benchmark.true_samples(prompts, indices, size))
    both = pivots.latents(range(3))
    assert both.shape[0] == 3 and torch.allclose(pivots.latents(range(2, 3)), both[2:], atol=1e-5)
    seeds = [generator.initial_seed() for generator in pivots.generators(range(1, 3))]
    assert seeds == [prompts.first_seed + 1, prompts.first_seed + 2]


def test_against_truth_real_samples_are_perfect_and_blur_is_seen_where_it_is(tmp_path: Path, quick_model: str) -> None:
    suite = tmp_path / "truth"
    suite.mkdir()
    settings = {**SETTINGS, "samples": [2], "samples_at_last": [2], "pivots": "true", "model": quick_model}
    settings["samplings"] = {"2x": {"method": "lanczos", "scale": 1.25}}
    (suite / "lanczos.json").write_text(json.dumps(settings))
    succeed("evaluate", str(suite), "--split", "validation", "--runs", str(tmp_path / "runs"))
    real, made = (json.loads(result_of(suite, name).read_text()) for name in ("real", "lanczos"))
    assert real["psnr"][0] > 55 and real["ssim"][0] > 0.999 and real["detector_distance"][0] < 1e-4
    assert made["psnr"][0] < 30 and made["detector_distance"][0] > real["detector_distance"][0]
    assert "fid_b" not in made and len(made["psnr"]) == 3
    values = read_record(record_of(result_of(suite, "lanczos"))).values
    assert values["psnr"].mean() == pytest.approx(made["psnr"][0], rel=1e-3)
    assert {"octave_error_1", "octave_error_2", "octave_error_3"} < set(values)
