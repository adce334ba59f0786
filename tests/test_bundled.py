"""The models that ship: small, safe to load, and doing what they are for."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

import selfcascade
from selfcascade import METHODS
from selfcascade.cascade import Size
from selfcascade.data.scenes import BACKGROUNDS, caption, render, sample_scene
from selfcascade.evaluation import BaseSamples, Sampling, sample
from selfcascade.evaluation.scenes_benchmark import SceneEvaluator, scene_prompts
from selfcascade.metrics.composition import CompositionReader, accuracy
from selfcascade.metrics.sharpness import octave_energies
from selfcascade.metrics.video_detector import VideoDetector
from selfcascade.models import bundled_upsamplers, load_super_resolver, load_upsamplers

NATIVE = {"height": 64, "width": 64, "num_frames": 16}
FOLDER = Path(selfcascade.__path__[0]) / "bundled"


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


@pytest.fixture(scope="module")
def reader() -> CompositionReader:
    return CompositionReader.from_pretrained(FOLDER / "reader", local_files_only=True).float().eval()


@pytest.fixture(scope="module")
def pipe(bundled_pipe: Any) -> Any:
    return bundled_pipe.to("cpu")


def test_they_are_small_and_hold_no_code() -> None:
    assert megabytes(FOLDER / "image") <= 24
    assert megabytes(FOLDER / "reader") + megabytes(FOLDER / "detector") <= 3
    assert megabytes(FOLDER / "video_detector") <= 1.5
    assert megabytes(FOLDER / "upsamplers") <= 4
    assert megabytes(FOLDER / "video") <= 10e6 / 2**20
    kinds = {path.suffix for path in FOLDER.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


@pytest.mark.parametrize("side", [64, 128, 256])
def test_the_reader_reads_held_out_renders(reader: CompositionReader, side: int) -> None:
    scenes = [sample_scene(60_000_000 + seed, held_out=True) for seed in range(24)]
    pictures = torch.from_numpy(np.stack([render(scene, side, side) for scene in scenes])).permute(0, 3, 1, 2)
    score = accuracy(reader.read(pictures), [scene.truth for scene in scenes])
    assert min(score.values()) >= 0.97


def test_the_base_model_paints_the_background_it_is_asked_for(pipe: Any, reader: CompositionReader) -> None:
    scenes = {scene.background: scene for scene in (sample_scene(seed, second=False) for seed in range(60))}
    prompts = [caption(scenes[name], 1) for name in BACKGROUNDS]
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    out = pipe(prompts, num_inference_steps=12, guidance_scale=3.0, generator=generators, output_type="pt")
    assert out.images.shape == (6, 3, 64, 64)
    assert [reading["background"] for reading in reader.read(out.images)] == list(BACKGROUNDS)


def test_the_cascade_keeps_what_its_base_sample_shows_and_direct_inference_does_not(
    pipe: Any, reader: CompositionReader
) -> None:
    prompt = "a large orange mushroom on the right in the snow in winter"
    settings: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "pt"}
    base = reader.read(pipe(prompt, generator=torch.Generator().manual_seed(0), **settings).images)[0]
    assert (base["count"], base["first_kind"], base["place"]) == ("1", "mushroom", "right")
    direct, cascade = (
        METHODS[name](pipe, prompt, height=128, width=128, generator=torch.Generator().manual_seed(0), **settings)
        for name in ("direct", "self-cascade")
    )
    assert reader.read(cascade.images)[0] == base
    assert reader.read(direct.images)[0]["count"] != "1"


@pytest.mark.slow
def test_the_cascade_keeps_the_background_and_the_object_that_direct_inference_loses(
    pipe: Any, reader: CompositionReader
) -> None:
    prompts = ["a large orange mushroom on the right in the snow in winter"] * 2
    settings: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 12, "guidance_scale": 3.0}
    counts = {}
    for method in ("direct", "self-cascade"):
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        out = selfcascade.METHODS[method](pipe, prompts, **settings, generator=generators, output_type="pt")
        counts[method] = [reading["count"] for reading in reader.read(out.images)]
    assert counts["self-cascade"].count("1") > counts["direct"].count("1")


@pytest.mark.parametrize("name", bundled_upsamplers())
def test_the_upsamplers_are_for_the_base_model_and_say_where_their_stages_start(pipe: Any, name: str) -> None:
    upsamplers = load_upsamplers(name)
    assert upsamplers.config["preset"] == name
    assert "_name_or_path" not in (FOLDER / "upsamplers" / name / "config.json").read_text()
    (_, above) = selfcascade.SelfCascade(pipe, upsamplers).plan(128, 128)
    assert (above.pivot_step, above.num_inference_steps) == (850, 10)


MOVING = {
    "right": "a large red boat in the middle sails to the right over the sea",
    "left": "a large red boat in the middle sails to the left over the sea",
    "up": "a large blue balloon in the middle rises over the sea",
    "down": "a large blue balloon in the middle sinks over the sea",
}


def moving_clips(words: list[str], seeds: tuple[int, ...], steps: int) -> list[str]:
    """What the video detector reads of the bundled model's clips, and how much their pixels change a frame."""
    pipe: Any = selfcascade.load_bundled("cpu", video=True)
    pipe.set_progress_bar_config(disable=True)
    detector = VideoDetector.from_pretrained(FOLDER / "video_detector", local_files_only=True).eval()
    settings: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": 3.0, "output_type": "pt", **NATIVE}
    read, moved = [], []
    for word, seed in itertools.product(words, seeds):
        clip = pipe(MOVING[word], generator=torch.Generator().manual_seed(seed), **settings).frames[:1].clamp(0, 1)
        assert clip.shape == (1, 16, 3, 64, 64)
        read.append(detector.read(clip)[0]["first_motion"])
        moved.append((clip[:, 1:] - clip[:, :-1]).abs().mean().item())
    assert min(moved) > 0.003 and max(moved) < 0.06  # neither a still picture nor 16 pictures
    return read


def test_the_video_model_moves_what_it_shows() -> None:
    assert moving_clips(["right"], (0,), steps=6) == ["right"]


@pytest.mark.slow
def test_the_video_model_moves_what_it_shows_as_it_is_told() -> None:
    read = moving_clips([*MOVING], (0, 1), steps=12)
    assert sum(map(str.__eq__, read, [word for word in MOVING for _ in (0, 1)])) >= 5


def test_the_video_model_has_positions_for_the_frames_it_was_trained_on_alone() -> None:
    pipe = selfcascade.load_bundled("cpu", video=True)
    places = {tuple(table.shape[:2]) for name, table in pipe.unet.named_buffers() if name.endswith("pos_embed.pe")}
    assert places == {(1, 16)} and pipe.unet.config.motion_max_seq_length == 16
    with pytest.raises(ValueError, match="num_frames must be at most 16, where the motion adapter's positions end"):
        selfcascade.SelfCascade(pipe)("a large red boat", num_frames=17)


def test_the_super_resolver_adds_the_detail_that_lanczos_windows_do_not(pipe: Any) -> None:
    prompt = ["a large red house on the left at night", "a small blue fish under the sea"]
    settings: dict[str, Any] = {"height": 256, "width": 256, "num_inference_steps": 8, "guidance_scale": 3.0}
    base, pictures = None, {}
    for name, own in (("lanczos", {}), ("sr", {"weights": "bundled"})):
        generator = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        out = METHODS[name](pipe, prompt, **settings, **own, generator=generator, output_type="pt")
        base = out.stages[0].latents if base is None else base
        assert torch.equal(out.stages[0].latents, base)
        pictures[name] = out.images.float()
    small = {name: interpolate(one, size=(64, 64), mode="area") for name, one in pictures.items()}
    assert (small["sr"] - small["lanczos"]).abs().mean() < 0.05  # the same picture
    energy = {name: octave_energies(one).mean(0)[0] for name, one in pictures.items()}
    assert energy["sr"] > 3 * energy["lanczos"]


@pytest.mark.slow
@pytest.mark.parametrize("name", bundled_upsamplers())
def test_the_upsamplers_bring_the_patches_nearer_to_real_ones(pipe: Any, name: str, tmp_path: Path) -> None:
    prompts, sampling = scene_prompts(40), Sampling(pivot_step=700, upsampling="rgb")
    pivots, evaluator = (
        BaseSamples(pipe, prompts, Size(64, 64), sampling, tmp_path),
        SceneEvaluator(128, 128, tmp_path, real_count=200, draws=10),
    )
    free, tuned = (
        evaluator.evaluate(sample(pipe, prompts, sampling, pivots, upsamplers), prompts)
        for upsamplers in (None, load_upsamplers(name))
    )
    assert tuned["patch_kid"][0] < 0.8 * free["patch_kid"][0]
    assert tuned["composition"]["all"] > free["composition"]["all"] - 0.1


@pytest.mark.slow
def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[1] / "README.md"
    code = re.search(r"```python\n(import torch.*?)```", readme.read_text(), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(code[1], "README.md", "exec"), {})
    assert (tmp_path / "house.png").exists()


def test_the_super_resolver_shares_what_the_image_model_has(pipe: Any) -> None:
    resolver = load_super_resolver("bundled", "cpu")
    encoder, own = pipe.text_encoder.state_dict(), resolver.text_encoder.state_dict()
    assert all(torch.equal(encoder[name], own[name]) for name in encoder)
    assert resolver.config.max_noise_level == 350 and resolver.vae.config.scaling_factor == 0.08333
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted, got = (vae.encode(images).latent_dist for vae in (pipe.vae, resolver.vae))
        factor = pipe.vae.config.scaling_factor
        assert torch.allclose(
            got.mean * 0.08333, wanted.mean * factor, atol=0.01
        )  # of values about 1, in half precision
        assert torch.allclose(got.std * 0.08333, wanted.std * factor, atol=0.01)
        decoded = resolver.vae.decode(wanted.mean * factor / 0.08333).sample
    assert torch.allclose(decoded, pipe.vae.decode(wanted.mean).sample, atol=0.01)


def test_a_dtype_that_there_is_not_is_refused_for_the_super_resolver() -> None:
    with pytest.raises(ValueError, match="dtype must be one of"):
        load_super_resolver("bundled", "cpu", "int8")
