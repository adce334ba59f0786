"""Training: Algorithm 1 changes what it should, and a resumed run equals an uninterrupted one bit for bit."""

# pyright: reportPrivateImportUsage=false

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor

from cascade_runs import QUICK
from processes import in_processes
from selfcascade import FeatureUpsamplers
from selfcascade.data import ScenesSource, Stream
from selfcascade.training import Trainer, TrainingConfig
from selfcascade.training.checkpoints import CheckpointError, list_checkpoints, load_checkpoint
from selfcascade.training.loop import HELD_OUT
from selfcascade.training.objective import DiffusionObjective, FlowObjective, draw, objective_of
from selfcascade.training.tensor_cache import FeatureCache, content_of
from selfcascade.training.trainables import make_trainable
from tiny import TINY
from training_runs import SIZE, equal, settings, trained, weights


def everything(pipe: Any) -> dict[str, Tensor]:
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("preset", ["micro", "full"])
def test_only_the_upsamplers_change(tmp_path: Path, preset: str) -> None:
    pipe = QUICK.build()
    before = {
        name: value.clone()
        for part in (pipe.unet, pipe.vae, pipe.text_encoder)
        for name, value in part.state_dict().items()
    }
    start = FeatureUpsamplers.from_unet(pipe.unet, preset).state_dict()
    trainer = trained(tmp_path, pipe, preset=preset)
    after = {
        name: value for part in (pipe.unet, pipe.vae, pipe.text_encoder) for name, value in part.state_dict().items()
    }
    assert equal(before, after)
    loaded = FeatureUpsamplers.from_pretrained(tmp_path)
    assert equal(dict(loaded.state_dict()), weights(trainer))
    assert loaded.config["pivot_step"] == 700 and loaded.config["upsampling"] == "rgb"
    assert not torch.equal(next(iter(loaded.parameters())), torch.zeros(1)) and any(
        not torch.equal(value, start.get(name, torch.zeros_like(value))) for name, value in loaded.state_dict().items()
    )
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: diffusers")
    assert TrainingConfig(**json.loads((tmp_path / "training.json").read_text())) == trainer.config


def test_a_whole_u_net_is_saved_as_diffusers_loads_it(tmp_path: Path) -> None:
    trainer = trained(tmp_path, method="full", learning_rate=1e-3)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    assert equal(dict(loaded.named_parameters()), weights(trainer))  # type: ignore[arg-type]
    assert not equal(dict(QUICK.build().unet.named_parameters()), weights(trainer))


@pytest.mark.parametrize(("rank", "expected"), [(4, 1_728_512), (32, 13_828_096)])
def test_lora_parameters_on_stable_diffusion_2_1(rank: int, expected: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        made = make_trainable(unet, settings(tmp_path, method="lora", rank=rank), 1000)
    assert sum(parameter.numel() for parameter in made.trained().values()) == expected


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated, averaged, decaying": {
        "gradient_accumulation_steps": 2,
        "train_batch_size": 1,
        "use_ema": True,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "snr_gamma": 5.0,
        "logging_steps": 4,
    },
    "lora": {"method": "lora"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_an_uninterrupted_one_at_three_cut_points(tmp_path: Path, case: str) -> None:
    options, folder = CASES[case], tmp_path / "cut"
    whole = trained(tmp_path / "whole", **options)
    for cut in (1, 3, 4):
        stopped = trained(folder, stop_after=cut, resume_from_checkpoint="latest" if cut > 1 else None, **options)
        assert stopped.step == cut and not (folder / "training.json").exists()
    resumed = trained(folder, resume_from_checkpoint="latest", **options)
    assert resumed.step == 6 and equal(weights(resumed), weights(whole))
    curves = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.curve.rows()] for run in (resumed, whole)
    ]
    assert curves[0] == curves[1]
    last = [load_checkpoint(list_checkpoints(run.config.folder)[-1]) for run in (resumed, whole)]
    assert all(equal(dict(last[0].tensors[part]), dict(last[1].tensors[part])) for part in last[0].tensors)


def test_a_run_that_is_longer_already_is_refused(tmp_path: Path) -> None:
    whole = trained(tmp_path)
    words = "max_train_steps is 4, and checkpoint-000006 has more; give at least 6"
    with pytest.raises(ValueError, match=words):
        trained(tmp_path, max_train_steps=4, resume_from_checkpoint="latest")
    shorter = trained(tmp_path, max_train_steps=4, resume_from_checkpoint="checkpoint-000004")
    assert shorter.step == 4 and not equal(weights(shorter), weights(whole))


def test_held_out_losses_have_draws_of_their_own() -> None:
    trained_on = [draw([sample], 0, (1, 8, 8), 700, 1000)[0] for sample in range(4)]
    held_out = [draw([HELD_OUT + sample], 0, (1, 8, 8), 700, 1000)[0] for sample in range(4)]
    assert not any(torch.equal(one, other) for one in trained_on for other in held_out)


def test_an_earlier_checkpoint_can_be_named(tmp_path: Path) -> None:
    whole = trained(tmp_path)
    again = trained(tmp_path, resume_from_checkpoint="checkpoint-000002")
    assert equal(weights(again), weights(whole))
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    later = [f"checkpoint-{step:06d}.superseded" for step in (4, 6)]  # kept, and never taken for this run's
    assert names == sorted([*(f"checkpoint-{step:06d}" for step in (2, 4, 6)), *later])
    assert [row["step"] for row in again.curve.rows()] == [1, 2, 3, 4, 5, 6]


def test_a_fresh_start_does_not_mix_with_an_earlier_run(tmp_path: Path) -> None:
    trained(tmp_path, max_train_steps=2)
    before = (tmp_path / "curve.jsonl").read_text()
    with pytest.raises(CheckpointError, match=r"holds checkpoint-000002 of an earlier run; continue it with resume"):
        trained(tmp_path, max_train_steps=1)
    assert (tmp_path / "curve.jsonl").read_text() == before


def test_another_folders_checkpoint_does_not_replace_an_earlier_run(tmp_path: Path) -> None:
    trained(tmp_path / "a", max_train_steps=2)
    trained(tmp_path / "b", max_train_steps=4)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "b").rglob("*")) if path.is_file()}
    place = str(tmp_path / "a/checkpoint-000002")
    with pytest.raises(CheckpointError, match=r"holds checkpoint-000004 of an earlier run"):
        trained(tmp_path / "b", max_train_steps=4, resume_from_checkpoint=place)
    assert {path: path.read_bytes() for path in before} == before
    went_on = trained(tmp_path / "c", max_train_steps=4, resume_from_checkpoint=place)
    assert equal(weights(went_on), weights(trained(tmp_path / "d", max_train_steps=4)))


def test_micro_batches_and_one_batch_take_the_same_step(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", train_batch_size=4, max_train_steps=2)
    parts = trained(tmp_path / "parts", train_batch_size=2, gradient_accumulation_steps=2, max_train_steps=2)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(parts)[name], atol=2e-5), name


def test_four_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    """The loss of four pictures, always with the same noise and timesteps, falls tenfold if all may be learnt."""
    trainer = Trainer(
        QUICK.build(),
        settings(tmp_path, method="full", learning_rate=1e-2, prompt_dropout=0),
        Stream(ScenesSource(SIZE), (SIZE,)),
    )
    batch = next(trainer.stream.batches(4))
    losses = []
    for _ in range(400):
        loss = trainer._loss(batch, 0)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.item())
        if losses[-1] < losses[0] / 10:
            break
    assert losses[-1] < losses[0] / 10


def test_the_loss_of_pictures_that_are_held_out_is_logged_and_nothing_else_changes(tmp_path: Path) -> None:
    def run(folder: str, held_out: int | None) -> Trainer:
        config = settings(tmp_path / folder, max_train_steps=3, validation_steps=2, num_validation_pictures=3)
        others = None if held_out is None else Stream(ScenesSource(SIZE), (SIZE,), held_out)
        trainer = Trainer(QUICK.build(), config, Stream(ScenesSource(SIZE), (SIZE,), 0), held_out=others)
        trainer.run()
        return trainer

    plain, watched, again, other = run("plain", None), run("watched", 1), run("again", 1), run("other", 2)
    assert equal(weights(watched), weights(plain))
    curves = [[row for row in t.curve.rows() if "validation_loss" in row] for t in (plain, watched, again, other)]
    assert curves[0] == [] and [row["step"] for row in curves[1]] == [2, 3]
    assert curves[1] == curves[2] != curves[3]
    assert 0.1 < curves[1][0]["validation_loss"] < 3
    assert curves[1][0]["validation_loss"] != curves[1][1]["validation_loss"]


def test_upsamplers_learn_what_the_pivot_can_tell(tmp_path: Path) -> None:
    """On the same batch over and over the upsamplers lower the loss; the frozen decoder bounds how far."""
    trainer = Trainer(
        QUICK.build(), settings(tmp_path, preset="full", learning_rate=3e-3), Stream(ScenesSource(SIZE), (SIZE,))
    )
    batch = next(trainer.stream.batches(4))
    losses = []
    for _ in range(60):
        loss = trainer._loss(batch, 0)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def end(folder: Path, processes: int = 1, **options: Any) -> dict[str, Tensor]:
    """The weights that a run of so many processes ends with."""

    def work(rank: int) -> dict[str, Any]:
        made = trained(folder, **options)
        return {name: value.numpy() for name, value in weights(made).items()}

    first, *others = in_processes(work, processes)
    assert all(np.array_equal(first[name], other[name]) for other in others for name in first)
    return {name: torch.from_numpy(value) for name, value in first.items()}


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.allclose(a[name], value, atol=1e-4) for name, value in b.items())  # a hundredth of a step


def test_two_processes_take_the_steps_of_one_and_resume_bit_for_bit_or_with_other_numbers(tmp_path: Path) -> None:
    one = end(tmp_path / "one", train_batch_size=4, max_train_steps=4)
    two = end(tmp_path / "two", 2, train_batch_size=2, max_train_steps=4)
    assert close(two, one)
    end(tmp_path / "cut", 2, train_batch_size=2, max_train_steps=4, stop_after=3)
    again = {"train_batch_size": 2, "max_train_steps": 4, "resume_from_checkpoint": "latest"}
    for processes in (1, 2, 4):  # both lanes of one, or half a lane each
        folder = tmp_path / f"{processes} go on"
        shutil.copytree(tmp_path / "cut", folder)
        resumed = end(folder, processes, **again)
        assert equal(resumed, two) if processes == 2 else close(resumed, two)
        assert len(load_checkpoint(folder / "checkpoint-000004").state["positions"]) == 2
    with pytest.raises(AssertionError, match=r"by 2 processes with batches of 2, which 3 cannot .* that can: 1, 2, 4"):
        end(tmp_path / "cut", 3, **again)


def test_cached_latents_give_the_same_weights_and_spare_the_encoder(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain")
    first = trained(tmp_path / "first", cache_latents=str(tmp_path / "cache"))
    again = trained(tmp_path / "again", cache_latents=str(tmp_path / "cache"))
    assert equal(weights(first), weights(plain)) and equal(weights(again), weights(plain))
    assert first.cache is not None and (first.cache.hits, first.cache.misses) == (0, 12)
    assert again.cache is not None and (again.cache.hits, again.cache.misses) == (12, 0)
    for path in list((tmp_path / "cache").iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:50])
    damaged = trained(tmp_path / "damaged", cache_latents=str(tmp_path / "cache"))
    assert equal(weights(damaged), weights(plain))
    assert damaged.cache is not None and damaged.cache.misses > 0
    dark = Stream(ScenesSource(SIZE), (SIZE,), 0)
    cropped = dark._cropped
    dark._cropped = lambda *place: (np.zeros((64, 64, 3), np.uint8), cropped(*place)[1])  # type: ignore[method-assign]
    other = Trainer(QUICK.build(), settings(tmp_path / "other", cache_latents=str(tmp_path / "cache")), dark)
    other.run()
    assert other.cache is not None and other.cache.misses == 2  # other pictures under the same names, all alike


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_cached_pivot_features_give_the_same_weights_and_spare_the_pivots_pass(tmp_path: Path, name: str) -> None:
    def run(folder: str, cached: bool = True, **changes: Any) -> tuple[Trainer, int]:
        pipe, passes = TINY[name].build(), []
        pipe.unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
        given = {"max_train_steps": 2, "checkpointing_steps": 2, "prompt_dropout": 0.5, **changes}
        if cached:
            given |= {"cache_latents": str(tmp_path / "cache"), "cache_pivot_features": True}
        return trained(tmp_path / folder, pipe, **given), len(passes)

    plain, passes = run("plain", cached=False)
    first, first_passes = run("first")
    again, again_passes = run("again")
    assert (passes, first_passes, again_passes) == (4, 4, 2)
    assert equal(weights(first), weights(plain)) and equal(weights(again), weights(plain))
    if name == "stable-diffusion-xl":
        return
    for changes in ({"scale": 4.0}, {"prompt_dropout": 1.0}):  # other pivots, other captions: other features
        other, other_passes = run(f"other {changes}", **changes)
        assert other_passes > 2 and not equal(weights(other), weights(plain))
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:70])
    assert equal(weights(run("damaged")[0]), weights(plain))


def test_features_of_another_u_net_are_not_taken(tmp_path: Path) -> None:
    pipe = QUICK.build()
    told = {"encoder_hidden_states": torch.randn(2, 7, pipe.unet.config.cross_attention_dim)}
    pivot = torch.randn(2, 4, 8, 8)
    read = FeatureCache(tmp_path, pipe.unet).read(pipe.unet, pivot, told)
    cache = FeatureCache(tmp_path, pipe.unet)
    again = cache.read(pipe.unet, pivot, told)
    for own, expected in zip(again.levels, read.levels, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))
    assert (cache.hits, cache.misses) == (2, 0)
    cache.read(pipe.unet, pivot, {"encoder_hidden_states": told["encoder_hidden_states"] + 1e-6})
    cache.read(pipe.unet, pivot.flip(0), told)
    assert (cache.hits, cache.misses) == (2, 4)
    with torch.no_grad():
        pipe.unet.mid_block.resnets[0].conv1.weight.add_(1e-3)
    other = FeatureCache(tmp_path, pipe.unet)
    other.read(pipe.unet, pivot, told)
    half = FeatureCache(tmp_path, pipe.unet.bfloat16())
    half.read(pipe.unet, pivot.bfloat16(), {"encoder_hidden_states": told["encoder_hidden_states"].bfloat16()})
    assert (other.hits, half.hits) == (0, 0)


def test_what_is_cached_is_named_by_shape_and_type_too() -> None:
    kinds = [torch.zeros(3, 8, 16), torch.zeros(3, 16, 8), torch.zeros(3, 8, 16, dtype=torch.int32)]
    assert len({content_of([kind]) for kind in kinds}) == 3
    assert content_of([kinds[0]]) == content_of([kinds[0].clone()])


@pytest.mark.parametrize("changes", [{}, {"cache_latents": "x", "method": "lora"}])
def test_features_are_cached_beside_latents_and_for_upsamplers_only(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cache_pivot_features needs cache_latents"):
        settings(tmp_path, cache_pivot_features=True, **changes)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, max_train_steps=2)
    go_on = {"resume_from_checkpoint": "latest", "max_train_steps": 4}
    with pytest.raises(ValueError, match=r"other settings: learning_rate \(0\.01 then, 0\.5 now\)"):
        trained(tmp_path, learning_rate=0.5, **go_on)
    with pytest.raises(ValueError, match="method"):
        trained(tmp_path, method="full", **go_on)
    other = QUICK.build()
    with torch.no_grad():
        other.unet.down_blocks[0].resnets[0].conv1.weight.add_(1)
    with pytest.raises(CheckpointError, match="made with another base model's weights"):
        trained(tmp_path, other, **go_on)
    weights_file = list_checkpoints(tmp_path)[-1] / "weights.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        trained(tmp_path, **go_on)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._optimizer_step

    def interrupted(trainer: Trainer, batches: Any) -> float:
        if trainer.step == 2:
            os.kill(os.getpid(), number)
        return step(trainer, batches)

    monkeypatch.setattr(Trainer, "_optimizer_step", interrupted)
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)  # a shell's background has it ignored
    trainer = trained(tmp_path, max_train_steps=100_000, checkpointing_steps=100_000)
    assert trainer.step == 3 and trainer.stop.asked_by == number.name
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{trainer.step:06d}"]
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_stable_diffusion_xl_reads_the_pivot_with_the_stages_sizes_as_a_cascade_does(tmp_path: Path) -> None:
    pipe: Any = TINY["stable-diffusion-xl"].build()
    seen: list[Tensor] = []

    def note(module: Any, positional: tuple, named: dict[str, Any]) -> None:
        seen.append(named["added_cond_kwargs"]["time_ids"])

    handle = pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
    trained(tmp_path, pipe, max_train_steps=1, gradient_checkpointing=True)
    handle.remove()
    upsamplers = FeatureUpsamplers.from_pretrained(tmp_path)
    upsamplers.check_unet(pipe.unet)
    assert len(seen) >= 2 and all(torch.equal(ids, seen[0]) for ids in seen)
    assert seen[0][0].tolist() == [64, 64, 0, 0, 64, 64]


def test_models_that_cannot_be_trained_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only models with a U-Net are trained"):
        trained(tmp_path, TINY["stable-diffusion-3"].build())


def test_the_seed_decides_where_the_upsamplers_start(tmp_path: Path) -> None:
    def start(seed: int) -> dict[str, Tensor]:
        stream = Stream(ScenesSource(SIZE), (SIZE,), seed)
        return weights(Trainer(QUICK.build(), settings(tmp_path, preset="full", seed=seed), stream))

    first = start(1)
    torch.rand(3)
    assert equal(start(1), first) and not equal(start(2), first)


class CountingAdam(torch.optim.AdamW):
    """Keeps its number of steps as 8-bit Adam does: as a plain number."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        rows = {key: {**row, "step": int(row["step"])} for key, row in state["state"].items()}
        return {**state, "state": rows}

    def load_state_dict(self, state_dict: Any) -> None:
        rows = {key: {**row, "step": torch.tensor(float(row["step"]))} for key, row in state_dict["state"].items()}
        assert all(isinstance(row["step"], int) for row in state_dict["state"].values())
        super().load_state_dict({**state_dict, "state": rows})


def test_moments_that_are_plain_numbers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "selfcascade.training.loop.make_optimizer",
        lambda config, trained: CountingAdam(list(trained.values()), lr=config.learning_rate),
    )
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "cut", stop_after=3)
    assert equal(weights(trained(tmp_path / "cut", resume_from_checkpoint="latest")), weights(whole))


def test_half_precision_that_skips_every_step_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfcascade.training.loop.MAX_SKIPPED", 3)
    monkeypatch.setattr("accelerate.optimizer.AcceleratedOptimizer.step_was_skipped", True)
    with pytest.raises(FloatingPointError, match="gradients of 3 steps in a row are not finite at step 3"):
        trained(tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    pipe = QUICK.build()
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        trained(tmp_path, pipe)
    assert not list_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pivot_step": 1001}, "pivot_step must be from 1 to 1000, not 1001"),
        ({"use_8bit_adam": True}, "use_8bit_adam needs bitsandbytes"),
    ],
)
def test_settings_that_the_model_or_machine_cannot_take(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes", [{"rank": 0}, {"scale": 1}, {"method": "magic"}, {"learning_rate": -1}, {"magic": 1}, {"resolution": 0}]
)
def test_settings_out_of_range(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        settings(tmp_path, **changes)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_agrees_with_diffusers_and_weighs_by_signal_to_noise(prediction_type: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type)
    generator = torch.Generator().manual_seed(0)
    z_0, noise = torch.randn(2, 3, 4, 5, 5, generator=generator)
    timestep = torch.tensor([10, 400, 900])
    objective = DiffusionObjective(scheduler)
    z_t = objective.noisy(z_0, noise, timestep)
    assert torch.allclose(z_t, scheduler.add_noise(z_0, noise, timestep), atol=1e-6)
    target = {"epsilon": noise, "v_prediction": scheduler.get_velocity(z_0, noise, timestep), "sample": z_0}[
        prediction_type
    ]
    prediction = target + torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    assert torch.allclose(objective.loss(prediction, z_0, noise, timestep), torch.tensor([1.0, 4.0, 9.0]), atol=1e-4)
    # However a model predicts, an error in z_0 must weigh min(SNR, gamma).
    abar = scheduler.alphas_cumprod[timestep].double()
    snr = abar / (1 - abar)
    wrong = z_0.double() + 0.1
    implied = (z_t.double() - abar.sqrt()[:, None, None, None] * wrong) / (1 - abar).sqrt()[:, None, None, None]
    as_predicted = {
        "epsilon": implied,
        "v_prediction": abar.sqrt()[:, None, None, None] * implied - (1 - abar).sqrt()[:, None, None, None] * wrong,
        "sample": wrong,
    }[prediction_type]
    loss = DiffusionObjective(scheduler, snr_gamma=5.0).loss(as_predicted.float(), z_0, noise, timestep)
    assert torch.allclose(loss.double(), 0.01 * snr.clamp(max=5.0), rtol=2e-2)


def test_flow_models_have_their_own_objective() -> None:
    objective = objective_of(FlowMatchEulerDiscreteScheduler())
    assert isinstance(objective, FlowObjective)
    z_0, noise, timestep = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), torch.tensor([250, 1000])
    assert objective.noisy(z_0, noise, timestep)[:, 0, 0, 0].tolist() == [0.25, 1.0]
    assert objective.loss(torch.zeros(2, 1, 2, 2), z_0, noise, timestep).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="snr_gamma must be left out for flow models"):
        objective_of(FlowMatchEulerDiscreteScheduler(), 5.0)
    with pytest.raises(ValueError, match="prediction_type must be one of"):
        objective_of(DDIMScheduler(prediction_type="magic"))


def test_draws_depend_on_the_sample_alone_and_timesteps_fill_one_to_k() -> None:
    together = draw(range(6), 1, (2, 3), 700, 1000)
    for row in range(6):
        alone = draw([row], 1, (2, 3), 700, 1000)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))
    assert not torch.equal(draw([0], 2, (2, 3), 700, 1000)[0], draw([0], 1, (2, 3), 700, 1000)[0])
    timesteps = draw(range(4000), 0, (1,), 5, 1000)[1]
    assert timesteps.unique().tolist() == [1, 2, 3, 4, 5]
    assert draw(range(4000), 0, (1,), 1000, 1000)[1].max() == 999
