"""What holds a stage to its pivot: low bands anchored, energy restored; each against a plain re-statement."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cascade_runs import FAMILIES, SD, SMALL, run, seeded
from schedulers import SCHEDULERS, with_scheduler
from selfcascade import SelfCascade
from selfcascade.base_models.guidance import leaves_guidance_out
from selfcascade.base_models.pivot_controls import HALF_STEPS, Anchor, low_band, restore_energy
from selfcascade.base_models.renoising import add_noise_at_start
from selfcascade.base_models.stage_scheduler import matched_step, stage_scheduler, whole_schedule
from selfcascade.options.presets import Preset
from tiny import TINY, TinyPipeline, add_tiny_lora, tiny_controlnet
from tiny.everything import CONTRACT


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def block_means(z: Tensor, side: int) -> Tensor:
    """Every block of side x side latent pixels replaced by its mean."""
    high, wide = (length // side for length in z.shape[-2:])
    blocks = z.unflatten(-1, (wide, side)).unflatten(-3, (high, side))  # (..., high, side, wide, side)
    return blocks.mean((-3, -1), keepdim=True).expand_as(blocks).flatten(-4, -3).flatten(-2, -1)


def test_the_low_band_is_a_projection_orthogonal_to_the_rest() -> None:
    z = randn(2, 4, 3, 16, 24)
    low = low_band(z, 8, 12)
    torch.testing.assert_close(low, block_means(z, 2))
    torch.testing.assert_close(low_band(low, 8, 12), low)
    assert abs(float((low * (z - low)).sum())) < 1e-3
    assert low_band(z, 7, 9).shape == z.shape
    assert torch.equal(low_band(z, 16, 24), z)


@pytest.mark.parametrize("upsampling", ["bilinear", "bicubic"])
def test_an_enlarged_pivot_gets_its_energy_back_above_its_own_finest_octave(upsampling: str) -> None:
    pivot = randn(2, 4, 16, 16)
    enlarged = interpolate(pivot, scale_factor=2, mode=upsampling)
    assert torch.equal(restore_energy(enlarged, pivot, 0.0), enlarged)
    made = restore_energy(enlarged, pivot, 1.0)
    torch.testing.assert_close(made.var((-2, -1), unbiased=False), pivot.var((-2, -1), unbiased=False))
    torch.testing.assert_close(block_means(made, 4), block_means(enlarged, 4))
    half = restore_energy(enlarged, pivot, 0.5)
    assert enlarged.var() < half.var() < made.var()
    # Noise of one latent pixel cannot come back from next to nothing: the gain ends at two.
    flat = restore_energy(0.01 * enlarged, pivot, 1.0)
    torch.testing.assert_close(flat - block_means(flat, 4), 0.02 * (enlarged - block_means(enlarged, 4)))


def network_output(kind: str, x: Tensor, z_0: Tensor, eps: Tensor, abar: float) -> Tensor:
    alpha, sigma = abar**0.5, (1 - abar) ** 0.5
    return {"epsilon": eps, "v_prediction": alpha * eps - sigma * z_0, "sample": z_0}[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_an_anchored_output_says_the_anchors_low_band(kind: str, name: str) -> None:
    scheduler = stage_scheduler(getattr(diffusers, name)(prediction_type=kind, timestep_spacing="leading"), 600)
    scheduler.set_timesteps(10)
    z_0, eps, wanted = randn(1, 4, 8, 8), randn(1, 4, 8, 8, seed=1), randn(1, 4, 8, 8, seed=2)
    t = scheduler.timesteps[0]
    abar = float(scheduler.alphas_cumprod[int(t)])
    x = add_noise_at_start(scheduler, z_0, eps)
    anchor = Anchor(wanted, 4, 4, 1.0, lambda z: z, lambda z: z)
    with whole_schedule(scheduler):
        made = anchor(scheduler, network_output(kind, x, z_0, eps, abar), t, x)
    moved = z_0 - block_means(z_0, 2) + block_means(wanted, 2)
    unit = x / (x.new_tensor(1.0) if name != "EulerDiscreteScheduler" else abar**-0.5)
    moved_eps = (unit - abar**0.5 * moved) / (1 - abar) ** 0.5  # at the same noisy latents another x_0 is another eps
    torch.testing.assert_close(made, network_output(kind, x, moved, moved_eps, abar), atol=2e-4, rtol=1e-3)


def test_an_anchored_flow_says_the_anchors_low_band() -> None:
    scheduler = stage_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0), 600)
    scheduler.set_timesteps(10)
    z_0, eps, wanted = randn(1, 4, 8, 8), randn(1, 4, 8, 8, seed=1), randn(1, 4, 8, 8, seed=2)
    sigma = float(scheduler.timesteps[0]) / 1000
    x = (1 - sigma) * z_0 + sigma * eps
    with whole_schedule(scheduler):
        made = Anchor(wanted, 4, 4, 1.0, lambda z: z, lambda z: z)(scheduler, eps - z_0, scheduler.timesteps[0], x)
    moved = z_0 - block_means(z_0, 2) + block_means(wanted, 2)
    torch.testing.assert_close(made, (x - moved) / sigma, atol=1e-4, rtol=1e-4)


def test_guidance_of_anchored_outputs_is_the_anchored_guidance() -> None:
    scheduler = stage_scheduler(DDIMScheduler(prediction_type="v_prediction"), 700)
    scheduler.set_timesteps(5)
    x, plain, prompted, wanted = (randn(1, 4, 8, 8, seed=seed) for seed in range(4))
    anchor = Anchor(wanted, 4, 4, 1.0, lambda z: z, lambda z: z)
    first, second, both = (
        anchor(scheduler, output, scheduler.timesteps[0], x)
        for output in (plain, prompted, plain + 7.5 * (prompted - plain))
    )
    torch.testing.assert_close(first + 7.5 * (second - first), both, atol=1e-4, rtol=1e-4)


def all_knowing(scheduler: Any, z_0: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The noise as a network that knows z_0 says it, which sees the scaled sample and the timestep and nothing else."""
    scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
    logs = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).double().sqrt().log()
    lower = min(int(t), len(logs) - 2)
    sigma = float(torch.lerp(logs[lower], logs[lower + 1], float(t) - lower).exp())  # over alpha
    return ((1 + sigma**2) ** 0.5 * scaled - z_0) / sigma


@pytest.mark.parametrize(("name", "config"), SCHEDULERS)
def test_every_scheduler_reads_the_clean_latents_where_the_anchor_does(name: str, config: dict[str, Any]) -> None:
    """Anchored to the z_0 that its network knows already, a stage takes the same way."""
    pipe = with_scheduler(SD, name, **config)
    if name in HALF_STEPS:
        with pytest.raises(ValueError, match=f"half steps of {name}"):
            run(pipe, anchor=0.5)
        return
    z_0, ways = randn(1, 4, 8, 8), []
    for anchored in (False, True):
        scheduler = stage_scheduler(pipe.scheduler, 700)
        scheduler.set_timesteps(12)
        x = add_noise_at_start(scheduler, z_0, randn(1, 4, 8, 8, seed=1))
        scheduler.anchor = Anchor(z_0, 4, 4, 1.0, lambda z: z, lambda z: z) if anchored else None
        drawn = {"generator": seeded()} if "generator" in inspect.signature(scheduler.step).parameters else {}
        way = []
        for t in scheduler.timesteps:
            x = scheduler.step(all_knowing(scheduler, z_0, x, t), t, x, **drawn)[0]
            way.append(x)
        ways.append(torch.cat(way))
    torch.testing.assert_close(ways[0], ways[1], atol=2e-3, rtol=1e-3)


@FAMILIES
def test_on_every_family_the_last_step_ends_in_the_anchors_low_band(family: TinyPipeline) -> None:
    pipe: Any = family.build()
    if pipe.scheduler.config.get("clip_sample"):
        pipe.scheduler.register_to_config(clip_sample=False)  # what is clipped has another low band
    plain, made = run(pipe, family), run(pipe, family, anchor=1.0)
    pivot, latents = (stage.latents.float() for stage in made.stages)
    assert torch.equal(pivot, plain.stages[0].latents.float())
    planes = pivot.flatten(0, -3)[None]
    enlarged = interpolate(planes, scale_factor=2, mode="bilinear").view(*pivot.shape[:-2], *latents.shape[-2:])
    # The last step returns the x_0 that it predicts, with the little noise that some schedules end with.
    without = plain.stages[1].latents.float()
    away, free = ((block_means(z, 2) - block_means(enlarged, 2)).norm() for z in (latents, without))
    assert away < 0.06 * free
    assert torch.equal(run(pipe, family).stages[1].latents, plain.stages[1].latents)


@pytest.mark.parametrize("lever", ["anchor", "energy"])
def test_at_strength_zero_a_lever_changes_no_bit_and_at_others_the_stage_alone(lever: str) -> None:
    pipe: Any = SD.shared()
    strengths: tuple[dict[str, Any], ...] = ({}, {lever: 0.0}, {lever: 0.5})
    plain, without, made = (run(pipe, SMALL, **strength) for strength in strengths)
    assert torch.equal(plain.images, without.images)
    assert torch.equal(plain.stages[0].latents, made.stages[0].latents)
    assert not torch.equal(plain.stages[1].latents, made.stages[1].latents)
    assert getattr(made.pivot_settings, lever) == 0.5 and getattr(plain.pivot_settings, lever) == 0


def test_levers_beside_a_lora_and_a_controlnet() -> None:
    plain: Any = SD.build()
    controlled: Any = tiny_controlnet(plain)
    pipe: Any = add_tiny_lora(controlled)
    options: dict[str, Any] = {"image": Image.new("RGB", (128, 128), "red")}
    made = run(pipe, SMALL, anchor=0.5, energy=1.0, **options)
    assert made.images.isfinite().all()
    pipe.unet.disable_adapters()
    assert not torch.equal(run(pipe, SMALL, anchor=0.5, energy=1.0, **options).images, made.images)
    modules = list(pipe.unet.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_share_of_the_steps_is_anchored() -> None:
    pipe: Any = SD.build()
    settings: dict[str, Any] = {"num_inference_steps": 10, "pivot_step": 800, "guidance_scale": 1.0}
    seen: list[bool] = []
    original = Anchor.__call__

    def noted(self: Anchor, scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        made = original(self, scheduler, output, timestep, sample)
        seen.append(not torch.equal(made, output))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Anchor, "__call__", noted)
        out = run(pipe, SMALL, anchor=0.25, **settings)
    assert out.stages[1].steps == 8 and seen == [True, True]


def test_an_own_picture_is_anchored_at_the_size_below_its_own() -> None:
    pipe: Any = SD.shared()
    cascade = SelfCascade(pipe, native_size=(64, 64))
    picture = Image.effect_noise((128, 128), 80).convert("RGB")
    settings: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 6, "output_type": "latent"}
    settings |= {"anchor": 1.0, "pivot_step": 900, "return_dict": False}
    first, second = (cascade.upscale(picture, "a house", generator=seeded(seed), **settings)[0] for seed in (0, 1))
    apart = first - second
    assert block_means(apart, 2).norm() < 0.06 * apart.norm()


def test_a_preset_of_ones_own_starts_at_steps_of_equal_signal_to_noise_ratio() -> None:
    pipe: Any = SD.shared()
    own = Preset("own", "for this test", 0.4, 0.2, "rgb", matched=True, step_share=0.5, anchor=0.5, energy=1.0)
    planned = SelfCascade(pipe, native_size=(64, 64)).plan(256, 256, preset=own)
    expected = [matched_step(pipe.scheduler, 400, 4.0), matched_step(pipe.scheduler, 200, 16.0)]
    assert [stage.pivot_step for stage in planned[1:]] == expected
    assert [stage.num_inference_steps for stage in planned] == [50, 25, 25]
    given = SelfCascade(pipe, native_size=(64, 64)).plan(256, 256, num_inference_steps=[9, 8, 7], preset=own)
    assert [stage.num_inference_steps for stage in given] == [9, 8, 7]
    made = run(pipe, SMALL, preset=own, num_inference_steps=8)
    spelled_out: dict[str, Any] = {"pivot_step": expected[0], "upsampling": "rgb", "anchor": 0.5, "energy": 1.0}
    spelled = run(pipe, SMALL, num_inference_steps=[8, 4], **spelled_out)
    assert torch.equal(made.images, spelled.images)


@pytest.mark.parametrize(
    ("name", "spelled_out"),
    [
        ("quality", {"num_inference_steps": [25, 10]}),
        ("fast", {"num_inference_steps": [25, 4], "guidance_scale": [4.0, 1.0]}),
    ],
)
def test_named_presets_are_what_was_measured(name: str, spelled_out: dict[str, Any]) -> None:
    pipe: Any = SD.shared()
    given: dict[str, Any] = {"num_inference_steps": 25, "guidance_scale": 4.0}
    levers = {"pivot_step": 500, "upsampling": "rgb", "anchor": 0.5, "energy": 1.0, "attention": "local"}
    made = run(pipe, SMALL, preset=name, **given)
    assert torch.equal(made.images, run(pipe, SMALL, preset="rgb", **given | levers | spelled_out).images)


@pytest.mark.parametrize(
    ("given", "guidance"),
    [
        ({}, [None, 1.0]),
        ({"guidance_scale": 6.0}, [6.0, 1.0]),
        ({"guidance_scale": 0.0}, [0.0, 0.0]),
        ({"guidance_scale": [6.0, 3.0]}, [6.0, 3.0]),
        ({"stage_negative_prompt": "blur", "guidance_scale": 6.0}, [6.0, 6.0]),
    ],
)
def test_a_preset_leaves_guidance_out_unless_a_call_says_otherwise(given: Any, guidance: list[float | None]) -> None:
    calls: list[int] = []
    pipe: Any = SD.build()
    pipe.unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    out = run(pipe, SMALL, preset="fast", num_inference_steps=8, **given)
    assert [result.stage.guidance_scale for result in out.stages] == guidance
    branches = [2 if scale is None or scale > 1 else 1 for scale in guidance]
    assert calls == [many for result, many in zip(out.stages, branches, strict=True) for _ in range(result.steps)]


def test_a_negative_prompt_that_has_no_effect_above_the_base_is_told_of() -> None:
    pipe: Any = SD.shared()
    words = "preset 'fast' has no guidance above the base, so negative_prompt has no effect there"
    with pytest.warns(UserWarning, match=words) as found:
        run(pipe, SMALL, preset="fast", num_inference_steps=8, negative_prompt="blur")
    assert [Path(one.filename).name for one in found] == ["cascade_runs.py"]
    silent: list[dict[str, Any]] = [{"negative_prompt": None}, {"stage_negative_prompt": "blur"}]
    silent.append({"guidance_scale": [5.0, 5.0]})
    for given in silent:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            run(pipe, SMALL, preset="fast", num_inference_steps=8, **given)


GUIDED_OTHERWISE = TINY["flux"], TINY["qwen-image"], *(one for one in CONTRACT if "LatentConsistency" in one.name)


@pytest.mark.parametrize("family", GUIDED_OTHERWISE, ids=lambda family: family.name)
def test_guidance_that_cannot_be_left_out_stays(family: TinyPipeline) -> None:
    cascade = SelfCascade(family.shared(), native_size=family.native)
    assert not leaves_guidance_out(cascade.family)
    assert cascade.plan(preset="fast")[1].guidance_scale is None


@pytest.mark.parametrize("lever", ["anchor", "energy"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "1", True])
def test_bad_strengths_are_refused_by_name(lever: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{lever} must be a number from 0 to 1"):
        run(SD.shared(), **{lever: value})


def test_a_prediction_of_another_kind_is_refused() -> None:
    scheduler = stage_scheduler(DDIMScheduler(prediction_type="epsilon"), 700)
    scheduler.set_timesteps(5)
    x = randn(1, 4, 8, 8)
    with pytest.raises(ValueError, match="shape"):
        Anchor(x, 4, 4, 1.0, lambda z: z, lambda z: z)(scheduler, x.repeat(1, 2, 1, 1), scheduler.timesteps[0], x)
    pipe: Any = SD.build()
    pipe.scheduler.register_to_config(prediction_type="score")
    with pytest.raises(ValueError, match="prediction_type 'score'"):
        run(pipe, anchor=0.5)
