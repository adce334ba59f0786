"""Low-rank weights of feature upsamplers: the decoder is that of weights W + scale U D, and nothing else changes."""

# pyright: reportPrivateImportUsage=false

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from cascade_runs import SD, seeded
from selfcascade import FeatureUpsamplers, SelfCascade, load_bundled
from selfcascade.training.checkpoints import list_checkpoints
from selfcascade.upsamplers.low_rank import TARGETS, Layer, adding_low_rank, decoder_layers
from selfcascade.upsamplers.of_checkpoint import upsamplers_in
from selfcascade.upsamplers.skip_features import adding_skip_features, low_rank, read_skip_features
from tiny import TINY, add_tiny_lora
from tiny.parts import TEXT_DIM
from training_runs import equal, trained, weights

UNET_FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "animatediff", "text-to-video-synthesis")
RANK = 2


def made_for(unet: Any, size: float = 0.3, **settings: Any) -> FeatureUpsamplers:
    """Upsamplers that add nothing to skips, with random low-rank weights."""
    made = FeatureUpsamplers.from_unet(unet, decoder_rank=RANK, **settings)
    generator = seeded()
    with torch.no_grad():
        for own in made.low_rank:
            own.up.copy_(size * torch.randn(own.up.shape, generator=generator))
            own.down.copy_(torch.randn(own.down.shape, generator=generator) / own.down[0].numel() ** 0.5)
    return made


def product(own: Any) -> Tensor:
    """U D as a weight of the layer."""
    return torch.einsum("or,r...->o...", own.up.flatten(1), own.down)


def merged(unet: Any, made: FeatureUpsamplers, scale: float = 1.0) -> Any:
    """A copy of the U-Net with the weights W + scale U D."""
    other = copy.deepcopy(unet)
    with torch.no_grad():
        for layer, own in zip(made.config["decoder_layers"], made.low_rank, strict=True):
            module = other.get_submodule(layer[0])
            getattr(module, "base_layer", module).weight.add_(scale * product(own))
    return other


def inputs(side: int = 16) -> dict[str, Tensor]:
    generator = seeded(1)
    return {
        "sample": torch.randn(2, 4, side, side, generator=generator),
        "timestep": torch.tensor([600, 40]),
        "encoder_hidden_states": torch.randn(2, 7, TEXT_DIM, generator=generator),
    }


def latents(name: str, pipe: Any, upsamplers: FeatureUpsamplers | None, **options: Any) -> list[Tensor]:
    family = TINY[name]
    size = {"height": 2 * family.native[0], "width": 2 * family.native[1]}
    settings = {"num_inference_steps": 4, "output_type": "latent", "preset": "paper", "generator": seeded()}
    out = SelfCascade(pipe, upsamplers, native_size=family.native)(**{**family.inputs, **settings, **size, **options})
    return [stage.latents for stage in out.stages]


@pytest.mark.parametrize("name", UNET_FAMILIES)
def test_a_stage_has_the_decoder_with_merged_weights_and_the_base_its_own(name: str) -> None:
    pipe: Any = TINY[name].build()
    plain, made = latents(name, pipe, None), made_for(pipe.unet)
    untrained = FeatureUpsamplers.from_unet(pipe.unet, decoder_rank=RANK)
    assert torch.equal(latents(name, pipe, untrained)[-1], plain[-1])
    tuned, half = latents(name, pipe, made), latents(name, pipe, made, upsampler_scale=0.5)
    pivot = plain[0]
    assert torch.equal(tuned[0], pivot) and torch.equal(half[0], pivot)
    unet = pipe.unet
    for found, scale in ((tuned, 1.0), (half, 0.5)):
        calls: list[bool] = []
        other = merged(unet, made, scale)

        def forward(*given: Any, own: Any = other, calls: list[bool] = calls, **named: Any) -> Any:
            sample = named.get("sample", given[0] if given else None)
            large = sample.shape[-1] > pivot.shape[-1]
            calls.append(large)
            return own(*given, **named) if large else type(unet).forward(unet, *given, **named)

        unet.forward = forward
        expected = latents(name, pipe, None)
        del unet.forward
        assert {True, False} == set(calls)
        assert not torch.allclose(expected[-1], plain[-1], atol=1e-2)
        assert torch.allclose(found[-1], expected[-1], atol=2e-4)


def test_all_layers_of_the_decoder_have_them_and_none_before_it() -> None:
    unet = SD.build().unet
    names = {layer.name for layer in decoder_layers(unet)}
    expected = set[str]()
    for name, module in unet.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or not name.startswith(("up_blocks", "conv_out")):
            continue
        if "time_emb_proj" not in name and "upsamplers" not in name:
            expected.add(name)
    assert names == expected and "conv_out" in names
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        made = FeatureUpsamplers.from_unet(unet, decoder_rank=RANK)
    count = sum(own.up.numel() + own.down.numel() for own in made.low_rank)
    assert made.num_parameters() == 2_412 + count == 1_150_964
    assert FeatureUpsamplers.from_unet(load_bundled().unet, decoder_rank=RANK).num_parameters() == 100_116
    assert count == RANK * sum(i * max(k, 1) ** 2 + o for _, i, o, k in decoder_layers(unet))


def test_the_modules_are_as_before_also_after_an_error_and_other_forwards_are_kept() -> None:
    unet = SD.build().unet
    made, given = made_for(unet), inputs()
    own = unet.conv_out.forward
    unet.conv_out.forward = lambda x: 2 * own(x)
    before = {name: vars(module).get("forward") for name, module in unet.named_modules()}
    with torch.no_grad():
        plain = unet(**given).sample
        with adding_skip_features(unet, made, torch.randn(2, 4, 8, 8, generator=seeded(2))):
            changed = unet(**given).sample
        with pytest.raises(RuntimeError), low_rank(unet, made):
            unet(**{**given, "encoder_hidden_states": torch.randn(2, 7, 3)})
        after = unet(**given).sample
    assert {name: vars(module).get("forward") for name, module in unet.named_modules()} == before
    assert torch.equal(plain, after) and not torch.allclose(plain, changed, atol=1e-2)


def test_a_lora_on_the_same_layers_adds_to_them() -> None:
    pipe = add_tiny_lora(SD.build())
    made, given = made_for(pipe.unet), inputs()
    assert any(hasattr(pipe.unet.get_submodule(layer[0]), "base_layer") for layer in made.config["decoder_layers"])
    with torch.no_grad():
        expected = merged(pipe.unet, made)(**given).sample
        with low_rank(pipe.unet, made):
            got = pipe.unet(**given).sample
    assert torch.allclose(got, expected, atol=1e-4)


def test_gradients_are_those_of_merged_weights_also_with_checkpointing() -> None:
    unet = SD.build().unet.requires_grad_(False)
    made, given = made_for(unet), inputs()
    layers = [Layer(*layer) for layer in made.config["decoder_layers"]]
    features = read_skip_features(
        unet, torch.randn(2, 4, 8, 8, generator=seeded(2)), encoder_hidden_states=given["encoder_hidden_states"]
    )

    def gradients(loss: Callable[[], Tensor]) -> list[Tensor]:
        made.zero_grad()
        loss().square().mean().backward()
        return [weight.grad.clone() for own in made.low_rank for weight in (own.down, own.up)]

    def functional() -> Tensor:
        pairs = zip(layers, made.low_rank, strict=True)
        own = {f"{layer.name}.weight": unet.get_submodule(layer.name).weight + product(one) for layer, one in pairs}
        return torch.func.functional_call(unet, own, (), given).sample

    def passed() -> Tensor:
        with adding_skip_features(unet, made, features, gradient=True):
            return unet(**given).sample

    expected = gradients(functional)
    for checkpointing in (False, True):
        unet.train()
        (unet.enable_gradient_checkpointing if checkpointing else unet.disable_gradient_checkpointing)()
        with low_rank(unet, made):
            found = gradients(passed)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_changes_them_and_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, checkpointing: bool
) -> None:
    options = {"decoder_rank": RANK, "decoder_learning_rate": 1e-2, "learning_rate": 1e-3, "use_ema": True}
    options["gradient_checkpointing"] = checkpointing
    whole = trained(tmp_path / "whole", **options)
    groups = whole.optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-2]
    assert sum(len(group["params"]) for group in groups) == len(whole.trained)
    start = FeatureUpsamplers.from_unet(whole.pipe.unet, decoder_rank=RANK)
    ups = [name for name in whole.trained if name.startswith("low_rank.") and name.endswith(".up")]
    assert len(ups) == len(start.low_rank) and all(whole.trained[name].abs().max() > 0 for name in ups)
    folder = tmp_path / "cut"
    trained(folder, stop_after=3, **options)
    in_between = upsamplers_in(list_checkpoints(folder)[-1])
    assert in_between.config["decoder_rank"] == RANK and len(in_between.low_rank) == len(ups)
    resumed = trained(folder, resume_from_checkpoint="latest", **options)
    assert equal(weights(resumed), weights(whole))
    loaded = FeatureUpsamplers.from_pretrained(tmp_path / "whole")
    with whole.state.averaged():
        assert equal(dict(loaded.state_dict()), weights(whole))


def test_blocks_that_were_compiled_and_have_run_before_get_them_too() -> None:
    unet = SD.build().unet
    made, given = made_for(unet), inputs()
    with torch.no_grad():
        with low_rank(unet, made):
            expected = unet(**given).sample
        unet.compile_repeated_blocks(backend="eager")
        plain = unet(**given).sample
        with low_rank(unet, made):
            got = unet(**given).sample
        again = unet(**given).sample
    assert torch.allclose(got, expected, atol=1e-5) and not torch.allclose(got, plain, atol=1e-2)
    assert torch.allclose(again, plain, atol=1e-6)


def test_half_precision_has_half_precision_weights() -> None:
    unet = SD.build().unet.to(torch.bfloat16)
    made, given = made_for(unet), {name: value.to(torch.bfloat16) for name, value in inputs().items()}
    given["timestep"] = torch.tensor([600, 40])
    with torch.no_grad(), adding_skip_features(unet, made, given["sample"]):
        got = unet(**given).sample
    with torch.no_grad():
        expected = merged(unet.float(), made)(
            **{k: v.float() if v.is_floating_point() else v for k, v in given.items()}
        )
    assert got.dtype == torch.bfloat16 and made.dtype == torch.float32
    assert torch.allclose(got.float(), expected.sample, atol=0.1)


def test_a_u_net_without_these_layers_is_refused_in_one_sentence() -> None:
    unet = SD.build().unet
    made = made_for(unet)
    wrong = [*made.config["decoder_layers"][:-1], ["conv_out", 8, 8, 3]]
    config = {name: value for name, value in made.config.items() if not name.startswith("_")}
    other = FeatureUpsamplers(**{**config, "decoder_layers": wrong})
    with pytest.raises(
        ValueError, match=r"low-rank weights for conv_out, 8 to 8 channels, which this UNet2DCond\w+ does"
    ):
        other.check_unet(unet)
    unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"projections that are fused in up_blocks\.\S+; call unfuse_qkv_projections"):
        made.check_unet(unet)
    unet.unfuse_qkv_projections()
    made.check_unet(unet)
    for rank in (-1, True, 1.5, 3):
        with pytest.raises(ValueError, match="decoder_rank must be"):
            FeatureUpsamplers(levels=[[8]], time_channels=8, groups=1, decoder_rank=rank)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "layer", ["conv_out", ["conv_out", 8, 4], ["conv_out", 8, 4, -1], [1, 8, 4, 3], ["a", True, 4, 3]]
)
def test_a_damaged_list_of_layers_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match="decoder_layers must be lists of a name, inputs, outputs and kernel, not"):
        FeatureUpsamplers(levels=[[8]], time_channels=8, groups=1, decoder_rank=2, decoder_layers=[layer])


def test_no_layer_along_the_frames_of_clips_is_a_target() -> None:
    for name in ("animatediff", "text-to-video-synthesis"):
        unet = TINY[name].build().unet
        found = [layer.name for layer in decoder_layers(unet)]
        assert found and not [one for one in found if "motion_modules" in one or "temp_" in one]
        assert all(TARGETS.fullmatch(one) for one in found)


def test_several_networks_at_once_keep_their_own() -> None:
    one, two = SD.build().unet, SD.build().unet
    given = inputs()
    made = made_for(one)
    with torch.no_grad(), adding_low_rank(one, made.config["decoder_layers"], list(made.low_rank)):
        first, second = one(**given).sample, two(**given).sample
    with torch.no_grad():
        assert torch.equal(second, two(**given).sample) and not torch.allclose(first, second, atol=1e-2)
