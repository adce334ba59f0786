"""Feature upsamplers: what they read, what they add, and that they change nothing else."""

# pyright: reportPrivateImportUsage=false

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

import selfcascade
from cascade_runs import SD, SMALL, run, seeded, shaken
from selfcascade import FeatureUpsamplers, SelfCascade
from selfcascade.training import TrainingConfig
from selfcascade.upsamplers.base_unet import skip_channels
from selfcascade.upsamplers.levels import FULL_DESIGNS, FullLevel, enlarged
from selfcascade.upsamplers.skip_features import adding_skip_features, read_skip_features
from tiny import TINY, add_tiny_lora, tiny_controlnet
from tiny.parts import TEXT_DIM

UNET_FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "animatediff", "text-to-video-synthesis")
PRESETS = ("micro", "full")


@pytest.fixture
def unet() -> Any:
    return SD.build().unet


def inputs(side: int, batch: int = 2) -> dict[str, Tensor]:
    generator = seeded(1)
    dim = TEXT_DIM
    return {
        "sample": torch.randn(batch, 4, side, side, generator=generator),
        "timestep": torch.tensor([600, 40][:batch]),
        "encoder_hidden_states": torch.randn(batch, 7, dim, generator=generator),
    }


def tuned_run(name: str, upsamplers: FeatureUpsamplers | None, **options: Any) -> Tensor:
    family = TINY[name]
    pipe: Any = family.shared()
    cascade = SelfCascade(pipe, upsamplers, native_size=family.native)
    size = {"height": 2 * family.native[0], "width": 2 * family.native[1]}
    settings = {"num_inference_steps": 4, "output_type": "latent", "preset": "paper", "generator": seeded()}
    return cascade(**{**family.inputs, **settings, **size, **options}).stages[-1].latents


@pytest.mark.parametrize("name", UNET_FAMILIES)
def test_trained_upsamplers_change_the_picture_and_untrained_ones_and_a_scale_of_zero_no_bit(name: str) -> None:
    pipe: Any = TINY[name].shared()
    plain = tuned_run(name, None)
    for preset in PRESETS:
        upsamplers = FeatureUpsamplers.from_unet(pipe.unet, preset)
        assert torch.equal(tuned_run(name, upsamplers), plain), preset
        assert not torch.allclose(tuned_run(name, shaken(upsamplers)), plain, atol=1e-3), preset
        assert torch.equal(tuned_run(name, upsamplers, upsampler_scale=0), plain), preset


@pytest.mark.parametrize("preset", PRESETS)
def test_the_hook_equals_diffusers_own_residual_arguments(unet: Any, preset: str) -> None:
    upsamplers = shaken(FeatureUpsamplers.from_unet(unet, preset))
    given, pivot = inputs(16), torch.randn(2, 4, 8, 8, generator=seeded(2))
    captured: list[tuple] = []

    def keep(module: Any, positional: tuple, named: dict[str, Any]) -> None:
        captured.append((named["res_hidden_states_tuple"], named["temb"]))

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in unet.up_blocks]
    with torch.no_grad():
        unet(**{**given, "sample": pivot, "timestep": torch.tensor(0)})
        clean = [skips for skips, _ in captured]
        captured.clear()
        unet(**given)
        for handle in handles:
            handle.remove()
        residuals = [
            upsamplers(level, clean[level], skips, given["timestep"].float(), temb)
            for level, (skips, temb) in enumerate(captured)
        ]
        flat = [r for level in reversed(residuals) for r in level]
        assert [r.shape for r in flat] == [h.shape for skips, _ in reversed(captured) for h in skips]
        # The mid block's zero residual makes diffusers take the list as ControlNet's.
        middle = torch.zeros_like(unet.mid_block(captured[0][0][-1], captured[0][1], given["encoder_hidden_states"]))
        expected = unet(**given, down_block_additional_residuals=flat, mid_block_additional_residual=middle).sample
        with adding_skip_features(unet, upsamplers, pivot):
            got = unet(**given).sample
        with adding_skip_features(
            unet, upsamplers, read_skip_features(unet, pivot, encoder_hidden_states=given["encoder_hidden_states"])
        ):
            from_features = unet(**given).sample
        plain = unet(**given).sample
    assert torch.equal(got, expected) and torch.equal(from_features, expected)
    assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.parametrize("name", UNET_FAMILIES)
def test_reading_gives_what_a_whole_pass_hands_its_up_blocks(name: str) -> None:
    pipe = TINY[name].build()
    seen: list[tuple[Tensor, ...]] = []
    real: list[tuple[Tensor, dict[str, Any]]] = []

    def keep_call(module: Any, positional: tuple, named: dict[str, Any]) -> None:
        real.append((positional[0] if positional else named["sample"], named))

    handle = pipe.unet.register_forward_pre_hook(keep_call, with_kwargs=True)
    run(pipe, TINY[name])
    handle.remove()
    sample, named = real[0]
    conditions = {key: value for key, value in named.items() if key in ("encoder_hidden_states", "added_cond_kwargs")}
    for block in pipe.unet.up_blocks:
        block.register_forward_pre_hook(
            lambda module, positional, named: seen.append(named["res_hidden_states_tuple"]), with_kwargs=True
        )
    with torch.no_grad():
        pipe.unet(sample, torch.tensor(0), **conditions)
    read = read_skip_features(pipe.unet, sample, **conditions)
    assert len(read.levels) == len(seen)
    for level, expected in zip(read.levels, seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(level, expected, strict=True))
    assert [[h.shape[1] for h in level] for level in read.levels] == skip_channels(pipe.unet)


def test_the_pivot_is_read_once_a_stage_and_never_with_gradient(unet: Any) -> None:
    pipe = SD.build()
    sizes: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda module, positional, result: sizes.append(result.shape[-1]))
    cascade = SelfCascade(pipe, shaken(FeatureUpsamplers.from_unet(pipe.unet)), native_size=SMALL.native)
    out = cascade(**SD.inputs, height=256, width=256, num_inference_steps=5, generator=seeded(), output_type="latent")
    steps = [stage.steps for stage in out.stages]
    side = SMALL.native[0] // pipe.vae_scale_factor
    expected = [side] * steps[0]
    for index in (1, 2):
        # The first step of a stage reads its pivot, before its own encoder runs.
        expected += [side * 2 ** (index - 1)] + [side * 2**index] * steps[index]
    assert sizes == expected
    assert not out.stages[-1].latents.requires_grad


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_reach_the_upsamplers_alone_and_equal_those_of_a_whole_graph(unet: Any, preset: str) -> None:
    upsamplers = shaken(FeatureUpsamplers.from_unet(unet, preset))
    given, pivot = inputs(16), torch.randn(2, 4, 8, 8, generator=seeded(2))
    features = read_skip_features(unet, pivot, encoder_hidden_states=given["encoder_hidden_states"])
    unet.requires_grad_(False)

    def gradients(light: bool, checkpointing: bool = False) -> list[Tensor]:
        upsamplers.zero_grad()
        unet.train()
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        kept: list[bool] = []
        handle = unet.mid_block.register_forward_hook(lambda m, a, r: kept.append(torch.is_grad_enabled()))
        with adding_skip_features(unet, upsamplers, features, gradient=light):
            unet(**given).sample.square().mean().backward()
        handle.remove()
        assert kept == [not light] and torch.is_grad_enabled()
        return [parameter.grad.clone() for parameter in upsamplers.parameters()]  # type: ignore[union-attr]

    whole = gradients(light=False)
    assert all(torch.equal(a, b) for a, b in zip(gradients(light=True), whole, strict=True))
    # Recomputing in another order of sums costs the last bits at most.
    again = gradients(light=True, checkpointing=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(again, whole, strict=True))
    assert any(g.abs().max() > 0 for g in whole)
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_the_u_net_has_no_hooks_left_and_gradient_mode_is_restored_after_an_error(unet: Any) -> None:
    upsamplers = FeatureUpsamplers.from_unet(unet)
    given = inputs(16)
    with pytest.raises(RuntimeError), adding_skip_features(unet, upsamplers, torch.randn(2, 4, 8, 8), gradient=True):
        unet(**{**given, "encoder_hidden_states": torch.randn(2, 7, 3)})
    assert torch.is_grad_enabled()
    for module in unet.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks


def test_ctrl_c_inside_a_training_pass_leaves_gradients_on(unet: Any) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    unet.mid_block.register_forward_hook(interrupt)
    upsamplers, given = FeatureUpsamplers.from_unet(unet), inputs(16)
    features = read_skip_features(unet, given["sample"], encoder_hidden_states=given["encoder_hidden_states"])
    with pytest.raises(KeyboardInterrupt), adding_skip_features(unet, upsamplers, features, gradient=True):
        unet(**given)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("target", [(8, 12), (9, 15), (20, 16)])
def test_any_ratio_and_any_scale(unet: Any, target: tuple[int, int]) -> None:
    given = inputs(16)
    given["sample"] = torch.randn(2, 4, 8 * target[0] // 4, 8 * target[1] // 4, generator=seeded(3))
    for preset in PRESETS:
        upsamplers = shaken(FeatureUpsamplers.from_unet(unet, preset))
        with torch.no_grad(), adding_skip_features(unet, upsamplers, torch.randn(2, 4, *target, generator=seeded(4))):
            assert unet(**given).sample.shape == given["sample"].shape


def test_a_module_is_bilinear_upsampling_of_two_time_conditioned_blocks(unet: Any) -> None:
    level = shaken(FeatureUpsamplers.from_unet(unet, "micro", pivot_step=900, knots=4)).phi[0]
    generator = seeded(5)
    channels = skip_channels(unet)[0]
    u = [torch.randn(1, c, 4, 4, generator=generator) for c in channels]
    h = [torch.randn(1, c, 8, 8, generator=generator) for c in channels]
    got = level(u, h, torch.tensor([450.0]), torch.zeros(1, 1))
    # At t = K/2 a gain lies half-way between the second and the third of four knots.
    gains = level.gains[:, :, :, 1:3].mean(-1)

    def convolve(x: Tensor, kernel: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return sum(
            kernel[i, j] * padded[..., i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3)
        )  # type: ignore[return-value]

    for skip in range(len(channels)):
        a, b, c = (
            gains[kind, skip].repeat_interleave(channels[skip] // gains.shape[2])[None, :, None, None]
            for kind in range(3)
        )
        low = torch.nn.functional.avg_pool2d(h[skip], 2)
        d = u[skip] - low
        x = convolve(d + a * torch.nn.functional.silu(convolve(d, level.kernels[0])), level.kernels[1])
        x, low = (interpolate(part, size=(8, 8), mode="bilinear", align_corners=False) for part in (x, low))
        expected = b * x + c * convolve(h[skip] - low, level.kernels[2])
        assert torch.allclose(got[skip], expected, atol=1e-5)


def test_parameter_counts_on_stable_diffusion_2_1() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        counts = {preset: FeatureUpsamplers.from_unet(unet, preset).num_parameters() for preset in PRESETS}
    assert counts == {"micro": 2412, "full": 103_272_320}


@pytest.mark.parametrize("preset", PRESETS)
def test_saved_and_loaded_they_give_the_same_bits(unet: Any, preset: str, tmp_path: Any) -> None:
    upsamplers = shaken(FeatureUpsamplers.from_unet(unet, preset, pivot_step=850, upsampling="rgb"))
    upsamplers.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    loaded = FeatureUpsamplers.from_pretrained(tmp_path)
    loaded.check_unet(unet)
    assert loaded.config["pivot_step"] == 850 and loaded.config["upsampling"] == "rgb"
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in upsamplers.state_dict().items())


def test_the_adapter_brings_its_own_pivot_step_and_upsampling_unless_told_otherwise() -> None:
    pipe = SD.shared()
    cascade = SelfCascade(pipe, FeatureUpsamplers.from_unet(pipe.unet, pivot_step=850, upsampling="rgb"))
    assert [stage.pivot_step for stage in cascade.plan()] == [None, 850]
    assert [stage.pivot_step for stage in cascade.plan(preset="paper")] == [None, 700]
    assert [stage.pivot_step for stage in cascade.plan(pivot_step=600)] == [None, 600]
    assert [stage.pivot_step for stage in SelfCascade(pipe).plan()] == [None, 500]


def test_another_model_is_refused_in_one_sentence_and_the_same_in_half_precision_is_not(unet: Any) -> None:
    upsamplers = FeatureUpsamplers.from_unet(unet)
    upsamplers.check_unet(SD.build().unet.to(torch.bfloat16))
    other = SD.build()
    with torch.no_grad():
        for parameter in other.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded(1)))
    with pytest.raises(ValueError, match="trained on another model's weights"):
        SelfCascade(other, upsamplers)
    with pytest.raises(ValueError, match="made for a U-Net with skip features of"):
        SelfCascade(TINY["stable-diffusion-xl"].shared(), upsamplers)
    with pytest.raises(ValueError, match="has no skip features"):
        SelfCascade(TINY["stable-diffusion-3"].shared(), upsamplers)
    with pytest.raises(ValueError, match="upsamplers must be FeatureUpsamplers or None, not str"):
        SelfCascade(SD.shared(), "micro")  # type: ignore[arg-type]
    anyones = FeatureUpsamplers.from_config(json.loads(upsamplers.to_json_string()) | {"fingerprint": None})
    SelfCascade(other, anyones)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "tiny"}, "preset must be one of micro, full, not 'tiny'"),
        ({"pivot_step": 0}, "pivot_step must be a training timestep from 1, not 0"),
        ({"pivot_step": True}, "pivot_step must be a training timestep from 1, not True"),
        ({"groups": 0}, "groups must be a positive whole number, not 0"),
        ({"knots": 0}, "knots must be a positive whole number, not 0"),
        ({"upsampling": "bogus"}, "upsampling must be one of latent-bilinear, latent-bicubic, rgb, not 'bogus'"),
        ({"groups": 7}, "groups must divide the skip's channels; 7 does not divide"),
    ],
)
def test_bad_settings(unet: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureUpsamplers.from_unet(unet, **settings)


@pytest.mark.parametrize("scale", ["1", float("nan"), 11, True])
def test_bad_scale(scale: Any) -> None:
    with pytest.raises(ValueError, match="upsampler_scale must be a number from -10 to 10"):
        tuned_run("stable-diffusion", FeatureUpsamplers.from_unet(SD.shared().unet), upsampler_scale=scale)


def test_damaged_weights_are_refused_by_name(unet: Any, tmp_path: Any) -> None:
    upsamplers = FeatureUpsamplers.from_unet(unet)
    upsamplers.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = load_file(path)
    for weights, message in (
        ({name: value for name, value in whole.items() if name != "phi.0.gains"}, "missing keys: phi.0.gains"),
        ({**whole, "phi.9.gains": torch.zeros(1)}, "unexpected keys: phi.9.gains"),
        ({**whole, "phi.0.gains": whole["phi.0.gains"] + torch.nan}, "not finite"),
    ):
        save_file(weights, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            FeatureUpsamplers.from_pretrained(tmp_path)
    path.unlink()
    torch.save(whole, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        FeatureUpsamplers.from_pretrained(tmp_path)


def test_a_lora_on_the_first_convolution_is_looked_through(unet: Any) -> None:
    upsamplers = FeatureUpsamplers.from_unet(unet)
    unet.add_adapter(LoraConfig(r=2, target_modules=["conv_in", "conv1"]))
    upsamplers.check_unet(unet)


def test_in_half_precision_the_upsamplers_run_in_half_precision_and_stay_as_they_are(unet: Any) -> None:
    upsamplers = shaken(FeatureUpsamplers.from_unet(unet, "full"))
    given = {name: x.bfloat16() if x.is_floating_point() else x for name, x in inputs(16).items()}
    pivot = torch.randn(2, 4, 8, 8, generator=seeded(2)).bfloat16()
    seen: list[torch.dtype] = []
    unet.to(torch.bfloat16).up_blocks[0].resnets[0].register_forward_pre_hook(lambda m, a: seen.append(a[0].dtype))
    with torch.no_grad(), adding_skip_features(unet, upsamplers, pivot):
        assert unet(**given).sample.isfinite().all()
    assert upsamplers.dtype == torch.float32 and set(seen) == {torch.bfloat16}


def test_the_full_module_gives_what_the_paper_s_order_of_the_last_two_operations_gives(unet: Any) -> None:
    level = shaken(FeatureUpsamplers.from_unet(unet, "full")).phi[1]
    generator, channels = seeded(6), skip_channels(unet)[1]
    u = [torch.randn(2, c, 4, 6, generator=generator) for c in channels]
    h = [torch.randn(2, c, 8, 12, generator=generator) for c in channels]
    temb = torch.randn(2, unet.time_embedding.linear_2.out_features, generator=generator)
    x = torch.zeros(())
    for join, skip in zip(level.joins, u, strict=True):
        x = x + torch.einsum("oc,bchw->bohw", join.weight[:, :, 0, 0], skip) + join.bias[:, None, None]
    for block in level.blocks:
        x = block(x, temb)
    larger = interpolate(x, size=(8, 12), mode="bilinear", align_corners=False)
    for out, got in zip(level.outs, level(u, h, torch.tensor([5.0, 600.0]), temb), strict=True):
        assert torch.allclose(got, out(larger), atol=1e-5)


def test_a_compiled_u_net_is_refused_before_anything_runs(unet: Any) -> None:
    upsamplers = FeatureUpsamplers.from_unet(unet)
    pipe = SD.build()
    cascade = SelfCascade(pipe, upsamplers)
    pipe.unet.compile()
    with pytest.raises(ValueError, match="compile_repeated_blocks"):
        cascade("a house")
    with pytest.raises(ValueError, match="compile_repeated_blocks"):
        SelfCascade(pipe, upsamplers)
    unet.compile()
    with (
        pytest.raises(ValueError, match="compile_repeated_blocks"),
        adding_skip_features(unet, upsamplers, torch.zeros(1)),
    ):
        pass


def test_they_work_with_lora_and_controlnet() -> None:
    plain = SD.shared()
    upsamplers = shaken(FeatureUpsamplers.from_unet(plain.unet))
    pipes = {"lora": add_tiny_lora(SD.build()), "controlnet": tiny_controlnet(SD.build())}
    image = {"image": torch.rand(1, 3, 64, 64, generator=seeded(7))}
    for name, pipe in pipes.items():
        options = dict(
            SD.inputs,
            height=256,
            width=256,
            num_inference_steps=3,
            output_type="latent",
            preset="paper",
            pivot_step=700,
        ) | (image if name == "controlnet" else {})
        free = SelfCascade(pipe)(**options, generator=seeded()).stages[-1].latents
        zero = SelfCascade(pipe, FeatureUpsamplers.from_unet(plain.unet))(**options, generator=seeded())
        tuned = SelfCascade(pipe, upsamplers)(**options, generator=seeded()).stages[-1].latents
        assert torch.equal(zero.stages[-1].latents, free), name
        assert not torch.allclose(tuned, free, atol=1e-3), name


def test_a_user_s_image_is_read_at_the_size_of_the_stage_before() -> None:
    pipe = SD.build()
    read: list[int] = []
    image = torch.rand(1, 3, 128, 128, generator=seeded(8))
    cascade = SelfCascade(pipe, shaken(FeatureUpsamplers.from_unet(pipe.unet)), native_size=(128, 128))
    pipe.unet.conv_in.register_forward_hook(lambda m, a, r: read.append(r.shape[-1]))
    settings: dict[str, Any] = {"num_inference_steps": 4, "generator": seeded(), "output_type": "latent"}
    out = cascade.upscale(image, "a house", height=256, width=256, **settings)
    latent = 256 // pipe.vae_scale_factor
    assert read == [latent // 2] + [latent] * out.stages[0].steps


def test_the_package_offers_them() -> None:
    assert selfcascade.FeatureUpsamplers is FeatureUpsamplers


def test_later_stages_of_the_tuned_version_start_at_a_lower_k() -> None:
    pipe = SD.shared()
    side = SelfCascade(pipe).native_size[0]
    for trained, expected in ((850, [None, 850, 400]), (300, [None, 300, 300])):
        upsamplers = FeatureUpsamplers.from_unet(pipe.unet, "micro", pivot_step=trained, upsampling="rgb")
        stages = SelfCascade(pipe, upsamplers=upsamplers).plan(4 * side, 4 * side)
        assert [stage.pivot_step for stage in stages] == expected
        own = SelfCascade(pipe, upsamplers=upsamplers).plan(4 * side, 4 * side, pivot_step=600)
        assert [stage.pivot_step for stage in own] == [None, 600, 600]


def test_the_papers_order_of_full_enlarges_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments"))
    designs = importlib.import_module("designs")
    monkeypatch.setitem(FULL_DESIGNS, "full-at-stage", designs.FullAtStage)
    config = TrainingConfig(method="upsamplers", preset="full-at-stage", train_data="scenes", output_dir=str(tmp_path))
    made = FeatureUpsamplers.from_unet(SD.build().unet, config.preset)
    assert {type(level) for level in made.phi} == {designs.FullAtStage}
    tried = designs.FullAtStage([8, 8], 12)
    level = FullLevel([8, 8], 12)
    with torch.no_grad():
        for parameter in level.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded()))
    tried.load_state_dict(level.state_dict())
    pivot = list(torch.randn(2, 2, 8, 4, 4, generator=seeded(1)))
    temb, timestep = torch.randn(2, 12, generator=seeded(2)), torch.tensor([5, 9])
    for same, other in zip(tried(pivot, pivot, timestep, temb), level(pivot, pivot, timestep, temb), strict=True):
        torch.testing.assert_close(same, other)  # nothing is enlarged
    own = [torch.zeros(2, 8, 8, 8)] * 2
    first = level([enlarged(one, own[0]) for one in pivot], own, timestep, temb)
    for found, expected in zip(tried(pivot, own, timestep, temb), first, strict=True):
        torch.testing.assert_close(found, expected)
    assert not torch.allclose(first[0], level(pivot, own, timestep, temb)[0], atol=1e-2)
