"""Evaluation on the user's own data and model, and its sampling in parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_score import tiny_clip_score
from command_line import run, succeed
from selfcascade.cascade import Size
from selfcascade.data import DataError
from selfcascade.data.scenes import caption, render, sample_scene
from selfcascade.evaluation import Sampling
from selfcascade.evaluation.data_benchmark import DataBenchmark, open_detector


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve scenes of 140 pixels with captions, one of 100, and a detector beside them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(13):
        side = 100 if number == 12 else 140
        pixels = (render(sample_scene(number), side, side) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption(sample_scene(number), number))
    clip = tiny_clip_score()
    clip.model.text_projection.weight.data.neg_()  # random weights: their cosines happen to be negative
    clip.model.save_pretrained(tmp_path / "clip")
    clip.tokenizer.save_pretrained(tmp_path / "clip")
    return folder


def suite(tmp_path: Path, **settings: Any) -> Path:
    folder = tmp_path / "experiments/own"
    folder.mkdir(parents=True)
    (folder.parent / "defaults.json").write_text('{"shared": {"num_inference_steps": 2, "guidance_scale": 3.0}}')
    samplings = {"base": {"method": "lanczos"}, "cascade": {"pivot_step": 600}}
    (folder / "free.json").write_text(json.dumps({"samplings": samplings, **settings}))
    return folder


def test_a_suite_runs_on_other_data_and_goes_on_where_it_was_cut(data: Path, tmp_path: Path, quick_model: str) -> None:
    folder = suite(tmp_path, model=quick_model)
    own = ["--data", str(data), "--detector", f"clip:{tmp_path / 'clip'}", "--pictures", "3", "--real-pictures", "8"]
    own += ["--output", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--steps", "3"]
    succeed("evaluate", str(folder), *own)
    assert not (folder / "results").exists()
    paths = {name: tmp_path / f"out/own/results/free/seed-0/{name}-step000000-n3.json" for name in ("base", "cascade")}
    base, cascade = (json.loads(path.read_text()) for path in paths.values())
    assert "composition" not in base and 0 < base["clip_score"] <= 100 and base["clip_score"] != cascade["clip_score"]
    assert cascade["sampling"] | {"height": 128, "width": 128, "num_inference_steps": 3} == cascade["sampling"]
    assert base["fid"][0] != base["patch_fid"][0] > 0 and base["detail"][0] < 0.5
    words = paths["base"].with_name("base-step000000.txt").read_text().splitlines()
    assert len(words) == 3 and set(words) <= {path.read_text() for path in data.glob("*.txt")}
    first = paths["cascade"].read_text()
    paths["cascade"].unlink()
    succeed("evaluate", str(folder), *own)
    again = json.loads(paths["cascade"].read_text())
    assert {**again, "seconds_per_picture": 0} == {**json.loads(first), "seconds_per_picture": 0}
    assert not list((tmp_path / "runs").glob("pictures-*"))
    assert succeed("report", str(tmp_path / "out"), "--output", str(tmp_path / "report"))


def test_what_does_not_go_together_is_named(data: Path, tmp_path: Path) -> None:
    folder, clip = suite(tmp_path), f"clip:{tmp_path / 'clip'}"
    runs = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    assert "output must be given" in run("evaluate", str(folder), "--data", str(data)).stderr
    wanted = "needs a detector to be measured by: give detector, inception:FILE.safetensors or clip:FOLDER_OR_HUB_ID"
    assert f"data {str(data)!r} {wanted}" in run("evaluate", str(folder), "--data", str(data), *runs).stderr
    assert "is for data of your own" in run("evaluate", str(folder), "--detector", clip, *runs).stderr
    many = ["--data", str(data), "--detector", clip, "--pictures", "13", *runs]
    assert "has fewer than 13 usable samples" in run("evaluate", str(folder), *many).stderr
    for name in ("inception", "clip:", "dino:x", f"clip:{tmp_path / 'none'}"):
        with pytest.raises(ValueError, match="detector"):
            open_detector(name)
    with pytest.raises(ValueError, match=r"scale must be one or two numbers from 1, not \[2, 0.5\]"):
        Sampling(scale=[2, 0.5])  # type: ignore[arg-type]


def test_sizes_follow_the_model_and_the_scale_of_each_side(bundled_pipe: Any) -> None:
    pipe = bundled_pipe
    assert Sampling(scale=2).sized(pipe).size == (128, 128)
    wide = Sampling(scale=(2**0.5, 2 * 2**0.5)).sized(pipe)
    assert wide.size == (88, 184)
    assert Sampling(height=64, width=96, scale=9).sized(pipe).size == (64, 96)


def test_inception_reads_safetensors_and_gives_the_published_networks_features(tmp_path: Path) -> None:
    network = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    bare = network.FeatureExtractorInceptionV3.__new__(network.FeatureExtractorInceptionV3)
    state: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict_from_url", lambda *a, **k: state)
        patch.setattr(network.FeatureExtractorInceptionV3, "load_state_dict", lambda self, given: None)
        bare = network.FeatureExtractorInceptionV3("one", ["2048"])
    save_file({name: value.contiguous() for name, value in bare.state_dict().items()}, tmp_path / "weights.safetensors")
    pictures = torch.rand(2, 3, 40, 60)
    expected = bare(pictures.mul(255).round().to(torch.uint8))[0]
    found = open_detector(f"inception:{tmp_path / 'weights.safetensors'}").features(pictures)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="cannot read"):
        open_detector(f"inception:{tmp_path / 'none.safetensors'}")


def test_prompts_references_and_base_samples_are_apart_where_there_is_a_set(tmp_path: Path) -> None:
    for number in range(60):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    tiny_clip_score().model.save_pretrained(tmp_path / "clip")
    tiny_clip_score().tokenizer.save_pretrained(tmp_path / "clip")
    side = Size(32, 32)
    benchmark = DataBenchmark(str(tmp_path), side, f"clip:{tmp_path / 'clip'}", split="test")
    prompts, base = benchmark.prompts(20, 0), benchmark.base_prompts(15)
    assert base is not None and not {*prompts.prompts} & {*base.prompts}

    def numbers(pixels: torch.Tensor) -> list[int]:
        return (pixels[:, 0, 0, 0] * 255).round().int().tolist()

    real = [number for part in benchmark.real(18, side) for number in numbers(part)]
    assert len(real) == len(set(real)) == 18 and not {f"number {number}" for number in real} & {*prompts.prompts}
    parts = [numbers(benchmark.true_samples(prompts, part, side)) for part in (range(7), range(7, 20), range(3, 5))]
    assert [f"number {number}" for part in parts[:2] for number in part] == [*prompts.prompts]
    assert parts[2] == parts[0][3:5]
    with pytest.raises(DataError, match=r"too few usable samples outside the test set; [0-9]+ of 50 are missing"):
        list(benchmark.real(50, side))


def test_true_samples_in_groups_read_each_picture_once(data: Path, tmp_path: Path) -> None:
    benchmark, read = DataBenchmark(str(data), Size(128, 128), f"clip:{tmp_path / 'clip'}"), list[int]()
    prompts, samples = benchmark.prompts(12, 0), benchmark._samples

    def counted(*given: Any, **more: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for index, one in enumerate(samples(*given, **more)):
            read.append(index)
            yield one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_samples", counted)
        for start in range(0, 12, 3):
            benchmark.true_samples(prompts, range(start, start + 3), Size(128, 128))
    assert read == list(range(12))
