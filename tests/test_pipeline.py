"""`SelfCascade` on real pipeline classes: what it makes, what it leaves behind, what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler
from PIL import Image

from selfcascade import METHODS, PRESETS, SelfCascade
from tiny import TINY, TinyPipeline, add_tiny_ip_adapter, add_tiny_lora, tiny_controlnet

FAMILIES = pytest.mark.parametrize("family", TINY.values(), ids=TINY.keys())
SD = TINY["stable-diffusion"]
SETTINGS: dict[str, Any] = {"num_inference_steps": 4, "output_type": "latent"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe: Any, family: TinyPipeline = SD, scale: int = 2, **options: Any) -> Any:
    size = {"height": scale * family.native[0], "width": scale * family.native[1]}
    settings = {**family.inputs, **SETTINGS, **size, "generator": seeded(), **options}
    return SelfCascade(pipe, native_size=family.native)(**settings)


@FAMILIES
@pytest.mark.parametrize("upsampling", ["latent-bilinear", "latent-bicubic", "rgb"])
def test_every_family_runs_two_stages_and_repeats_them(family: TinyPipeline, upsampling: str) -> None:
    pipe = family.build()
    first = run(pipe, family, upsampling=upsampling)
    second = run(pipe, family, upsampling=upsampling)
    latents = first.stages[1].latents
    assert latents.isfinite().all()
    assert latents.shape[-1] == 2 * first.stages[0].latents.shape[-1]
    assert torch.equal(latents, second.stages[1].latents)


@FAMILIES
def test_last_latents_are_the_same_whether_decoded_or_not(family: TinyPipeline) -> None:
    pipe = family.build()
    decoded = run(pipe, family, output_type="pt")
    assert torch.equal(decoded.stages[1].latents, run(pipe, family).stages[1].latents)


@FAMILIES
def test_the_familys_decode_and_encode_are_inverse_scalings(family: TinyPipeline) -> None:
    pipe: Any = family.build()
    cascade = SelfCascade(pipe, native_size=family.native)
    z = run(pipe, family).stages[0].latents
    there_and_back = cascade.family.from_vae(pipe, cascade.family.to_vae(pipe, z))
    torch.testing.assert_close(there_and_back, z, rtol=1e-5, atol=1e-5)
    spatial = cascade.family.from_spatial(pipe, z)
    assert spatial.numel() == z.numel()


def state_of(pipe: Any) -> dict[str, Any]:
    names = {name: value for name, value in vars(pipe).items() if name not in RUNNING}
    hooks = [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks))
        for part in pipe.components.values()
        if isinstance(part, torch.nn.Module)
        for name, module in part.named_modules()
    ]
    return {"names": names, "config": dict(pipe.config), "hooks": hooks, "scheduler": vars(pipe.scheduler).copy()}


# A plain call of the pipeline sets these too.
RUNNING = {
    *("_guidance_scale", "_guidance_rescale", "_clip_skip", "_cross_attention_kwargs", "_interrupt", "_num_timesteps"),
    *("_lora_scale", "_execution_device"),
}


@pytest.mark.parametrize("ending", ["success", "callback error", "network error", "keyboard", "interrupt"])
def test_the_pipeline_is_left_as_it_was(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = SD.build()
    plain = {"height": 128, "width": 128, **SETTINGS, "prompt": "a house"}
    before, scheduler = state_of(pipe), pipe.scheduler
    picture = pipe(**plain, generator=seeded(), return_dict=False)[0]
    pipe.scheduler = scheduler
    before = state_of(pipe)
    calls = 0

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        if kwargs["stage"].index == 1:
            if ending == "callback error":
                raise RuntimeError("from the callback")
            if ending == "keyboard":
                raise KeyboardInterrupt
            pipe._interrupt = ending == "interrupt"
        return {}

    if ending == "network error":
        forward = pipe.unet.forward

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 5:
                raise RuntimeError("from the network")
            return forward(*args, **kwargs)

        monkeypatch.setattr(pipe.unet, "forward", failing)
    expected = {"callback error": RuntimeError, "network error": RuntimeError, "keyboard": KeyboardInterrupt}
    if ending in expected:
        with pytest.raises(expected[ending]):
            run(pipe, callback_on_step_end=on_step)
    else:
        run(pipe, callback_on_step_end=on_step)
    monkeypatch.undo()
    after = state_of(pipe)
    assert pipe.scheduler is scheduler
    for key in ("config", "hooks"):
        assert after[key] == before[key]
    assert after["names"].keys() == before["names"].keys()
    assert all(after["names"][name] is before["names"][name] for name in before["names"])
    assert all(after["scheduler"][name] is before["scheduler"][name] for name in before["scheduler"])
    assert torch.equal(pipe(**plain, generator=seeded(), return_dict=False)[0], picture)


def test_interruption_ends_the_cascade_with_that_stages_pictures() -> None:
    pipe: Any = SD.build()

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        pipe._interrupt = kwargs["stage"].index == 1
        return {}

    out = run(pipe, scale=4, callback_on_step_end=on_step, output_type="pil")
    assert out.interrupted
    assert len(out.stages) == 2
    assert out.images[0].size == (256, 256)


def test_three_stages_at_any_ratio_and_scale() -> None:
    pipe: Any = SD.build()
    out = run(pipe, scale=4)
    assert [stage.size.height for stage in out.stages] == [128, 256, 512]
    wide = SelfCascade(pipe, native_size=(128, 128))("a house", height=200, width=304, generator=seeded(), **SETTINGS)
    assert wide.images.shape == (1, 4, 25, 38)
    assert wide.stages[0].size.area == pytest.approx(128 * 128, rel=0.1)


def test_a_stage_runs_the_scheduled_steps_at_or_below_k() -> None:
    pipe: Any = SD.build()
    seen: list[tuple[int, int]] = []

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        seen.append((kwargs["stage"].index, int(timestep)))
        return {}

    out = run(pipe, num_inference_steps=20, pivot_step=[600, 300], scale=4, callback_on_step_end=on_step)
    pipe.scheduler.set_timesteps(20)
    schedule = pipe.scheduler.timesteps.tolist()
    for index, limit in ((0, 1000), (1, 600), (2, 300)):
        assert [timestep for stage, timestep in seen if stage == index] == [t for t in schedule if t <= limit]
    assert [stage.pivot_step for stage in out.stages] == [None, 600, 300]
    assert [stage.steps for stage in out.stages] == [20, *(sum(t <= k for t in schedule) for k in (600, 300))]


def test_values_per_stage() -> None:
    pipe: Any = SD.build()
    out = run(pipe, num_inference_steps=[4, 10], guidance_scale=[7.5, 1.0], pivot_step=[500])
    assert [stage.stage.num_inference_steps for stage in out.stages] == [4, 10]
    assert out.stages[1].steps == 5
    same_base = run(pipe, num_inference_steps=4, guidance_scale=7.5, pivot_step=500)
    assert torch.equal(out.stages[0].latents, same_base.stages[0].latents)
    assert not torch.equal(out.stages[1].latents, same_base.stages[1].latents)


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_same_seed_same_picture_alone_or_in_a_batch(name: str) -> None:
    family = TINY[name]
    pipe: Any = family.build()
    prompts = ["a house", "a tree at night", "two fish"]
    cascade = SelfCascade(pipe, native_size=family.native)
    size = {"height": 256, "width": 256}
    together = cascade(prompts, **size, **SETTINGS, generator=[seeded(k) for k in range(3)]).images
    for index, prompt in enumerate(prompts):
        alone = cascade(prompt, **size, **SETTINGS, generator=seeded(index)).images[0]
        # A convolution or product of another batch size sums in another order on some processors; the pixels agree.
        torch.testing.assert_close(together[index], alone, rtol=0, atol=2e-5)


def test_several_images_per_prompt_and_a_negative_prompt() -> None:
    pipe: Any = SD.build()
    generators = [seeded(k) for k in range(4)]
    out = run(
        pipe,
        prompt=["a", "b"],
        negative_prompt=["c", "d"],
        num_images_per_prompt=2,
        generator=generators,
        output_type="pil",
    )
    assert len(out.images) == 4
    assert out.stages[1].latents.shape[0] == 4
    other = run(pipe, negative_prompt="blur")
    assert not torch.equal(other.images, run(pipe).images)


def test_the_callback_can_change_the_latents() -> None:
    pipe: Any = SD.build()

    def zero_at_the_end(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        assert kwargs["stage"].count == 2
        return {"latents": torch.zeros_like(kwargs["latents"])} if kwargs["stage"].is_last else {}

    out = run(pipe, callback_on_step_end=zero_at_the_end, output_type="np")
    assert not out.stages[1].latents.any()
    assert out.stages[0].latents.any()


def test_output_types_and_tuple() -> None:
    pipe: Any = SD.build()
    assert isinstance(run(pipe, output_type="pil").images[0], Image.Image)
    assert isinstance(run(pipe, output_type="np").images, np.ndarray)
    assert run(pipe, output_type="pt").images.shape == (1, 3, 256, 256)
    images, stages = run(pipe, return_dict=False)
    assert torch.equal(images, stages[-1].latents)
    assert all(stage.seconds > 0 for stage in stages)


def test_the_prompt_is_encoded_once_for_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = SD.build()
    calls = []
    hook = pipe.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    run(pipe, scale=4, guidance_scale=1.0)
    hook.remove()
    assert len(calls) == 1


def test_tiling_is_switched_for_the_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = SD.build()
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: seen.append(pipe.vae.use_tiling))
    run(pipe, vae_tiling=True, output_type="pt")
    run(pipe, output_type="pt")
    hook.remove()
    assert set(seen[: len(seen) // 2]) == {True}
    assert set(seen[len(seen) // 2 :]) == {False}
    assert not pipe.vae.use_tiling


def test_a_lora_goes_on_working() -> None:
    plain = run(SD.build())
    pipe: Any = add_tiny_lora(SD.build())
    tuned = run(pipe)
    assert not torch.equal(plain.stages[1].latents, tuned.stages[1].latents)
    pipe.unet.disable_adapters()
    # The wrapped layers' products may be summed in another order; four steps of a random network magnify that.
    torch.testing.assert_close(run(pipe).stages[1].latents, plain.stages[1].latents, rtol=1e-3, atol=1e-3)


def test_a_controlnet_goes_on_working_at_the_stages_size() -> None:
    pipe: Any = tiny_controlnet(SD.build())
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    control = Image.fromarray(noise)
    sizes = []
    hook = pipe.controlnet.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["controlnet_cond"].shape[-2:])), with_kwargs=True
    )
    controlled = run(pipe, image=control)
    hook.remove()
    assert set(sizes) == {(128, 128), (256, 256)}
    other = run(pipe, image=Image.new("RGB", (128, 128), "red"))
    assert not torch.equal(controlled.stages[1].latents, other.stages[1].latents)


def test_an_ip_adapter_goes_on_working() -> None:
    pipe: Any = SD.build()
    inputs = add_tiny_ip_adapter(pipe)
    pipe.set_ip_adapter_scale(1.0)
    strong = run(pipe, **inputs)
    pipe.set_ip_adapter_scale(0.0)
    weak = run(pipe, **inputs)
    assert not torch.equal(strong.stages[1].latents, weak.stages[1].latents)
    assert torch.equal(weak.stages[1].latents, run(pipe, **inputs).stages[1].latents)


def photo(width: int = 96, height: int = 96) -> Image.Image:
    rows = np.linspace(0, 255, height)[:, None, None] * np.ones((1, width, 3))
    return Image.fromarray(rows.astype(np.uint8))


def test_upscale_starts_from_the_users_own_picture() -> None:
    pipe: Any = SD.build()
    cascade = SelfCascade(pipe, native_size=SD.native)
    settings = {"num_inference_steps": 4, "pivot_step": 300}
    out = cascade.upscale(photo(128, 128), "a wall", height=256, width=256, generator=seeded(), **settings)
    assert out.images[0].size == (256, 256)
    assert [stage.size.height for stage in out.stages] == [256]
    assert out.stages[0].pivot_step == 300
    again = cascade.upscale(photo(128, 128), "a wall", height=256, width=256, generator=seeded(), **settings)
    assert np.array_equal(np.asarray(out.images[0]), np.asarray(again.images[0]))
    small = cascade.upscale(photo(40, 40), height=512, width=512, **settings, output_type="latent")
    assert [stage.size.height for stage in small.stages] == [128, 256, 512]
    doubled = cascade.upscale(photo(160, 96), **settings)
    assert doubled.images[0].size == (320, 192)


def test_upscale_takes_lists_and_tensors() -> None:
    cascade = SelfCascade(SD.build(), native_size=SD.native)
    settings = {"num_inference_steps": 4, "height": 256, "width": 256, "output_type": "latent"}
    assert cascade.upscale([photo(), photo()], ["a", "b"], **settings).images.shape[0] == 2
    assert cascade.upscale([photo(), photo()], "a", **settings).images.shape[0] == 2
    assert cascade.upscale(torch.rand(1, 3, 96, 96), "a", num_images_per_prompt=2, **settings).images.shape[0] == 2
    with pytest.raises(ValueError, match="image has 2 pictures, and there are 3 prompts"):
        cascade.upscale([photo(), photo()], ["a", "b", "c"], **settings)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 96, 96), "image must be"),
        (torch.zeros(1, 3, 96, 96, dtype=torch.uint8), "image must be"),
        ("photo.png", "image must be a PIL image"),
        ([], "image must be a PIL image"),
        ([photo(96, 96), photo(64, 64)], "pictures of one size"),
        (photo(2048, 2048), "target 256x256 is smaller than the image"),
    ],
)
def test_upscale_refuses_what_is_no_picture(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfCascade(SD.build(), native_size=SD.native).upscale(image, height=256, width=256)


NUMBERS = {"negative": -1, "zero": 0, "nan": float("nan"), "infinite": float("inf"), "huge": 10**9, "text": "12"}
BAD = [
    (name, value)
    for name in ("height", "width", "num_inference_steps", "pivot_step", "guidance_scale")
    for label, value in NUMBERS.items()
    if not (name == "guidance_scale" and label in ("zero", "huge"))
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_numbers_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="target must be" if value == 10**9 and name in ("height", "width") else name):
        run(SD.build(), **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 250}, "height must be a multiple of 8, not 250; 248 is the nearest"),
        ({"height": 64, "width": 64}, "smaller than the native size"),
        ({"pivot_step": [700, 700]}, "pivot_step has 2 values, and there are 1 stages"),
        ({"preset": "best"}, "preset must be one of paper, rgb"),
        ({"upsampling": "nearest"}, "upsampling must be one of"),
        ({"output_type": "jpg"}, "output_type must be"),
        ({"latents": torch.zeros(1)}, "latents cannot be given"),
        ({"strength": 0.5}, "strength cannot be given"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        run(SD.build(), **options)


def test_unsupported_pipelines_and_schedulers_are_refused_with_what_to_use() -> None:
    pipe: Any = SD.build()
    pipe.scheduler = EDMEulerScheduler()
    with pytest.raises(ValueError, match=r"EDMEulerScheduler does not number .* use pipe.scheduler = DDIMScheduler"):
        SelfCascade(pipe)
    with pytest.raises(ValueError, match=r"object is not supported as a base model; use one of .*FluxPipeline"):
        SelfCascade(object())
    with pytest.raises(ValueError, match="upsamplers must be None"):
        SelfCascade(SD.build(), upsamplers="full")  # type: ignore[arg-type]


def test_too_many_steps_for_the_schedule_are_refused() -> None:
    with pytest.raises(ValueError, match="use fewer"):
        run(SD.build(), num_inference_steps=1000)


def test_a_pivot_step_below_the_schedule_is_refused() -> None:
    pipe: Any = SD.build()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    with pytest.raises(ValueError, match=r"pivot_step 100 leaves no step to run: the last of 4 .* is at 249"):
        run(pipe, pivot_step=100)


def test_presets_and_methods() -> None:
    assert next(iter(PRESETS)) == "paper"
    assert (PRESETS["paper"].pivot_share, PRESETS["paper"].upsampling) == (0.7, "latent-bilinear")
    pipe: Any = SD.build()
    settings = {**SD.inputs, "prompt": "a house", "height": 256, "width": 256, **SETTINGS}
    direct = METHODS["direct"](pipe, generator=seeded(), native_size=SD.native, preset="rgb", **settings)
    assert torch.equal(direct.images, pipe(generator=seeded(), **settings).images)
    ours = METHODS["self-cascade"](pipe, generator=seeded(), native_size=SD.native, **settings)
    assert torch.equal(ours.images, run(pipe, prompt="a house").images)
