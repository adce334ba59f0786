"""What is counted on the meta device is what the real networks do, and a plan's cost is made of it."""

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from selfcascade import SelfCascade
from selfcascade.base_models import family_of
from selfcascade.base_models.borrowing import hooks_in_place
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample
from selfcascade.base_models.request import Request
from selfcascade.base_models.stage_attention import attending_locally
from selfcascade.cascade import Size, Stage
from selfcascade.cost import timing
from selfcascade.cost.coding import PictureCoders as Coders
from selfcascade.cost.forward import ForwardCost, LiveBytes, MeasuredNetwork, count, unet_cost, unet_forward, vae_decode
from selfcascade.cost.plan import estimate, scheduled_steps, unet_tflops
from selfcascade.cost.steps import Kind, StepCosts
from selfcascade.cost.workspace import workspace_of
from tiny import TINY

KNOWN = ("stable-diffusion", "stable-diffusion-xl")
MIB = 2**20


def floats(mebibytes: float) -> Tensor:
    return torch.empty(int(mebibytes * MIB / 4), device="meta")


def base_stage(side: int = 128, **changes: Any) -> Stage:
    return dataclasses.replace(Stage(0, 1, Size(side, side), 10), **changes)


def tail(**changes: Any) -> Stage:
    return base_stage(index=1, count=2, pivot_step=700, **changes)


def tflops(pipe: Any, stage: Stage, **options: Any) -> float:
    (cost,) = estimate(pipe, [stage], **options)
    assert cost.tflops is not None
    return cost.tflops


@functools.cache
def denoised(name: str, side: int) -> ForwardCost:
    """A pass of the whole U-Net with guidance on the CPU, counted on a network of its own."""
    pipe: Any = TINY[name].shared()
    with torch.device("meta"):
        unet = type(pipe.unet).from_config(pipe.unet.config)
    return count(unet, unet_forward(), (2, side, side), workspace_of(torch.device("cpu")))


@pytest.mark.parametrize(("name", "shape"), [*zip(KNOWN, [(1, 16, 16), (2, 24, 16)], strict=True)])
def test_flops_on_meta_are_those_of_the_real_unet(name: str, shape: tuple[int, int, int]) -> None:
    unet = TINY[name].shared().unet
    # Spelled out, attention is two matrix products; the counter does not know the CPU's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet_forward()(unet, shape)
    batch, height, width = shape
    assert unet_cost(unet.config, height, width, batch).flops == counter.get_total_flops() > 0
    assert unet_tflops(unet.config, height, width, batch) == counter.get_total_flops() / 1e12


def test_a_clip_is_decoded_a_few_frames_at_a_time() -> None:
    pipe: Any = TINY["animatediff"].shared()
    pieces = Coders(pipe, pipe.vae, 1, 10, tiled=False)._pieces(Size(512, 512), 10, 4)
    assert pieces == {(4, 64, 64): 2, (2, 64, 64): 1}
    two, four = (estimate(pipe, [base_stage(64)], frames=frames)[0] for frames in (2, 4))
    assert two.tflops is not None and four.tflops is not None
    assert 1.9 < four.tflops / two.tflops < 2.2
    assert four.peak_bytes is not None and four.seconds is not None
    for frames in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="frames must be a positive whole number"):
            estimate(pipe, [base_stage(64)], frames=frames)  # type: ignore[arg-type]


def test_attention_is_four_n_n_c_a_layer() -> None:
    config = TINY["stable-diffusion"].shared().unet.config
    cost = unet_cost(config, 32, 32)
    # (tokens, channels, transformer blocks) of each resolution; all attend to themselves and to 77 tokens of text.
    levels = ((256, 8, 1 + 2), (16, 16, 1))
    assert cost.attention_flops == sum(4 * n * (n + 77) * channels * blocks for n, channels, blocks in levels)


def test_peak_of_a_chain() -> None:
    weight = floats(8)
    with LiveBytes() as memory:
        a = floats(1)
        b = torch.cat([a, a])  # 1 + 2
        del a
        c = torch.cat([b, b])  # 2 + 4
        d = c.view(2, -1).t()
        del b, c
        assert memory.live == 4 * MIB  # the view keeps its storage
        e = d.relu()  # 4 + 4
        del d, e
        f = weight.view(2, -1).add_(1)
        assert f.numel() == weight.numel()
    assert memory.live == 0
    assert memory.peak == 8 * MIB


def test_peak_of_a_layer_does_not_count_its_weights() -> None:
    with torch.device("meta"), torch.no_grad():
        layer = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256))
        with LiveBytes() as memory:
            layer(torch.empty(64, 256))
    assert memory.peak == 4 * 64 * (256 + 2 * 1024)  # input, hidden, its rectified copy


def test_attention_holds_no_square_of_tokens() -> None:
    config = TINY["stable-diffusion"].shared().unet.config
    tokens, heads = 64 * 64, config.attention_head_dim
    assert unet_cost(config, 64, 64).peak_bytes < 4 * heads * tokens**2
    query = torch.empty(1, heads, tokens, 4, device="meta")
    with LiveBytes() as spelled_out:
        scaled_dot_product_attention(query, query, query)
    assert spelled_out.peak > 4 * heads * tokens**2


@pytest.mark.parametrize("name", KNOWN)
def test_peak_on_meta_is_that_of_the_real_networks(name: str) -> None:
    pipe = TINY[name].shared()
    for network, call in ((pipe.unet, unet_forward()), (pipe.vae, vae_decode)):
        with torch.no_grad(), LiveBytes(workspace_of(network.device)) as memory:
            call(network, (2, 32, 32))
        # The CPU's attention kernel also returns a sum a query, which none of the others do at inference.
        assert MeasuredNetwork(network, call).cost((2, 32, 32)).peak_bytes == pytest.approx(memory.peak, rel=0.05)


@pytest.mark.parametrize("name", KNOWN)
def test_cost_of_a_cascade(name: str) -> None:
    pipe = TINY[name].shared()
    stages = SelfCascade(pipe).plan(256, 256, num_inference_steps=10, preset="paper")
    base, last = estimate(pipe, stages)
    assert (base.steps, last.steps) == (10, 7)
    assert (base.size, last.size) == (Size(128, 128), Size(256, 256))
    decoded = MeasuredNetwork(pipe.vae, vae_decode).cost((1, 32, 32))
    assert base.tflops == pytest.approx(10 * denoised(name, 16).flops / 1e12)
    assert last.tflops == pytest.approx((7 * denoised(name, 32).flops + decoded.flops) / 1e12)
    assert base.seconds is not None and last.seconds is not None and base.seconds > 0 < last.seconds
    weights = sum(
        p.nbytes for net in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if net
        for p in (*net.parameters(), *net.buffers())
    )  # fmt: skip
    # The pipeline's timestep is a whole number, eight bytes rather than four.
    assert base.peak_bytes == pytest.approx(weights + denoised(name, 16).peak_bytes, abs=32)
    assert last.peak_bytes == pytest.approx(weights + max(denoised(name, 32).peak_bytes, decoded.peak_bytes), abs=32)


def test_flops_are_linear_in_steps_and_batch() -> None:
    pipe = TINY["stable-diffusion"].shared()
    ten, forty = (tflops(pipe, base_stage(count=2, num_inference_steps=n)) for n in (10, 40))
    assert forty == pytest.approx(4 * ten)
    assert tflops(pipe, base_stage(count=2), batch=3) == pytest.approx(3 * ten)


def test_seconds_beyond_the_timed_go_by_flops() -> None:
    pipe = TINY["stable-diffusion"].shared()
    small, large = estimate(pipe, [base_stage(128, count=3), base_stage(256, count=3)])
    assert small.seconds and small.tflops and large.seconds and large.tflops
    assert large.seconds / small.seconds == pytest.approx(large.tflops / small.tflops)


def test_a_timing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = TINY["stable-diffusion"].build()
    monkeypatch.setattr(timing, "TIMING_SECONDS", 5.0)
    first = estimate(pipe, [base_stage()])
    monkeypatch.setattr(pipe.unet, "forward", None)
    monkeypatch.setattr(pipe.vae, "decode", None)
    assert estimate(pipe, [base_stage()]) == first


def test_guidance_doubles_the_work() -> None:
    pipe = TINY["stable-diffusion"].shared()
    stages = [base_stage(count=2, guidance_scale=scale) for scale in (None, 7.5, 1.0)]
    default, guided, alone = (tflops(pipe, stage) for stage in stages)
    assert default == guided == pytest.approx(2 * alone)
    assert [tflops(pipe, stage, guided=False) for stage in stages] == [alone] * 3


def test_a_tiled_decode_costs_its_tiles() -> None:
    pipe = TINY["stable-diffusion"].shared()
    stage = tail(side=160)
    (whole,) = estimate(pipe, [stage])
    pipe.vae.enable_tiling()
    try:
        (tiled,) = estimate(pipe, [stage])
        spelled_out = sdpa_kernel(SDPBackend.MATH)
        with torch.no_grad(), spelled_out, FlopCounterMode(display=False) as counter, LiveBytes() as memory:
            vae_decode(pipe.vae, (1, 20, 20))
    finally:
        pipe.vae.disable_tiling()
    assert tiled.tflops == pytest.approx(
        (tiled.steps * denoised("stable-diffusion", 20).flops + counter.get_total_flops()) / 1e12
    )
    assert memory.peak < MeasuredNetwork(pipe.vae, vae_decode).cost((1, 20, 20)).peak_bytes
    assert tiled.peak_bytes and whole.peak_bytes and tiled.peak_bytes <= whole.peak_bytes


def counted(pipe: Any, run: Any) -> int:
    """FLOPs of what runs on the real networks."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", KNOWN)
def test_pivots_in_rgb_cost_their_decoding_and_encoding(name: str) -> None:
    pipe: Any = TINY[name].shared()
    stages = SelfCascade(pipe).plan(512, 512, num_inference_steps=10, preset="paper")
    plain, rgb = (estimate(pipe, stages, upsampling=upsampling) for upsampling in ("latent-bilinear", "rgb"))
    assert plain[0] == rgb[0]
    for before, stage, costs in zip(stages, stages[1:], zip(plain[1:], rgb[1:], strict=True), strict=False):
        own = counted(pipe, lambda side=before.size.height // 8: pipe.vae.decode(torch.zeros(1, 4, side, side)))
        own += counted(pipe, lambda side=stage.size.height: pipe.vae.encode(torch.zeros(1, 3, side, side)))
        assert costs[1].tflops - costs[0].tflops == pytest.approx(own / 1e12)  # type: ignore[operator]
        assert costs[1].seconds > costs[0].seconds  # type: ignore[operator]
        assert costs[1].peak_bytes >= costs[0].peak_bytes  # type: ignore[operator]


def test_an_own_picture_costs_its_encoding() -> None:
    pipe: Any = TINY["stable-diffusion"].shared()
    first = dataclasses.replace(tail(), index=0, count=1)
    (upscaled,) = estimate(pipe, [first])
    steps = upscaled.steps * denoised("stable-diffusion", 16).flops
    coded = counted(pipe, lambda: pipe.vae.encode(torch.zeros(1, 3, 128, 128)))
    coded += counted(pipe, lambda: pipe.vae.decode(torch.zeros(1, 4, 16, 16)))
    assert upscaled.tflops == pytest.approx((steps + coded) / 1e12)


def test_the_pipeline_is_left_as_it_was() -> None:
    pipe = TINY["stable-diffusion"].shared()
    scheduler, config, state = pipe.scheduler, dict(pipe.scheduler.config), torch.get_rng_state()
    timesteps = pipe.scheduler.timesteps.clone()
    estimate(pipe, SelfCascade(pipe).plan(256, 256))
    assert pipe.scheduler is scheduler
    assert dict(scheduler.config) == config
    assert torch.equal(scheduler.timesteps, timesteps)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.is_meta for parameter in pipe.unet.parameters())


SERVED = ("stable-diffusion-3", "flux", "qwen-image", "sana", "wan", "cogvideox", "animatediff", "lumina2")


def of_denoiser(pipe: Any, run: Any) -> int:
    """FLOPs of the real denoiser in a run, without those of prompts and pictures."""
    network, found = family_of(pipe).denoiser, [0]
    counter = FlopCounterMode(display=False)

    def ended(*_: Any) -> None:
        counter.__exit__(None, None, None)
        found[0] += counter.get_total_flops()

    before = network.register_forward_pre_hook(lambda *_: counter.__enter__() and None)
    after = network.register_forward_hook(ended)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), hooks_in_place([before, after]):
        run()
    return found[0]


@pytest.mark.parametrize("name", SERVED)
def test_a_step_costs_what_the_real_networks_do(name: str) -> None:
    entry = TINY[name]
    pipe: Any = entry.shared()
    family = family_of(pipe)
    frames = family.frames_of(2) if family.video else None
    more = {key: value for key, value in entry.inputs.items() if key != "num_frames"}
    stages = [base_stage(min(entry.native), count=2, num_inference_steps=4), tail(side=min(entry.native))]
    base, last = estimate(pipe, stages, frames=frames, arguments=more)
    run = PipelineBaseModel(family, Request(None, None, "latent", more | ({"num_frames": frames} if frames else {})))
    made: list[Any] = []
    flops = of_denoiser(pipe, lambda: made.append(run.sample(stages[0])))
    assert base.tflops == pytest.approx(flops / made[0].steps * base.steps / 1e12)
    decoding = counted(pipe, lambda: family.decode(made[0].latents))
    assert last.tflops == pytest.approx((flops / made[0].steps * last.steps + decoding) / 1e12)
    assert base.seconds and last.seconds and last.peak_bytes and base.peak_bytes


def test_words_are_counted_where_they_are_not_padded() -> None:
    """Lumina 2 joins to the picture's tokens as many of the text's as its mask has: two of six here."""
    entry = TINY["lumina2"]
    pipe: Any = entry.shared()
    few = entry.inputs | {"prompt_attention_mask": torch.tensor([[True, True, False, False, False, False]])}
    stage = base_stage(64, num_inference_steps=2)
    (short,) = estimate(pipe, [stage], arguments=few)
    run = PipelineBaseModel(family_of(pipe), Request(None, None, "latent", few))
    made: list[Any] = []
    flops = of_denoiser(pipe, lambda: made.append(run.sample(stage)))
    decoding = counted(pipe, lambda: family_of(pipe).decode(made[0].latents))
    assert short.tflops == pytest.approx((flops + decoding) / 1e12)
    (whole,) = estimate(pipe, [stage], arguments=entry.inputs)
    assert short.tflops < whole.tflops  # type: ignore[operator]


def test_local_attention_costs_less_and_only_above_the_base() -> None:
    pipe: Any = TINY["stable-diffusion"].shared()
    cascade = SelfCascade(pipe)
    stages = cascade.plan(256, 256, num_inference_steps=4, preset="paper")
    full, local = (estimate(pipe, stages, attention=attention) for attention in ("full", "local"))
    assert local[0] == full[0]
    family, stage, z_up = family_of(pipe), stages[-1], torch.zeros(1, 4, 32, 32)
    base = PipelineBaseModel(
        family,
        Request("a boat", None, "latent"),
        contexts=[functools.partial(attending_locally, family, cascade.native_size)],
    )
    made: list[Any] = []
    pivot = PipelineSample(torch.zeros(1, 4, 16, 16))
    flops = of_denoiser(pipe, lambda: made.append(base.denoise(base.renoise(z_up, stage, pivot), stage, pivot)))
    assert made[0].steps == local[-1].steps
    assert local[-1].tflops == pytest.approx((flops + counted(pipe, lambda: pipe.vae.decode(z_up))) / 1e12)
    assert local[-1].tflops < full[-1].tflops  # type: ignore[operator]


def test_steps_of_a_schedule_only_the_pipeline_knows() -> None:
    scheduler = TINY["flux"].shared().scheduler
    assert scheduler.config.use_dynamic_shifting
    # 0.7 = s e^1.15 / (s e^1.15 + 1 - s) at s = 0.425, and 6 of 15 even steps lie at or below it.
    assert scheduled_steps(scheduler, tail(num_inference_steps=15)) == 6
    assert scheduled_steps(scheduler, base_stage(num_inference_steps=15)) == 15


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "2"])
def test_bad_batch(batch: Any) -> None:
    with pytest.raises(ValueError, match="batch must be a positive whole number"):
        estimate(TINY["stable-diffusion"].shared(), [], batch=batch)


def test_bad_unet_config() -> None:
    config = dict(TINY["stable-diffusion"].shared().unet.config) | {"class_embed_type": "timestep"}
    with pytest.raises(ValueError, match="unet_config"):
        unet_tflops(config, 8, 8)


def test_convolutions_of_the_cpu_copy_their_input_and_weights() -> None:
    pictures, filters = (torch.empty(shape, device="meta") for shape in ((2, 32, 24, 24), (16, 32, 3, 3)))
    made = 4 * 2 * 16 * 24 * 24
    copies = (("cpu", pictures.nbytes + filters.nbytes), ("cuda", 0))
    for device, copied in copies:
        with LiveBytes(workspace_of(torch.device(device))) as memory:
            torch.nn.functional.conv2d(pictures, filters, padding=1)
        assert memory.peak == made + copied
    last = [tensor.to(memory_format=torch.channels_last) for tensor in (pictures, filters)]
    for (given, weights), copied in ((last, filters.nbytes), ((pictures, filters[:, :, :1, :1]), 0)):
        with LiveBytes(workspace_of(torch.device("cpu"))) as memory:
            made_now = torch.nn.functional.conv2d(given, weights)
        assert memory.peak == made_now.nbytes + copied


@pytest.mark.parametrize(("dtype", "packed"), [(torch.float32, 0), (torch.bfloat16, 2)])
def test_attention_of_the_cpu_packs_keys_and_values_in_half_precision(dtype: torch.dtype, packed: int) -> None:
    query = torch.randn(1, 2, 64, 16, dtype=dtype)
    with LiveBytes() as plain, torch.no_grad():
        scaled_dot_product_attention(query, query, query)
    with LiveBytes(workspace_of(query.device)) as memory, torch.no_grad():
        scaled_dot_product_attention(query, query, query)
    assert memory.peak == plain.peak + packed * query.nbytes


def test_a_clip_of_many_frames_costs_less_with_local_attention() -> None:
    pipe: Any = TINY["wan"].shared()
    family, native = family_of(pipe), Size(*TINY["wan"].native)
    size = Size(4 * native.height, 4 * native.width)
    costs = StepCosts(family, 1, 9, native, TINY["wan"].inputs | {"num_frames": 9})
    full, local = (costs.cost(size, Kind(None, local)).attention_flops for local in (False, True))
    assert local < 0.5 * full  # a sixteenth of the keys within the clip, all of the text
