"""Every method: a picture of the asked size, the pipeline as it was; and each one's own equation."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import Tensor

from cascade_runs import SD, SMALL, sampled, seeded
from selfcascade import METHODS
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.methods.attention_scaling import scaling_attention
from selfcascade.methods.fine_tuned import whole_unet
from tiny import TINY, add_tiny_lora, tiny_controlnet
from tiny.parts import quiet
from tiny.unets import super_resolver, unet_2d

UNET_FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "animatediff", "text-to-video-synthesis")
UNTRAINED = [name for name in METHODS if name not in ("self-cascade-tuned", "full-ft", "lora", "sr")]


@pytest.mark.parametrize("family", UNET_FAMILIES)
def test_each_runs_on_each_u_net_and_leaves_it_as_it_was(family: str) -> None:
    pipe: Any = TINY[family].build()
    side = 2 * TINY[family].native[0] // pipe.vae_scale_factor
    made: dict[str, Tensor] = {}
    for name in UNTRAINED:
        made[name] = sampled(name, pipe, TINY[family])
        assert made[name].shape[-2:] == (side, side) and made[name].isfinite().all(), name
        assert name == "direct" or not torch.equal(made[name], made["direct"]), name
        modules = list(pipe.unet.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules), name
        assert not any("_conv_forward" in vars(module) for module in modules), name
    for name in reversed(UNTRAINED):  # each after the others and itself
        assert torch.equal(sampled(name, pipe, TINY[family]), made[name]), name


def test_each_runs_beside_a_lora_and_a_controlnet() -> None:
    pipe: Any = add_tiny_lora(tiny_controlnet(SD.build()))
    control = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    made = {name: sampled(name, pipe, SMALL, image=control) for name in UNTRAINED}
    assert all(latents.isfinite().all() for latents in made.values())
    pipe.unet.disable_adapters()
    for name, latents in made.items():
        assert not torch.equal(sampled(name, pipe, SMALL, image=control), latents), name


@pytest.mark.parametrize("name", ["attn-sf", "scalecrafter", "hidiffusion"])
def test_the_pipeline_is_as_it_was_after_an_error(name: str) -> None:
    pipe: Any = SD.build()

    def fail(*args: Any) -> dict:
        raise RuntimeError("stop here")

    before = sampled("direct", pipe)
    with pytest.raises(RuntimeError, match="stop here"):
        sampled(name, pipe, callback_on_step_end=fail)
    assert torch.equal(sampled("direct", pipe), before)


def test_a_fine_tuned_u_net_is_lent_for_one_call(tmp_path: Path) -> None:
    pipe, tuned = SD.build(), SD.build()
    for parameter in tuned.unet.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=seeded(5))
    tuned.unet.save_pretrained(tmp_path / "unet")
    before = sampled("direct", pipe)
    assert torch.equal(sampled("full-ft", pipe, weights=str(tmp_path)), sampled("direct", tuned))
    assert torch.equal(sampled("direct", pipe), before)
    base = sampled("direct", pipe, height=SD.native[0], width=SD.native[1])
    inside = sampled("full-ft", pipe, weights=tmp_path, in_cascade=True, pivot_step=700)
    generator = seeded()
    torch.randn(base.shape, generator=generator)  # the base stage's own draw
    assert torch.equal(inside, sampled("self-cascade", tuned, pivot=base, generator=generator, pivot_step=700))
    with pytest.raises(ValueError, match="needs weights"):
        sampled("full-ft", pipe)
    with pytest.raises(ValueError, match="hold no U-Net"):
        sampled("full-ft", pipe, weights=tmp_path / "none")
    unet_2d(block_out_channels=(8, 8, 8, 8)).save_pretrained(tmp_path / "other" / "unet")
    with pytest.raises(ValueError, match="of another U-Net"):
        sampled("full-ft", pipe, weights=tmp_path / "other")
    assert torch.equal(sampled("direct", pipe), before)
    adapted, both = add_tiny_lora(pipe), add_tiny_lora(tuned)
    assert torch.equal(sampled("full-ft", adapted, weights=tmp_path), sampled("direct", both))
    pipe.unet.to("meta")
    with pytest.raises(ValueError, match="not offloaded in parts, not quantised"), whole_unet(pipe, tmp_path):
        pass


def test_stages_with_settings_of_their_own_start_from_the_cascades_base_sample(tmp_path: Path) -> None:
    pipe = SD.build()
    pipe.unet.save_pretrained(tmp_path / "unet")
    side = SMALL.native[0]
    own: dict[str, Any] = {"height": 2 * side, "width": 4 * side + 16, "num_inference_steps": [2, 3, 4]}
    own |= {"pivot_step": [700, 400], "guidance_scale": [2.0, 5.0, 7.5]}
    whole = METHODS["self-cascade"](pipe, SMALL.inputs["prompt"], native_size=SMALL.native, generator=seeded(), **own)
    assert len(whole.stages) == 3
    inside = sampled("full-ft", pipe, SMALL, weights=tmp_path, in_cascade=True, negative_prompt=None, **own)
    assert torch.equal(inside, whole.stages[-1].latents)
    del own["pivot_step"]
    base = METHODS["lanczos"](pipe, SMALL.inputs["prompt"], native_size=SMALL.native, generator=seeded(), **own)
    assert torch.equal(base.stages[0].latents, whole.stages[0].latents)


def test_a_lora_is_lent_beside_those_that_are_active(tmp_path: Path) -> None:
    pipe, bare, both = add_tiny_lora(SD.build()), SD.build(), SD.build()
    settings = pipe.unet.peft_config["default"].to_dict()
    layers = get_peft_model_state_dict(pipe.unet)
    type(pipe).save_lora_weights(tmp_path, unet_lora_layers=layers, unet_lora_adapter_metadata=settings)
    plain = sampled("direct", bare)
    tuned = sampled("lora", bare, weights=tmp_path)
    assert torch.allclose(tuned, sampled("direct", pipe), atol=1e-5)
    assert not torch.allclose(tuned, plain, atol=1e-3)
    assert torch.equal(sampled("direct", bare), plain) and not getattr(bare.unet, "peft_config", None)
    add_tiny_lora(both)
    name = both.get_active_adapters()[0]
    both.set_adapters([name], [0.5])
    half = sampled("direct", both)
    assert not torch.allclose(sampled("lora", both, weights=tmp_path), half, atol=1e-3)
    assert torch.equal(sampled("direct", both), half) and both.get_active_adapters() == [name]
    with pytest.raises(ValueError, match="hold no LoRA"):
        sampled("lora", bare, weights=tmp_path / "none")
    both.unet.disable_adapters()
    alone = sampled("direct", both)
    assert torch.allclose(sampled("lora", both, weights=tmp_path), tuned, atol=1e-5)
    assert torch.equal(sampled("direct", both), alone)


def test_a_lora_that_does_not_fit_and_one_on_the_text_encoder_leave_no_trace(tmp_path: Path) -> None:
    pipe: Any = SD.build()
    other: Any = add_tiny_lora(SD.build())
    layers = get_peft_model_state_dict(other.unet)
    type(other).save_lora_weights(tmp_path / "fits", unet_lora_layers=layers)
    wrong = {name: torch.randn(value.shape[0] + 1, *value.shape[1:]) for name, value in layers.items()}
    type(other).save_lora_weights(tmp_path / "wrong", unet_lora_layers=wrong)
    names = list(pipe.unet.state_dict())
    with pytest.raises(ValueError, match="hold no LoRA for this model"):
        sampled("lora", pipe, weights=tmp_path / "wrong")
    assert list(pipe.unet.state_dict()) == names
    target = LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(3)
    pipe.text_encoder.add_adapter(target, "words")
    before = sampled("direct", pipe)
    assert not torch.equal(sampled("lora", pipe, weights=tmp_path / "fits"), before)
    assert torch.equal(sampled("direct", pipe), before) and "words" in pipe.text_encoder.peft_config


@pytest.mark.parametrize("name", ["scalecrafter", "hidiffusion"])
def test_seamless_convolutions_are_not_overwritten(name: str) -> None:
    pipe: Any = SD.build()
    for module in pipe.unet.modules():
        if isinstance(module, torch.nn.Conv2d):
            module._conv_forward = functools.partial(type(module)._conv_forward, module)
    with pytest.raises(ValueError, match="convolutions are patched"):
        sampled(name, pipe)
    assert all("_conv_forward" in vars(module) for module in pipe.unet.modules() if isinstance(module, torch.nn.Conv2d))
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


@pytest.mark.parametrize("scale", [2, 5])
def test_a_super_resolver_gets_the_base_sample_and_its_picture_the_target_size(scale: int, tmp_path: Path) -> None:
    pipe, resolver = SD.build(), quiet(super_resolver())
    resolver.save_pretrained(tmp_path)
    side = SMALL.native[0]
    generator = seeded()
    own: dict[str, Any] = {"num_inference_steps": 3, "generator": generator}
    base = pipe(**SD.inputs, **own, height=side, width=side, output_type="pt").images * 2 - 1
    low = lanczos(base, Size(scale * side // 4, scale * side // 4)).clamp(-1, 1) if scale > 4 else base
    large = resolver(**SD.inputs, **own, image=low, noise_level=5, output_type="pt").images * 2 - 1
    expected = lanczos(large, Size(scale * side, scale * side)).clamp(-1, 1) / 2 + 0.5
    size = {"height": scale * side, "width": scale * side, "output_type": "pt"}
    pictures = sampled("sr", pipe, SMALL, weights=str(tmp_path), noise_level=5, **size)
    assert torch.allclose(pictures, expected, atol=1e-5)
    again = sampled("sr", pipe, SMALL, weights=resolver, noise_level=9, **size)
    assert again.shape == pictures.shape and not torch.allclose(again, pictures)


def test_a_super_resolver_reads_a_picture_without_dark_pixels_as_it_is() -> None:
    pipe, resolver, side = SD.build(), quiet(super_resolver()), SMALL.native[0]
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(0.1)
        pipe.vae.decoder.conv_out.bias.fill_(0.5)
    own: dict[str, Any] = {"num_inference_steps": 3, "generator": seeded()}
    base = pipe(**SD.inputs, **own, height=side, width=side, output_type="pt").images
    assert base.min() > 0.5
    large = resolver(**SD.inputs, **own, image=base, noise_level=5, output_type="pt").images
    size = {"height": 4 * side, "width": 4 * side, "output_type": "pt"}
    assert torch.allclose(sampled("sr", pipe, SMALL, weights=resolver, noise_level=5, **size), large, atol=1e-5)


def test_a_super_resolver_takes_what_a_cascade_takes(tmp_path: Path) -> None:
    pipe, resolver = SD.build(), quiet(super_resolver())
    resolver.save_pretrained(tmp_path)
    own: dict[str, Any] = {"weights": resolver, "height": 128, "width": 128}
    first = sampled("sr", pipe, SMALL, **own, num_inference_steps=2, guidance_scale=3.0)
    each = sampled("sr", pipe, SMALL, **own, num_inference_steps=[2, 4], guidance_scale=[3.0, 9.0])
    assert torch.equal(each, first)
    folder = sampled("sr", pipe, SMALL, **{**own, "weights": tmp_path}, num_inference_steps=2, guidance_scale=3.0)
    assert torch.equal(folder, first)


@pytest.mark.parametrize("negative", [["blurry", "grey"], None])
def test_a_super_resolver_gets_the_prompt_of_each_of_several_pictures(negative: list[str] | None) -> None:
    pipe, sr = SD.build(), METHODS["sr"]
    own: dict[str, Any] = {"weights": quiet(super_resolver()), "height": 128, "width": 128, "native_size": (64, 64)}
    own |= {"num_inference_steps": 2, "output_type": "pt"}

    def of(prompt: list[str], negative: list[str] | None, **more: Any) -> Any:
        generators = [seeded(number) for number in range(4)]
        return sr(pipe, prompt, negative_prompt=negative, generator=generators, **own, **more)

    two = of(["a house", "a tree"], negative, num_images_per_prompt=2)
    doubled = None if negative is None else [text for text in negative for _ in range(2)]
    four = of(["a house", "a house", "a tree", "a tree"], doubled)
    assert two.images.shape == (4, 3, 128, 128) and torch.equal(two.images, four.images)
    one = sr(pipe, "a house", negative_prompt="blurry", num_images_per_prompt=2, generator=seeded(), **own)
    assert one.images.shape == (2, 3, 128, 128)
    with pytest.raises(ValueError, match="prompt has 3 entries, and there are 4 base samples"):
        of(["a", "b", "c"], None, pivot=four.stages[0].latents)


def test_super_resolution_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    pipe = SD.build()
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="sr needs weights"):
        sampled("sr", pipe)
    with pytest.raises(ValueError, match="are a StableDiffusionPipeline, not a StableDiffusionUpscalePipeline"):
        sampled("sr", pipe, weights=str(tmp_path))
    with pytest.raises(ValueError, match="AnimateDiffPipeline makes video"):
        sampled("sr", TINY["animatediff"].build(), TINY["animatediff"], weights=str(tmp_path))
    with pytest.raises(ValueError, match="needs prompt as text"):
        METHODS["sr"](pipe, None, height=64, width=64, weights=str(tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_attention_logits_are_multiplied_by_the_factor_in_every_kernel(processor: Any) -> None:
    unet = SD.build().unet
    unet.set_attn_processor(processor())
    layer = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    width = layer.to_q.in_features
    x = torch.randn(2, 64, width, generator=seeded())
    # Sixteen tokens in training, 64 now: logits times sqrt(log_16 64).
    factor = math.sqrt(math.log(64) / math.log(16))
    q, k, v = (layer.head_to_batch_dim(part(x)) for part in (layer.to_q, layer.to_k, layer.to_v))
    weights = (factor * layer.scale * q @ k.transpose(1, 2)).softmax(-1)
    expected = layer.to_out[0](layer.batch_to_head_dim(weights @ v))
    with scaling_attention(unet, 4.0):
        assert torch.allclose(layer(x), expected, atol=1e-5)
    assert not torch.allclose(layer(x), expected, atol=1e-5)


def test_at_the_native_size_attention_scaling_changes_nothing() -> None:
    pipe = SD.build()
    size: dict[str, Any] = {"height": SD.native[0], "width": SD.native[1]}
    assert torch.equal(sampled("attn-sf", pipe, **size), sampled("direct", pipe, **size))


def test_attention_scaling_refuses_what_it_cannot_scale() -> None:
    pipe = SD.build()
    pipe.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        sampled("attn-sf", pipe)
    pipe.unfuse_qkv_projections()
    assert torch.equal(sampled("attn-sf", pipe), sampled("attn-sf", SD.build()))
    for compiled in ("whole", "blocks"):
        pipe = SD.build()
        if compiled == "whole":
            pipe.unet.compile()
        else:
            pipe.unet.compile_repeated_blocks()
        with pytest.raises(ValueError, match="not compiled"):
            sampled("attn-sf", pipe)
    transformer = TINY["stable-diffusion-3"].build().transformer
    with pytest.raises(ValueError, match="has no levels; attn-sf needs a U-Net"), scaling_attention(transformer, 4.0):
        pass
