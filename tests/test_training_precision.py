"""Mixed precision: what is frozen is held in half precision, what is trained in float32, and the result is close."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from cascade_runs import QUICK
from selfcascade import FeatureUpsamplers
from selfcascade.data import ScenesSource, Stream
from selfcascade.training import Trainer
from selfcascade.training.checkpoints import list_checkpoints, load_checkpoint
from selfcascade.training.conditions import unet_arguments
from selfcascade.training.launch import ValidationPictures
from tiny import TINY
from training_runs import SIZE, equal, settings, trained, weights

METHODS: dict[str, dict[str, Any]] = {
    "micro": {"preset": "micro"},
    "full": {"preset": "full"},
    "lora": {"method": "lora"},
}


@pytest.fixture(autouse=True)
def _another_precision() -> Iterator[None]:
    """A process has one precision as far as accelerate is concerned; each run here is as if in its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run_in(precision: str, folder: Path, pipe: Any = None, **options: Any) -> Trainer:
    AcceleratorState._reset_state(reset_partial_state=True)
    return trained(folder, pipe, mixed_precision=precision, **options)


def types(pipe: Any, trainer: Trainer) -> set[torch.dtype]:
    """Of all weights that are not trained."""
    own = {id(parameter) for parameter in trainer.trained.values()}
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return {parameter.dtype for part in parts for parameter in part.parameters() if id(parameter) not in own}


@pytest.mark.parametrize("method", METHODS)
def test_frozen_weights_are_held_in_half_precision_and_a_resumed_run_is_still_the_same(
    tmp_path: Path, method: str
) -> None:
    pipe, options = QUICK.build(), {**METHODS[method], "max_train_steps": 2, "checkpointing_steps": 2}
    whole = run_in("bf16", tmp_path / "whole", pipe, **options)
    assert types(pipe, whole) == {torch.bfloat16}
    last = load_checkpoint(list_checkpoints(tmp_path / "whole")[-1]).tensors
    assert {value.dtype for part in ("weights", "optimizer") for value in last[part].values()} == {torch.float32}
    run_in("bf16", tmp_path / "cut", stop_after=1, **options)
    resumed = run_in("bf16", tmp_path / "cut", resume_from_checkpoint="latest", **options)
    assert equal(weights(resumed), weights(whole))
    exact = run_in("no", tmp_path / "exact", **options)
    losses = [[row["loss"] for row in trainer.curve.rows()] for trainer in (whole, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    if method != "lora":
        loaded = FeatureUpsamplers.from_pretrained(tmp_path / "whole")
        assert loaded.config["fingerprint"] == exact.trainable.upsamplers.config["fingerprint"]  # type: ignore[union-attr]
        loaded.check_unet(QUICK.build().unet)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_point_where_those_in_float32_do(tmp_path: Path, method: str) -> None:
    def gradient(precision: str) -> Tensor:
        AcceleratorState._reset_state(reset_partial_state=True)
        config = settings(tmp_path, mixed_precision=precision, **METHODS[method])
        trainer = Trainer(QUICK.build(), config, Stream(ScenesSource(SIZE), (SIZE,)))
        trainer._loss(next(trainer.stream.batches(4)), 0).backward()
        return torch.cat([weight.grad.flatten() for weight in trainer.trained.values() if weight.grad is not None])

    exact, mixed = gradient("no"), gradient("bf16")
    assert exact.dtype == mixed.dtype == torch.float32 and not torch.equal(exact, mixed)
    assert torch.cosine_similarity(exact, mixed, dim=0) > 0.995
    assert mixed.norm() == pytest.approx(float(exact.norm()), rel=0.05)


@pytest.mark.parametrize("options", [{"method": "full"}, {"frozen_weights": "float32"}])
def test_a_trained_u_net_keeps_its_pipeline_in_float32_and_so_does_who_asks_for_it(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    pipe = QUICK.build()
    trainer = run_in("bf16", tmp_path, pipe, max_train_steps=1, **options)
    assert types(pipe, trainer) == {torch.float32}


@pytest.mark.parametrize("method", [*METHODS, "whole"])
def test_pictures_are_made_in_between_in_any_precision(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfcascade.training.launch.VALIDATION_STEPS", 2)
    AcceleratorState._reset_state(reset_partial_state=True)
    changes = {**METHODS.get(method, {"method": "full"}), "resolution": 256, "mixed_precision": "bf16"}
    config = settings(tmp_path, validation_prompt=("a house",), **changes)
    pipe = QUICK.build()
    trainer = Trainer(pipe, config, Stream(ScenesSource(SIZE), (SIZE,)), ValidationPictures(config))
    trainer.config.folder.mkdir(exist_ok=True)
    trainer._validate()
    (path,) = (tmp_path / "validation").iterdir()
    assert path.name == "000000-0.png"


def test_stable_diffusion_xl_trains_in_half_precision_and_its_sizes_stay_whole_numbers(tmp_path: Path) -> None:
    pipe: Any = TINY["stable-diffusion-xl"].build()
    trainer = run_in("bf16", tmp_path, pipe, max_train_steps=1)
    assert types(pipe, trainer) == {torch.bfloat16}
    embeds = {"encoder_hidden_states": torch.zeros(1, 2, 3), "pooled": torch.zeros(1, 4, dtype=torch.bfloat16)}
    sizes = torch.tensor([[1023, 999]])
    told = unet_arguments(pipe, embeds, sizes, torch.tensor([[0, 257]]), (1023, 513))["added_cond_kwargs"]
    assert told["time_ids"].tolist() == [[1023, 999, 0, 257, 1023, 513]]
