"""Base models are found by name, read from safetensors alone, and refused in one line."""

from logging import WARNING
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import AnimateDiffPipeline, MotionAdapter

from selfcascade import models
from selfcascade.models import find_device, load_bundled, load_model
from tiny import TINY


@pytest.fixture
def pipe() -> Any:
    return TINY["stable-diffusion"].build()


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_half_precision_files_are_read_as_float32(tmp_path: Path, pipe: Any, variant: str | None) -> None:
    pipe.to(torch.float16).save_pretrained(tmp_path, variant=variant)
    loaded = load_model(str(tmp_path), device="cpu")
    assert {weight.dtype for weight in loaded.unet.parameters()} == {torch.float32}
    assert all(map(torch.equal, loaded.unet.half().parameters(), pipe.unet.parameters()))


def test_another_precision_is_had_by_asking(tmp_path: Path, pipe: Any) -> None:
    pipe.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), "cpu", "bfloat16").dtype == torch.bfloat16


def test_pickles_are_not_read(tmp_path: Path, pipe: Any) -> None:
    pipe.save_pretrained(tmp_path)
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    weights.unlink()
    torch.save(pipe.unet.state_dict(), weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match="cannot be loaded from its folder"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_damaged_weights_are_refused(tmp_path: Path, pipe: Any, content: bytes) -> None:
    pipe.save_pretrained(tmp_path)
    next((tmp_path / "vae").glob("*.safetensors")).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be loaded from its folder") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_bundled_model_is_the_folder_in_the_package(
    tmp_path: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BUNDLED", tmp_path)
    with pytest.raises(ValueError, match="'bundled' is not installed"):
        load_bundled()
    pipe.to(torch.float16).save_pretrained(tmp_path)
    assert load_bundled().dtype == torch.float32


def test_the_bundled_video_model_is_the_image_model_and_its_own_parts(
    tmp_path: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "BUNDLED", tmp_path / "image")
    monkeypatch.setattr(models, "BUNDLED_VIDEO", tmp_path / "video")
    pipe.save_pretrained(tmp_path / "image")
    with pytest.raises(ValueError, match=r"'bundled-video' is not installed: video/motion_adapter/config\.json"):
        load_bundled(video=True)
    config = pipe.unet.config
    adapter = MotionAdapter(
        block_out_channels=config.block_out_channels,
        motion_layers_per_block=config.layers_per_block,
        motion_norm_num_groups=config.norm_num_groups,
        motion_num_attention_heads=2,
    )
    tuned = TINY["stable-diffusion"].build().text_encoder
    for name, part in (("motion_adapter", adapter), ("text_encoder", tuned), ("tokenizer", pipe.tokenizer)):
        part.save_pretrained(tmp_path / "video" / name)
    video = load_bundled("cpu", video=True)
    assert isinstance(video, AnimateDiffPipeline) and video.dtype == torch.float32
    assert all(map(torch.equal, video.text_encoder.parameters(), tuned.parameters()))
    own, image = video.unet.state_dict(), pipe.unet.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in image.items() if name in own)
    moved = {name: weight for name, weight in own.items() if "motion_modules" in name}
    assert moved.keys() == adapter.state_dict().keys()
    assert all(torch.equal(weight, adapter.state_dict()[name]) for name, weight in moved.items())


@pytest.mark.parametrize("name", ["", "a/b/c", "../nowhere", "with space", "nul\0"])
def test_what_can_be_no_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"model|null"):
        load_model(name)


@pytest.mark.parametrize("name", ["", "tpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99", "cpu:1", "mps:7", "meta"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="device"):
        find_device(name)


def test_the_best_device_there_is() -> None:
    assert find_device() in ("cuda", "mps", "cpu")
    assert find_device("cpu") == "cpu"


def test_a_numbered_cpu_is_a_cpu(tmp_path: Path, pipe: Any) -> None:
    pipe.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), device="cpu:0").dtype == torch.float32


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu", 0)])
def test_the_cpu_computes_in_float32_however_it_is_named(models: Path, device: str | torch.device) -> None:
    pipe = load_model(str(models / "sd"), device)
    assert pipe.dtype == torch.float32 and pipe.device.type == "cpu"


@pytest.mark.parametrize("device", ["CPU", "cuda:x", 0, True, torch.device("meta")])
def test_what_is_no_device_is_refused(device: Any) -> None:
    with pytest.raises(ValueError, match=r"^device must be cpu, cuda, cuda:N or mps, not "):
        load_model("bundled", device)


def test_the_bundled_model_loads_without_a_word_and_leaves_the_libraries_talkative(capfd: Any) -> None:
    logs: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    try:
        for log in logs:
            log.set_verbosity_warning()
            log.enable_progress_bar()
        capfd.readouterr()
        load_bundled("cpu")
        assert capfd.readouterr() == ("", "")
        assert [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs] == [(WARNING, True)] * 2
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            (log.enable_progress_bar if bars else log.disable_progress_bar)()
