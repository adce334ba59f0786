"""The direct methods' own equations, each against a plain re-statement: ScaleCrafter, HiDiffusion; and restart-late."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate
from transformers import CLIPConfig, CLIPImageProcessor

from cascade_runs import QUICK, SD, seeded
from selfcascade import METHODS, SelfCascade
from selfcascade.base_models.stage_scheduler import matched_step
from selfcascade.methods.hidiffusion import attending_in_windows
from selfcascade.methods.scalecrafter import (
    Factor,
    default_share,
    dispersed,
    dispersion,
    level_factor,
    redilated_convolution,
    redilating,
)
from selfcascade.methods.unet_layers import convolution_levels, spatial_attention
from tiny import TINY


def spread_kernel(kernel: Tensor, by: int) -> Tensor:
    """A kernel with by - 1 zeros between its taps."""
    side = by * (kernel.shape[-1] - 1) + 1
    wide = torch.zeros(*kernel.shape[:-2], side, side)
    wide[..., ::by, ::by] = kernel
    return wide


@pytest.mark.parametrize("stride", [1, 2])
def test_a_whole_dilation_is_a_kernel_with_zeros_between_its_taps(stride: int) -> None:
    module = nn.Conv2d(3, 5, 3, stride, 1)
    x = torch.randn(2, 3, 16, 12, generator=seeded())
    made = redilated_convolution(module, x, module.weight, module.bias, Factor(2.0, 2.0))
    expected = conv2d(x, spread_kernel(module.weight, 2), module.bias, stride, 2)
    torch.testing.assert_close(made, expected)
    assert torch.equal(redilated_convolution(module, x, module.weight, module.bias, Factor(1.0, 1.0)), module(x))


def test_a_dilation_between_whole_numbers_resizes_the_features_around_the_next_one() -> None:
    module = nn.Conv2d(3, 5, 3, 1, 1)
    x = torch.randn(2, 3, 16, 16, generator=seeded())
    larger = interpolate(x, scale_factor=2 / 1.6, mode="bilinear", align_corners=False)
    expected = interpolate(
        conv2d(larger, spread_kernel(module.weight, 2), module.bias, 1, 2), (16, 16), mode="bilinear"
    )
    made = redilated_convolution(module, x, module.weight, module.bias, Factor(1.6, 1.6))
    torch.testing.assert_close(made, expected)
    tall = redilated_convolution(module, x, module.weight, module.bias, Factor(2.0, 1.0))
    wide = torch.zeros(5, 3, 5, 3)
    wide[:, :, ::2] = module.weight
    torch.testing.assert_close(tall, conv2d(x, wide, module.bias, 1, (2, 1)))


def objective(transform: Tensor, pixel_weight: float) -> float:
    """Of convolution dispersion, on random maps and kernels, away from the borders."""
    generator, total = seeded(3), 0.0
    for _ in range(64):
        h = torch.randn(1, 1, 16, 16, generator=generator, dtype=torch.float64)
        kernel = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        wide = (transform @ kernel.flatten()).view(1, 1, 5, 5)
        done = conv2d(h, kernel[None, None], padding=1)
        larger = interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        wanted = interpolate(done, scale_factor=2, mode="bilinear", align_corners=False)
        structure = (conv2d(larger, wide, padding=2) - wanted)[..., 8:-8, 8:-8].square().sum()
        pixel = (conv2d(h, wide, padding=2) - done)[..., 4:-4, 4:-4].square().sum()
        # Inside, a map of twice the side has four times the positions: weigh both sums by position of the map.
        total += float(structure / 16**2 * 64 + pixel_weight * pixel)
    return total


def test_dispersion_is_the_least_squares_solution_and_lies_between_its_two_limits() -> None:
    units = torch.eye(9, dtype=torch.float64).view(9, 3, 3)
    dilated = spread_kernel(units, 2).double().flatten(1).T
    padded = nn.functional.pad(units, (1, 1, 1, 1)).flatten(1).T
    torch.testing.assert_close(dispersion(1e-9), dilated, atol=1e-5, rtol=0)
    torch.testing.assert_close(dispersion(1e6), padded, atol=1e-4, rtol=0)
    found = dispersion(0.05)
    best = objective(found, 0.05)
    assert best < min(objective(dilated, 0.05), objective(padded, 0.05))
    kernel = torch.randn(4, 2, 3, 3, generator=seeded())
    assert dispersed(kernel).shape == (4, 2, 5, 5)
    torch.testing.assert_close(dispersed(kernel)[1, 1].flatten(), found.float() @ kernel[1, 1].flatten())


def test_levels_shares_and_factors_are_those_of_the_paper_for_stable_diffusion() -> None:
    assert [default_share(2), round(default_share(4), 2)] == [0.4, 0.74]
    assert [level_factor(Factor(2, 2), level, 4) for level in range(4)] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert [level_factor(Factor(4, 2), level, 4) for level in range(4)] == [(1, 1), (2, 2), (3, 2), (4, 2)]
    unet = SD.shared().unet
    found = convolution_levels(unet, "scalecrafter")
    names = {module: name for name, module in unet.named_modules()}
    last = len(unet.down_blocks) - 1
    assert {names[module] for module in found} == {
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name not in ("conv_in", "conv_out")
    }
    assert found[unet.down_blocks[0].resnets[0].conv1] == found[unet.up_blocks[-1].resnets[0].conv1] == 0
    assert found[unet.mid_block.resnets[0].conv1] == found[unet.up_blocks[0].resnets[0].conv2] == last


def widened(unet: Any, outer: bool) -> Any:
    """A copy of a U-Net re-dilated for four times a side at the highest t, made of ordinary modules."""
    made = copy.deepcopy(unet)
    levels = len(made.down_blocks)
    for module, level in convolution_levels(made, "test").items():
        if level == 0:
            module.dilation = module.padding = (2, 2) if outer else (1, 1)
            continue
        factor = level_factor(Factor(4, 4), level, levels).height
        if factor <= 2:
            module.dilation = module.padding = (2, 2)
        else:
            module.weight = nn.Parameter(dispersed(module.weight.detach()))
            module.dilation, module.padding = (2, 2), (4, 4)
            if factor == 3:  # 1.5 after dispersion: features are resized by 2 / 1.5 around it
                module.forward = functools.partial(resized, module)
    return made


def resized(module: Any, x: Tensor) -> Tensor:
    size = [round(side * 4 / 3) for side in x.shape[-2:]]
    out = [side // module.stride[0] for side in x.shape[-2:]]
    return interpolate(nn.Conv2d.forward(module, interpolate(x, size, mode="bilinear")), out, mode="bilinear")


@torch.no_grad()
def test_guidance_is_noise_damped_at_four_times_a_side() -> None:
    pipe: Any = SD.shared()
    x = torch.randn(2, 4, 32, 32, generator=seeded())
    words = torch.randn(2, 6, pipe.unet.config.cross_attention_dim, generator=seeded(1))
    pipe._guidance_scale = 5.0
    x = x[:, : pipe.unet.config.in_channels]
    x[1] = x[0]
    before = pipe.unet(x, 999, words).sample
    with redilating(pipe, Factor(4.0, 4.0), 0.5):
        blind, prompted = pipe.unet(x, 999, words).sample
        late = pipe.unet(x, 100, words, return_dict=False)[0]
    strong = widened(pipe.unet, outer=False)(x, 999, words).sample
    wide = widened(pipe.unet, outer=True)(x, 999, words).sample
    torch.testing.assert_close(blind, strong[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prompted, strong[0] + wide[1] - wide[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(late, pipe.unet(x, 100, words).sample)
    assert torch.equal(pipe.unet(x, 999, words).sample, before)
    assert not any("_conv_forward" in vars(module) for module in pipe.unet.modules())


@torch.no_grad()
def test_damped_guidance_keeps_the_branches_of_perturbed_attention_apart() -> None:
    pipe: Any = SD.build()
    x = torch.randn(1, 4, 32, 32, generator=seeded())[:, : pipe.unet.config.in_channels].repeat(6, 1, 1, 1)
    x[1::2] *= 0.5  # two pictures: [u, u', c, c', p, p']
    words = torch.randn(6, 6, pipe.unet.config.cross_attention_dim, generator=seeded(1))
    pipe._guidance_scale = 5.0
    vars(pipe)["do_perturbed_attention_guidance"] = True
    with redilating(pipe, Factor(4.0, 4.0), 0.5):
        damped = pipe.unet(x, 999, words).sample
    strong = widened(pipe.unet, outer=False)(x, 999, words).sample[:2]
    blind, *prompted = widened(pipe.unet, outer=True)(x, 999, words).sample.chunk(3)
    expected = torch.cat([strong, *(strong + branch - blind for branch in prompted)])
    torch.testing.assert_close(damped, expected, atol=1e-4, rtol=1e-4)


def test_scalecrafter_refuses_what_it_cannot_dilate() -> None:
    pipe: Any = SD.build()
    sized = {"height": 256, "width": 256, "native_size": SD.native}
    with pytest.raises(ValueError, match="dilated_share must be a number from 0 to 1, not 2"):
        METHODS["scalecrafter"](pipe, "a", dilated_share=2, **sized)
    pipe.unet.compile()
    for name in ("scalecrafter", "hidiffusion"):
        with pytest.raises(ValueError, match="not compiled"):
            METHODS[name](pipe, "a", **sized)


def test_hidiffusion_gives_the_deep_levels_the_trained_size_early_and_the_whole_one_late() -> None:
    pipe: Any = SD.shared()
    seen: list[tuple[int, int]] = []
    hook = pipe.unet.mid_block.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape[-2:])))
    sized = {"height": 2 * SD.native[0], "width": 2 * SD.native[1], "native_size": SD.native}
    METHODS["direct"](pipe, "a", height=SD.native[0], width=SD.native[1], native_size=SD.native, num_inference_steps=1)
    METHODS["hidiffusion"](pipe, "a", num_inference_steps=5, generator=seeded(), **sized)
    hook.remove()
    native = seen[0]
    double = (2 * native[0], 2 * native[1])
    assert seen[1:] == [native] * 2 + [double] * 3  # t = 800 and 600 lie in the top 0.4


@torch.no_grad()
def test_windowed_attention_is_attention_in_each_shifted_window() -> None:
    pipe: Any = SD.shared()
    layers = spatial_attention(pipe.unet, "test")
    layer = min(layers, key=lambda one: layers[one])
    side, width = 16, layer.to_q.in_features
    tokens = torch.randn(2, side * side, width, generator=seeded())
    x = torch.randn(1, pipe.unet.config.in_channels, side, side)
    words = torch.randn(1, 6, pipe.unet.config.cross_attention_dim)
    with attending_in_windows(pipe, 2.0):
        for step, timestep in enumerate((900, 800, 700)):
            pipe.unet(x, timestep, words)
            made = layer(tokens).unflatten(1, (side, side))
            grid = tokens.unflatten(1, (side, side)).roll((-2 * step, -2 * step), (1, 2))
            expected = torch.zeros_like(grid)
            for top in (0, side // 2):
                for left in (0, side // 2):
                    rows, columns = slice(top, top + side // 2), slice(left, left + side // 2)
                    window = grid[:, rows, columns].flatten(1, 2)
                    whole = type(layer).forward(layer, window)
                    expected[:, rows, columns] = whole.unflatten(1, (side // 2, side // 2))
            torch.testing.assert_close(made, expected.roll((2 * step, 2 * step), (1, 2)), atol=1e-5, rtol=1e-4)


def test_a_step_is_carried_to_a_larger_size_at_the_same_signal_to_noise_ratio_times_the_pixels() -> None:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    abar = scheduler.alphas_cumprod
    found = matched_step(scheduler, 200, 4.0)
    assert found > 200
    assert float(abar[found] / (1 - abar[found])) == pytest.approx(float(abar[200] / (1 - abar[200])) / 4, rel=0.02)
    assert matched_step(scheduler, 200, 1.0) == 200
    flow = matched_step(FlowMatchEulerDiscreteScheduler(), 200, 4.0) / 1000
    assert ((1 - flow) / flow) ** 2 == pytest.approx(0.8**2 / 0.2**2 / 4, rel=0.01)


def test_restart_late_is_the_cascade_with_its_settings_and_takes_others() -> None:
    pipe: Any = SD.shared()
    sized = {"height": 2 * SD.native[0], "width": 2 * SD.native[1]}
    settings: dict[str, Any] = {"num_inference_steps": 10, "output_type": "latent", **sized}
    made = METHODS["restart-late"](pipe, "a", generator=seeded(), native_size=SD.native, **settings)
    assert [stage.steps for stage in made.stages] == [10, 2]  # a fifth
    cascade = SelfCascade(pipe, native_size=SD.native)
    same: Any = cascade("a", generator=seeded(), preset="paper", pivot_step=200, upsampling="rgb", **settings)
    assert torch.equal(made.images, same.images) and made.pivot_settings is not None
    assert made.pivot_settings.upsampling == "rgb"
    other = METHODS["restart-late"](pipe, "a", generator=seeded(), native_size=SD.native, pivot_step=700, **settings)
    assert other.stages[1].pivot_step == 700


def test_lanczos_is_the_base_sample_enlarged() -> None:
    pipe: Any = SD.shared()
    settings: dict[str, Any] = {"num_inference_steps": 2, "native_size": SD.native}
    small = METHODS["direct"](pipe, "a", height=128, width=128, generator=seeded(), **settings).images[0]
    made = METHODS["lanczos"](pipe, "a", height=256, width=256, generator=seeded(), **settings)
    expected = small.resize((256, 256), Image.Resampling.LANCZOS)
    assert made.images[0].size == (256, 256) and len(made.stages) == 1
    assert np.abs(np.asarray(made.images[0], float) - np.asarray(expected, float)).mean() < 1.0


def with_safety_checker(pipe: Any, flags: bool) -> Any:
    """The pipeline with diffusers' own checker, small, whose thresholds nothing or everything passes."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(checker, name).data.fill_(-2.0 if flags else 2.0)
    sides = {"height": 32, "width": 32}
    extractor = CLIPImageProcessor(size=sides, crop_size=sides)
    return type(pipe)(**{**pipe.components, "safety_checker": checker, "feature_extractor": extractor})


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("method", ["direct", "lanczos", "self-cascade"])
def test_the_safety_checker_sees_the_pictures_of_each_method(method: str, flags: bool) -> None:
    given: dict[str, Any] = {
        "height": 128,
        "width": 128,
        "num_inference_steps": 2,
        "native_size": QUICK.native,
        "output_type": "np",
    }
    plain = METHODS[method](QUICK.build(), "a house", generator=seeded(), **given)
    out = METHODS[method](with_safety_checker(QUICK.build(), flags), "a house", generator=seeded(), **given)
    assert plain.nsfw_content_detected is None and out.nsfw_content_detected == [flags]
    assert np.array_equal(out.images, np.zeros_like(plain.images) if flags else plain.images)


def test_an_enlarged_picture_has_the_watermark_of_the_pipeline() -> None:
    class Inverted:
        """A watermark that shows."""

        def apply_watermark(self, pixels: Tensor) -> Tensor:
            return -pixels

    pipe = TINY["stable-diffusion-xl"].build()
    given: dict[str, Any] = {"height": 128, "width": 128, "num_inference_steps": 2, "output_type": "np"}
    plain = METHODS["lanczos"](pipe, "a house", generator=seeded(), **given).images
    pipe.watermark = Inverted()
    marked = METHODS["lanczos"](pipe, "a house", generator=seeded(), **given).images
    assert np.allclose(marked, 1 - plain, atol=1e-6)
