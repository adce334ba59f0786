"""Training with local attention: the seam of sampling, with the gradients of full attention under a mask."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cascade_runs import QUICK
from masked_attention import masks_of
from selfcascade import FeatureUpsamplers, SelfCascade, Size
from selfcascade.base_models.windows import Grid
from selfcascade.data import ScenesSource, Stream
from selfcascade.training import Trainer, trainables
from selfcascade.training.launch import ValidationPictures, description
from selfcascade.upsamplers.skip_features import SkipFeatures, read_skip_features
from training_runs import equal, settings, weights

LARGE = Size(128, 128)  # four times the pixels of the tiny model's own size
GRID, NATIVE = Grid(1, 16, 16), Grid(1, 8, 8)
METHODS: dict[str, dict[str, Any]] = {
    "micro": {"preset": "micro"},
    "full": {"preset": "full"},
    "lora": {"method": "lora"},
    "whole": {"method": "full"},
}
Gradient = tuple[float, dict[str, Tensor]]


def trainer(folder: Path, **options: Any) -> Trainer:
    given = {"resolution": 128, "learning_rate": 1e-3, "pivot_step": 700, "attention": "local", **options}
    config = settings(folder, **given)
    return Trainer(QUICK.build(), config, Stream(ScenesSource(LARGE), (LARGE,), config.seed))


def gradient(made: Trainer, windows: int = 0) -> Gradient:
    """Loss and gradients of a step on the first batch, once no weight is zero as those of adapters are at first."""
    for weight in made.trained.values():
        if made.config.method != "full":
            torch.nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(1))
    batch = next(made.stream.batches(2))
    with made.attention.at(batch.pixels, windows, made.trainable):
        loss = made._loss(batch, 0)
        loss.backward()
    found = {name: weight.grad for name, weight in made.trained.items() if weight.grad is not None}
    assert set(found) == set(made.trained)
    return loss.item(), found


def is_same(one: Gradient, other: Gradient) -> bool:
    return one[0] == other[0] and equal(one[1], other[1])


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_under_a_mask_and_with_one_window_those_of_full_attention(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pivots: list[SkipFeatures] = []

    def read(*given: Any, **named: Any) -> SkipFeatures:
        pivots.append(read_skip_features(*given, **named))
        return pivots[-1]

    monkeypatch.setattr(trainables, "read_skip_features", read)
    full = gradient(trainer(tmp_path, attention="full", **METHODS[method]))
    local = gradient(trainer(tmp_path, **METHODS[method]))
    whole = trainer(tmp_path, **METHODS[method])
    whole.attention.native = LARGE
    assert is_same(gradient(whole), full) and not is_same(local, full)
    # The mask is by the number of tokens, which the pivot's shallowest level shares with the stage's second one.
    monkeypatch.setattr(trainables, "read_skip_features", lambda *_, **__: pivots[0])
    masked = trainer(tmp_path, attention="full", **METHODS[method])
    mask, forward = masks_of(masked.pipe.unet, GRID, NATIVE), masked.pipe.unet.forward

    @functools.wraps(forward)
    def under_mask(*given: Any, **named: Any) -> Any:
        with mask:  # the VAE's attention is over as many tokens
            return forward(*given, **named)

    monkeypatch.setattr(masked.pipe.unet, "forward", under_mask)
    expected = gradient(masked)
    assert mask.met == 4
    assert local[0] == pytest.approx(expected[0], rel=1e-6)
    for name, value in local[1].items():  # float32 sums in another order
        torch.testing.assert_close(value, expected[1][name], atol=1e-6 + 1e-5 * float(value.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("method", ["micro", "whole"])
def test_windows_move_from_step_to_step_and_checkpointed_modules_run_again_in_the_same_ones(
    tmp_path: Path, method: str
) -> None:
    first, second = (trainer(tmp_path, **METHODS[method]) for _ in range(2))
    again = trainer(tmp_path, gradient_checkpointing=True, **METHODS[method])
    # With the noise of the first step, so that only the windows differ.
    own, other, repeated = (gradient(made, step) for made, step in ((first, 0), (second, 1), (again, 1)))
    assert not is_same(own, other) and is_same(repeated, other)


def test_a_resumed_run_takes_the_same_windows(tmp_path: Path) -> None:
    def run(folder: Path, steps: int, **options: Any) -> Trainer:
        made = trainer(folder, max_train_steps=steps, checkpointing_steps=3, method="lora", **options)
        made.run()
        return made

    whole = run(tmp_path / "whole", 5)
    run(tmp_path / "cut", 3)
    resumed = run(tmp_path / "cut", 5, resume_from_checkpoint="latest")
    assert equal(weights(resumed), weights(whole))
    with pytest.raises(ValueError, match=r"attention \('local' then, 'full' now\)"):
        run(tmp_path / "cut", 6, resume_from_checkpoint="latest", attention="full")


def test_upsamplers_say_how_they_were_trained_and_a_cascade_with_them_does_so_too(tmp_path: Path) -> None:
    made = trainer(tmp_path, max_train_steps=1)
    made.run()
    assert json.loads((tmp_path / "training.json").read_text())["attention"] == "local"
    assert "local attention" in description(made)
    pipe = QUICK.build()
    upsamplers = FeatureUpsamplers.from_pretrained(tmp_path)
    assert upsamplers.config["attention"] == "local"
    cascade = SelfCascade(pipe, upsamplers)
    given: dict[str, Any] = {"prompt": "a house", "scale": 2, "num_inference_steps": 2, "output_type": "latent"}
    for asked, expected in ((None, "local"), ("full", "full")):
        assert cascade(**given, attention=asked).pivot_settings.attention == expected
    without = FeatureUpsamplers.from_unet(pipe.unet)
    assert SelfCascade(pipe, without)(**given).pivot_settings.attention == "full"
    with pytest.raises(ValueError, match="attention must be one of full, local, not 'windows'"):
        FeatureUpsamplers.from_unet(pipe.unet, attention="windows")


def test_a_lora_is_for_stages_with_a_pivot_and_sampled_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfcascade.training.launch.VALIDATION_STEPS", 2)
    made = trainer(tmp_path, method="lora", max_train_steps=1, pivot_step=None, validation_prompt=("a house",))
    made.validate = ValidationPictures(made.config)
    calls: list[dict[str, Any]] = []
    call = SelfCascade.__call__

    def called(self: SelfCascade, *given: Any, **named: Any) -> Any:
        calls.append({"stages": len(self.plan(128, 128)), "attention": named.get("attention")})
        return call(self, *given, **named)

    monkeypatch.setattr(SelfCascade, "__call__", called)
    made.run()
    assert made.pivot_step == 700 and calls == [{"stages": 2, "attention": "local"}]
    assert 'width=128, attention="local")' in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("resolution", [64, (32, 128)])
def test_where_no_attention_would_be_local_it_is_refused(tmp_path: Path, resolution: Any) -> None:
    with pytest.raises(ValueError, match="attention 'local' needs a resolution above the model's own, 64x64, not"):
        trainer(tmp_path, resolution=resolution)
