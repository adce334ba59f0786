"""Training on clips: Algorithm 1 frame by frame, on AnimateDiff's and ModelScope's U-Nets."""

# pyright: reportPrivateImportUsage=false

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from cascade_runs import seeded
from clip_files import write_clip
from command_line import refuse, run
from selfcascade import METHODS, FeatureUpsamplers, SelfCascade
from selfcascade.data import Stream, open_source
from selfcascade.media.frame_files import probe_frames
from selfcascade.training import Trainer
from selfcascade.training.conditions import encode_captions, unet_arguments
from selfcascade.training.launch import ValidationPictures
from selfcascade.training.objective import draw
from selfcascade.training.samples import encode_with_pivot
from selfcascade.upsamplers.levels import FrameKernels
from selfcascade.upsamplers.skip_features import adding_skip_features
from tiny import TINY
from tiny.plugins import tiny_video_xl
from training_runs import SIZE, equal, settings, trained, weights

FRAMES = 3
UNETS = pytest.mark.parametrize("name", ["animatediff", "text-to-video-synthesis"])


def short(folder: Path, name: str = "animatediff", **changes: Any) -> Trainer:
    given = {"frames": FRAMES, "train_batch_size": 1, "max_train_steps": 2, **changes}
    return trained(folder, TINY[name].build(), **given)


def sampled(pipe: Any, upsamplers: FeatureUpsamplers | None = None) -> Tensor:
    size: Any = {"height": 128, "width": 128, "num_frames": FRAMES, "num_inference_steps": 2, "output_type": "latent"}
    output: Any = SelfCascade(pipe, upsamplers)("a red house", generator=seeded(), preset="paper", **size)
    return output.stages[-1].latents


@UNETS
def test_the_loss_is_that_of_the_clip_s_frames_at_one_timestep(tmp_path: Path, name: str) -> None:
    pipe: Any = TINY[name].build()
    config = settings(tmp_path, frames=FRAMES, prompt_dropout=0)
    stream = Stream(open_source("moving-scenes", SIZE, clips=config.clips), (SIZE,))
    trainer = Trainer(pipe, config, stream)
    trainable: Any = trainer.trainable
    upsamplers = trainable.upsamplers
    with torch.no_grad():
        for weight in upsamplers.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=seeded()))
    batch = next(stream.batches(2))
    assert batch.pixels.shape == (2, FRAMES, 3, *SIZE) and len(set(batch.captions)) == 2

    noise, timestep, _ = draw([0, 1], config.seed, (4, FRAMES, 8, 8), 700, 1000)
    losses = []
    with torch.no_grad():
        for clip, words, eps, t in zip(batch.pixels, batch.captions, noise, timestep, strict=True):
            small = clip.reshape(FRAMES, 3, 32, 2, 32, 2).mean((3, 5))
            scale = pipe.vae.config.scaling_factor
            z_0, pivot = (
                torch.stack([pipe.vae.encode(frame[None]).latent_dist.mode()[0] * scale for frame in x], 1)[None]
                for x in (clip, small)
            )
            abar = pipe.scheduler.alphas_cumprod[t]
            told = pipe.encode_prompt(words, "cpu", 1, False)[0]
            told = told.expand(FRAMES, -1, -1) if name == "animatediff" else told
            with adding_skip_features(pipe.unet, upsamplers, pivot):
                predicted = pipe.unet(abar.sqrt() * z_0 + (1 - abar).sqrt() * eps, t, told).sample[0]
            losses.append((predicted - eps).square().mean())
    assert trainer._loss(batch, 0).item() == pytest.approx(float(sum(losses)) / 2, rel=1e-4)
    assert not torch.equal(noise[:, :, 0], noise[:, :, 1])


@UNETS
def test_the_trained_upsamplers_alone_change_and_change_the_clip(tmp_path: Path, name: str) -> None:
    pipe: Any = TINY[name].build()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    plain = sampled(pipe)
    assert torch.equal(sampled(pipe, FeatureUpsamplers.from_unet(pipe.unet, upsampling="latent-bilinear")), plain)
    trained(tmp_path, pipe, frames=FRAMES, train_batch_size=1, max_train_steps=3, upsampling="latent-bilinear")
    assert equal(before, dict(pipe.unet.state_dict()))
    tuned = sampled(pipe, FeatureUpsamplers.from_pretrained(tmp_path))
    assert torch.isfinite(tuned).all() and not torch.allclose(tuned, plain, atol=1e-4)


RESUMED = {
    "upsamplers": ("animatediff", {"gradient_accumulation_steps": 2, "gradient_checkpointing": True}),
    "lora": ("animatediff", {"method": "lora"}),
    "full": ("text-to-video-synthesis", {"method": "full", "learning_rate": 1e-3}),  # which has dropout
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, case: str) -> None:
    name, options = RESUMED[case]
    whole = short(tmp_path / "whole", name, max_train_steps=3, **options)
    short(tmp_path / "cut", name, max_train_steps=3, stop_after=2, **options)
    again = short(tmp_path / "cut", name, max_train_steps=3, resume_from_checkpoint="latest", **options)
    assert again.step == 3 and equal(weights(again), weights(whole))


@UNETS
def test_cached_latents_and_pivot_features_give_the_same_weights(tmp_path: Path, name: str) -> None:
    given: dict[str, Any] = {"train_batch_size": 2, "max_train_steps": 1}
    cached = {**given, "cache_latents": str(tmp_path / "cache"), "cache_pivot_features": True}
    plain = short(tmp_path / "plain", name, **given)
    first, again = short(tmp_path / "first", name, **cached), short(tmp_path / "again", name, **cached)
    assert equal(weights(first), weights(plain)) and equal(weights(again), weights(plain))
    trainable: Any = again.trainable
    for cache in (again.cache, trainable.cache):
        assert cache is not None and (cache.hits, cache.misses) == (2, 0)


FINE_TUNED = [("animatediff", "full-ft"), ("animatediff", "lora"), ("text-to-video-synthesis", "full-ft")]


@pytest.mark.parametrize(("name", "method"), FINE_TUNED)
def test_fine_tuned_weights_are_loaded_as_a_method(tmp_path: Path, name: str, method: str) -> None:
    trainer = short(tmp_path, name, method="full" if method == "full-ft" else method)
    moving = [key for key in weights(trainer) if "motion" in key or "temp_" in key]
    assert moving and len(moving) < len(weights(trainer))
    pipe: Any = TINY[name].build()
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    size: Any = {"height": 64, "width": 64, "num_frames": FRAMES, "num_inference_steps": 2, "output_type": "latent"}

    def made(used: str, **given: Any) -> Tensor:
        return METHODS[used](pipe, "a red house", generator=seeded(), **size, **given).stages[-1].latents

    plain, tuned, again = made("direct"), made(method, weights=tmp_path), made("direct")
    assert torch.equal(again, plain) and not torch.allclose(tuned, plain, atol=1e-4)
    assert equal(before, dict(pipe.unet.state_dict()))
    if method == "full-ft":
        loaded = type(pipe.unet).from_pretrained(tmp_path, subfolder="unet")
        assert equal(dict(loaded.named_parameters()), weights(trainer))
        assert f"diffusers.{type(pipe.unet).__name__}.from_pretrained" in (tmp_path / "README.md").read_text()


@UNETS
def test_kernels_along_the_frames_change_nothing_untrained_and_are_trained_and_kept(tmp_path: Path, name: str) -> None:
    pipe: Any = TINY[name].build()
    parts = [FeatureUpsamplers.from_unet(pipe.unet, temporal_kernel=size) for size in (1, 3)]
    with torch.no_grad():
        for made in parts:
            for weight in made.phi.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=seeded()))
    plain, untrained = (sampled(pipe, made) for made in parts)
    assert torch.equal(untrained, plain)
    trainer = short(tmp_path, name, temporal_kernel=3, max_train_steps=4)
    kernels = {key: value for key, value in weights(trainer).items() if "over_frames" in key}
    assert len(kernels) == len(pipe.unet.up_blocks) and all(value.abs().sum() > 0 for value in kernels.values())
    assert equal(dict(FeatureUpsamplers.from_pretrained(tmp_path).named_parameters()), weights(trainer))  # type: ignore[arg-type]


def test_a_kernel_along_the_frames_is_a_convolution_of_each_position_and_channel() -> None:
    made = FrameKernels(1, 3)
    with torch.no_grad():
        made.kernels.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
    r = torch.randn(2 * 4, 3, 5, 6, generator=seeded())
    line = r.reshape(2, 4, -1).transpose(1, 2).reshape(-1, 1, 4)  # (B C H W, 1, F)
    padded = torch.nn.functional.pad(line, (1, 1), mode="replicate")
    expected = line + torch.nn.functional.conv1d(padded, made.kernels[:, None])
    expected = expected.reshape(2, -1, 4).transpose(1, 2).reshape(r.shape)
    assert torch.allclose(made([r], 4)[0], expected, atol=1e-6)


def test_the_command_trains_on_a_folder_of_clips_of_which_one_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfcascade.training.launch.VALIDATION_STEPS", 2)
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for number in range(3):
        path = write_clip(data / f"{number}.mp4", frames=14, size=(136, 144), fps=24)
        path.with_suffix(".txt").write_text(f"clip {number}")
    whole = (data / "2.mp4").read_bytes()
    (data / "2.mp4").write_bytes(whole[: len(whole) // 2])
    TINY["animatediff"].build().save_pretrained(tmp_path / "model", safe_serialization=True)
    options = {
        **{"model": tmp_path / "model", "train_data": data, "output_dir": out, "resolution": 128, "frames": 3},
        **{"stride": 2, "max_train_steps": 2, "train_batch_size": 2, "validation_steps": 2, "validation_prompt": "a"},
        **{"validation_data": data, "num_validation_pictures": 1, "max_skip_share": 1, "min_duration": 0.5},
    }
    result = run("train", *(word for name, value in options.items() for word in (f"--{name}", str(value))))
    assert result.exit_code == 0, result.output
    assert "2 clips of 3 frames a step" in result.stderr and "clip is damaged" in result.stderr
    with Image.open(out / "validation" / "000002-0.webp") as clip:
        assert (clip.size, getattr(clip, "n_frames", 1)) == ((128, 128), 3)
    assert probe_frames(out / "validation" / "000002-0.webp").fps == pytest.approx(12, rel=2e-3)  # every other of 24
    record = json.loads((out / "validation" / "000002-0.json").read_text())
    assert (record["prompt"], record["num_frames"], record["training_step"]) == ("a", 3, 2)
    assert record["fps"] == pytest.approx(12)
    figures = [json.loads(row) for row in (out / "curve.jsonl").read_text().splitlines()]
    assert {"validation_loss", "validation_clips"} < {key for row in figures for key in row}
    assert "at 128 x 128 pixels, 3 frames\n" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "rate"), [({"stride": 2}, 12.0), ({"fps": 6}, 6.0), ({"fps": 30}, None), ({"min_duration": 9}, None)]
)
def test_the_rate_is_that_of_the_first_clip_that_is_used(
    tmp_path: Path, options: dict[str, Any], rate: float | None
) -> None:
    for name, fps in (("damaged", 50), ("whole", 24)):
        write_clip(tmp_path / f"{name}.mp4", frames=14, size=(136, 144), fps=fps).with_suffix(".txt").write_text("a")
    (tmp_path / "damaged.mp4").write_bytes((tmp_path / "damaged.mp4").read_bytes()[:900])
    clips = settings(tmp_path, frames=3, **options).clips
    assert clips is not None
    for seed in range(3):  # each an order of its own
        assert clips.rate_in(open_source(str(tmp_path), SIZE, clips=clips).entries(seed, 0)) == rate


@pytest.mark.parametrize(("options", "rate"), [({"stride": 2}, 4.0), ({"fps": 16}, 16.0), ({}, 8.0)])
def test_moving_scenes_have_eight_frames_a_second_unless_told(
    tmp_path: Path, options: dict[str, Any], rate: float
) -> None:
    config = settings(tmp_path, frames=3, **options)
    assert config.clips is not None
    known = config.clips.rate_in(open_source("moving-scenes", SIZE, clips=config.clips).entries(0, 0))
    assert known is None and ValidationPictures(config, known).rate == rate


def test_frames_are_encoded_a_few_at_a_time_and_each_by_itself() -> None:
    pipe: Any = TINY["animatediff"].build()
    counts: list[int] = []
    pipe.vae.encoder.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    pixels = torch.rand(2, 20, 3, 32, 16, generator=seeded()) * 2 - 1
    made = encode_with_pivot(pipe, pixels, 2.0)
    assert max(counts) <= 16 and made["pivot"].shape == (2, 4, 20, 2, 1)
    alone = encode_with_pivot(pipe, pixels[1:, 7:8], 2.0)
    for name in ("z_0", "pivot"):
        assert torch.allclose(made[name][1:, :, 7:8], alone[name], atol=1e-5)


def test_the_command_says_in_a_line_what_is_not_for_pictures() -> None:
    said = "fps, here 8.0, is for clips; give frames, or leave it out"
    assert refuse("train", "--fps", "8") == f"selfcascade: error: {said}"
    said = "model 'bundled' is a StableDiffusionPipeline, which makes pictures; frames must be left out, not 4"
    assert said in refuse("train", "--frames", "4", "--train_data", "moving-scenes")


def test_sdxl_s_motion_u_net_is_told_sizes_once_a_clip() -> None:
    pipe: Any = tiny_video_xl()
    embeds = encode_captions(pipe, ["a red house", "a blue tree"])
    corners = torch.zeros(2, 2, dtype=torch.long)
    told = unet_arguments(pipe, embeds, corners + 64, corners, SIZE, FRAMES)
    with torch.no_grad():
        made = pipe.unet(torch.randn(2, 4, FRAMES, 8, 8, generator=seeded()), torch.tensor([3, 5]), **told).sample
    assert made.shape == (2, 4, FRAMES, 8, 8) and torch.isfinite(made).all()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("animatediff", {}, "is a AnimateDiffPipeline, which makes clips; give frames"),
    ("stable-diffusion", {"frames": 4}, "is a StableDiffusionPipeline, which makes pictures; frames must be left out"),
    ("animatediff", {"frames": 33, "fps": 30}, "frames must be at most 32, where the motion adapter's positions end"),
    ("text-to-video-synthesis", {"frames": 4, "gradient_checkpointing": True}, "not supported by UNet3DConditionModel"),
    ("text-to-video-synthesis", {"frames": 4, "method": "lora"}, "'lora' is not for UNet3DConditionModel, into which"),
    ("wan", {"frames": 5}, "is a WanPipeline; only models with a U-Net are trained"),
    ("animatediff", {"frames": 1}, "frames"),
    ("animatediff", {"fps": 8}, r"fps, here 8\.0, is for clips; give frames, or leave it out"),
    ("stable-diffusion", {"temporal_kernel": 3}, "temporal_kernel, here 3, is for clips; give frames, or leave it out"),
    ("animatediff", {"frames": 4, "temporal_kernel": 2}, "temporal_kernel must be odd, not 2"),
    ("animatediff", {"frames": 4, "fps": 8, "stride": 2}, "fps and stride must not both be given, not 8 and 2"),
    ("animatediff", {"frames": 4, "min_duration": 3, "max_duration": 2}, "min_duration must be at most max_duration"),
]


@pytest.mark.parametrize(("name", "changes", "words"), REFUSED)
def test_clips_that_a_model_cannot_be_trained_on_are_named(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, TINY[name].build(), **changes)
