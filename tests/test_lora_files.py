"""A trained LoRA's file is what was trained: loaded by diffusers alone and by our method, every layer is there."""

# pyright: reportPrivateImportUsage=false

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from cascade_runs import QUICK, seeded
from command_line import refuse, succeed
from selfcascade.cascade import Size
from selfcascade.evaluation import BaseSamples, Sampling, sample
from selfcascade.evaluation.scenes_benchmark import scene_prompts
from selfcascade.methods.fine_tuned import ADAPTER, lora
from selfcascade.training import trainables
from selfcascade.training.trainables import TrainedUNet, make_trainable
from tiny import TINY, TinyPipeline
from tiny.plugins import tiny_video_xl
from training_runs import settings, trained

U_NETS = {"stable-diffusion": QUICK} | {name: TINY[name] for name in ("stable-diffusion-xl", "animatediff")}
INPUTS = TINY["animatediff"].inputs
U_NETS["animatediff-xl"] = TinyPipeline("animatediff-xl", tiny_video_xl, (64, 64), INPUTS, "unet", video=True)
FILE = "pytorch_lora_weights.safetensors"
TARGETS = {
    "as trained": trainables.LORA_TARGETS,
    "attention": r"(?!.*motion_modules).*\.to_([qkv]|out\.0)",
    "values alone": r".*\.to_v",
    "feed-forward": r".*\.ff\.net\.(0\.proj|2)",
    "convolutions": r".*\.(conv1|conv2|conv_shortcut)|conv_in|conv_out",
    "embeddings": r".*\.(time_emb_proj|linear_1|linear_2)",
}
TARGETS["everything"] = "|".join(f"(?:{names})" for names in TARGETS.values())


def randomised(pipe: Any, folder: Path, **changes: Any) -> TrainedUNet:
    """A LoRA in training, all its weights random: as it is initialised it would change nothing."""
    trainable = make_trainable(pipe.unet, settings(folder, method="lora", **changes), 1000)
    assert isinstance(trainable, TrainedUNet)
    generator = seeded(3)
    for weight in trainable.trained().values():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    pipe.unet.eval()
    return trainable


def sample_at_64(pipe: Any, name: str) -> Tensor:
    """A step at 64 pixels, latents."""
    for weight in pipe.unet.parameters():  # a file's are not aligned in memory as usual, and products round otherwise
        weight.data = weight.data.clone()
    options: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 1, "output_type": "latent"}
    return pipe(**U_NETS[name].inputs, **options, generator=seeded(), return_dict=False)[0]


def check_equal(pipe: Any, name: str, folder: Path) -> None:
    """The file gives what the adapted pipeline gives, by diffusers and by our method; both leave nothing out."""
    expected, layers = sample_at_64(pipe, name), get_peft_model_state_dict(pipe.unet)
    plain: Any = U_NETS[name].build()
    without = sample_at_64(plain, name)
    assert not torch.allclose(without, expected, atol=1e-3)
    with lora(plain, folder):
        assert torch.equal(sample_at_64(plain, name), expected)
    assert torch.equal(sample_at_64(plain, name), without)
    plain.load_lora_weights(folder)
    loaded = get_peft_model_state_dict(plain.unet, adapter_name=next(iter(plain.unet.peft_config)))
    assert loaded.keys() == layers.keys() and all(torch.equal(loaded[key], value) for key, value in layers.items())
    assert torch.equal(sample_at_64(plain, name), expected)


@pytest.mark.parametrize(
    ("name", "targets"),
    [("stable-diffusion", targets) for targets in TARGETS]  # each kind of layer by itself, which decides the format
    + [(name, targets) for name in U_NETS if name != "stable-diffusion" for targets in ("as trained", "everything")],
)
def test_every_layer_comes_back(name: str, targets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables, "LORA_TARGETS", TARGETS[targets])
    pipe = U_NETS[name].build()
    randomised(pipe, tmp_path).save(tmp_path, pipe)
    check_equal(pipe, name, tmp_path)


@pytest.mark.parametrize(("rank", "alpha"), [(1, 8.0), (4, 0.5), (6, None)])
def test_rank_and_alpha_come_back(rank: int, alpha: float | None, tmp_path: Path) -> None:
    pipe = QUICK.build()
    randomised(pipe, tmp_path, rank=rank, lora_alpha=alpha).save(tmp_path, pipe)
    check_equal(pipe, "stable-diffusion", tmp_path)


@pytest.mark.parametrize("use_ema", [False, True])
def test_a_training_run_s_file_is_what_was_trained(use_ema: bool, tmp_path: Path) -> None:
    pipe: Any = QUICK.build()
    trainer = trained(tmp_path, pipe, method="lora", rank=2, lora_alpha=6.0, use_ema=use_ema, max_train_steps=3)
    pipe.unet.eval()
    with trainer.state.averaged():
        check_equal(pipe, "stable-diffusion", tmp_path)


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """An adapted pipeline and its file in two formats at once, as earlier versions wrote it."""
    pipe: Any = QUICK.build()
    unet_layers = get_peft_model_state_dict(randomised(pipe, tmp_path).unet)
    metadata = pipe.unet.peft_config["default"].to_dict()
    layers = convert_state_dict_to_diffusers(unet_layers)
    assert {"lora.down" in key for key in layers} == {True, False}
    type(pipe).save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
    yield pipe, tmp_path


def test_a_file_in_two_formats_is_loaded_whole(mixed: tuple[Any, Path]) -> None:
    pipe, folder = mixed
    fresh = QUICK.build()
    with lora(fresh, folder):
        assert torch.equal(sample_at_64(fresh, "stable-diffusion"), sample_at_64(pipe, "stable-diffusion"))


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    pipe: Any = QUICK.build()
    randomised(pipe, tmp_path).save(tmp_path, pipe)
    layers = load_file(tmp_path / FILE)
    renamed = {key.replace("mid_block.attentions.0", "mid_block.attentions.7"): value for key, value in layers.items()}
    save_file(renamed, tmp_path / FILE)
    fresh: Any = QUICK.build()
    names = {name for name, _ in fresh.unet.named_modules()}
    refusal = r"hold no LoRA for this model: .*mid_block\.attentions\.7"
    with pytest.raises(ValueError, match=refusal), lora(fresh, tmp_path):
        pass
    assert {name for name, _ in fresh.unet.named_modules()} == names
    assert ADAPTER not in getattr(fresh.unet, "peft_config", {})


def test_the_figures_of_a_row_can_be_made_again_from_its_file(tmp_path: Path) -> None:
    pipe = QUICK.build()
    prompts, direct = scene_prompts(2), Sampling(method="direct", num_inference_steps=2)
    base = BaseSamples(pipe, prompts, Size(64, 64), direct, tmp_path / "runs")
    randomised(pipe, tmp_path, rank=4).save(tmp_path, pipe)
    in_training = sample(pipe, prompts, direct, base)
    from_file = Sampling(method="lora", num_inference_steps=2, weights=str(tmp_path))
    assert torch.equal(sample(QUICK.build(), prompts, from_file, base), in_training)


def kohya_file(folder: Path) -> Path:
    (path,) = succeed("export", folder, "--output", folder / "style.safetensors")
    return Path(path)


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
@pytest.mark.parametrize(("rank", "alpha"), [(4, None), (2, 6.0)])
def test_kohya_s_layout_comes_back_through_diffusers_layer_by_layer(
    name: str, rank: int, alpha: float | None, tmp_path: Path
) -> None:
    pipe: Any = U_NETS[name].build()
    randomised(pipe, tmp_path, rank=rank, lora_alpha=alpha).save(tmp_path, pipe)
    path = kohya_file(tmp_path)
    expected, layers = sample_at_64(pipe, name), get_peft_model_state_dict(pipe.unet)
    fresh: Any = U_NETS[name].build()
    modules = {f"lora_unet_{place.replace('.', '_')}" for place, _ in fresh.unet.named_modules()}
    written = load_file(path)  # ComfyUI and A1111 look modules up by these names, each with its three tensors
    assert {key.partition(".")[0] for key in written} <= modules
    assert {key.partition(".")[2] for key in written} == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert 2 * len(written) == 3 * len(layers)
    fresh.load_lora_weights(path)
    loaded = get_peft_model_state_dict(fresh.unet, adapter_name=next(iter(fresh.unet.peft_config)))
    assert loaded.keys() == layers.keys() and all(torch.equal(loaded[key], value) for key, value in layers.items())
    assert torch.equal(sample_at_64(fresh, name), expected)  # so that the strengths, alpha / rank, are there too


def test_what_kohya_s_layout_cannot_hold_is_refused(tmp_path: Path) -> None:
    assert "is neither a folder with a pytorch_lora_weights.safetensors" in refuse("export", tmp_path / "none")
    pipe: Any = U_NETS["animatediff"].build()
    randomised(pipe, tmp_path).save(tmp_path, pipe)
    out = ["--output", tmp_path / "a.safetensors"]
    assert "is for a clip's motion modules" in refuse("export", tmp_path, *out)
    save_file({"x": torch.zeros(1)}, tmp_path / FILE)
    assert "has a tensor 'x', not a U-Net's layers" in refuse("export", tmp_path, *out)
    (tmp_path / FILE).write_text("text")
    assert "cannot be read" in refuse("export", tmp_path, *out)
    assert "must end in .safetensors" in refuse("export", tmp_path, "--output", "a.ckpt")
    assert "would overwrite the LoRA itself" in refuse("export", tmp_path, "--output", tmp_path / FILE, "--force")
    assert not (tmp_path / "a.safetensors").exists()
