"""`SelfCascade` on a real pipeline class: what it makes, and what it leaves behind."""

from typing import Any

import accelerate.hooks
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from cascade_runs import SD, SETTINGS, SMALL, run, seeded
from selfcascade import METHODS, PRESETS, SelfCascade
from tiny import TINY
from tiny.variants import VARIANTS


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
    scheduler = pipe.scheduler
    picture = pipe(**plain, generator=seeded(), return_dict=False)[0]
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


def test_a_failed_decoding_leaves_the_vae_in_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    family = TINY["stable-diffusion-xl"]
    pipe = family.build().to(torch.float16)
    pipe.vae.register_to_config(force_upcast=True)
    decode, dtypes = pipe.vae.decode, list[torch.dtype]()

    def out_of_memory(*args: Any, **kwargs: Any) -> Any:
        dtypes.append(pipe.vae.dtype)
        raise torch.OutOfMemoryError("as on a small card")

    monkeypatch.setattr(pipe.vae, "decode", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run(pipe, family, output_type="pt")
    assert dtypes == [torch.float32] and pipe.vae.dtype == torch.float16
    monkeypatch.setattr(pipe.vae, "decode", decode)
    assert torch.isfinite(run(pipe, family, output_type="pt").images).all()
    assert pipe.vae.dtype == torch.float16


def test_a_failed_callback_leaves_the_attention_processors_of_a_pag_pipeline() -> None:
    family = VARIANTS["StableDiffusionPAGPipeline"]
    pipe: Any = family.build()
    before = dict(pipe.unet.attn_processors)

    def failing(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        assert pipe.unet.attn_processors != before  # they are in place now
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        run(pipe, family, callback_on_step_end=failing)
    assert pipe.unet.attn_processors == before


def test_pictures_of_an_interrupted_cascade_pass_the_safety_checker() -> None:
    pipe: Any = SMALL.build()
    vars(pipe)["safety_checker"] = object()
    vars(pipe)["run_safety_checker"] = lambda image, device, dtype: (torch.zeros_like(image), [True] * len(image))

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        pipe._interrupt = True
        return {}

    out = run(pipe, SMALL, callback_on_step_end=on_step, output_type="pt")
    assert out.interrupted
    assert not out.images.any()


def test_interruption_ends_the_cascade_with_that_stages_pictures() -> None:
    pipe: Any = SD.shared()

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        pipe._interrupt = kwargs["stage"].index == 1
        return {}

    out = run(pipe, SMALL, scale=4, callback_on_step_end=on_step, output_type="pil")
    assert out.interrupted
    assert len(out.stages) == 2
    assert out.stages[1].steps == 1
    assert out.images[0].size == (128, 128)


@pytest.mark.parametrize(
    "name", ["stable-diffusion-xl", "flux", "qwen-image", "flux2", "sana", "animatediff", "wan", "ltx"]
)
def test_an_interrupted_base_stage_gives_its_pictures(name: str) -> None:
    family = TINY[name]

    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        pipe._interrupt = True
        return {}

    out = run(family.shared(), family, callback_on_step_end=stop, output_type="np")
    assert out.interrupted
    assert [stage.steps for stage in out.stages] == [1]
    made = out.frames if family.video else out.images
    assert made.shape[-3:-1] == family.native
    assert np.isfinite(made).all()


@pytest.mark.parametrize(
    "name", ["stable-diffusion", "stable-diffusion-xl", "flux", "qwen-image", "animatediff", "ltx"]
)
def test_a_chosen_base_sample_is_enlarged_as_if_in_one_call(name: str) -> None:
    family = TINY[name]
    pipe: Any = family.shared()
    whole = run(pipe, family)
    generator = seeded()
    base = run(pipe, family, scale=1, generator=generator)
    latents = base.stages[0].latents
    assert torch.equal(latents, whole.stages[0].latents)
    later = run(pipe, family, generator=generator, pivot=latents)
    assert [stage.size for stage in later.stages] == [whole.stages[1].size]
    assert torch.equal(later.stages[0].latents, whole.stages[1].latents)


@pytest.mark.parametrize(
    ("pivot", "said"),
    [("a.png", "not str"), (torch.zeros(1, 4, 7, 8), "8x8, 16x16"), (torch.zeros(8, 8), "8x8, 16x16")],
)
def test_a_pivot_is_a_stages_latents(pivot: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"pivot must be .*{said}"):
        run(SD.shared(), SMALL, scale=4, pivot=pivot)


def test_three_stages_at_any_ratio_and_scale() -> None:
    pipe: Any = SD.shared()
    out = run(pipe, SMALL, scale=4)
    assert [stage.size.height for stage in out.stages] == [64, 128, 256]
    wide = SelfCascade(pipe, native_size=(128, 128))("a house", height=200, width=304, generator=seeded(), **SETTINGS)
    assert wide.images.shape == (1, 4, 25, 38)
    assert wide.stages[0].size.area == pytest.approx(128 * 128, rel=0.1)


def test_a_stage_runs_the_scheduled_steps_at_or_below_k() -> None:
    pipe: Any = SD.shared()
    seen: list[tuple[int, int]] = []

    def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        seen.append((kwargs["stage"].index, int(timestep)))
        return {}

    out = run(pipe, SMALL, 4, num_inference_steps=20, pivot_step=[600, 300], callback_on_step_end=on_step)
    pipe.scheduler.set_timesteps(20)
    schedule = pipe.scheduler.timesteps.tolist()
    for index, limit in ((0, 1000), (1, 600), (2, 300)):
        assert [timestep for stage, timestep in seen if stage == index] == [t for t in schedule if t <= limit]
    assert [stage.pivot_step for stage in out.stages] == [None, 600, 300]
    assert [stage.steps for stage in out.stages] == [20, *(sum(t <= k for t in schedule) for k in (600, 300))]


def test_values_per_stage() -> None:
    pipe: Any = SD.shared()
    out = run(pipe, num_inference_steps=[4, 10], guidance_scale=[7.5, 1.0], pivot_step=[500])
    assert [stage.stage.num_inference_steps for stage in out.stages] == [4, 10]
    assert out.stages[1].steps == 5
    same_base = run(pipe, num_inference_steps=4, guidance_scale=7.5, pivot_step=500)
    assert torch.equal(out.stages[0].latents, same_base.stages[0].latents)
    assert not torch.equal(out.stages[1].latents, same_base.stages[1].latents)


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_same_seed_same_picture_alone_or_in_a_batch(name: str) -> None:
    family = TINY[name]
    pipe: Any = family.shared()
    prompts = ["a house", "a tree at night", "two fish"]
    cascade = SelfCascade(pipe, native_size=family.native)
    size = {"height": 256, "width": 256}
    together = cascade(prompts, **size, **SETTINGS, generator=[seeded(k) for k in range(3)]).images
    for index, prompt in enumerate(prompts):
        alone = cascade(prompt, **size, **SETTINGS, generator=seeded(index)).images[0]
        # A convolution or product of another batch size sums in another order on some processors; the pixels agree.
        torch.testing.assert_close(together[index], alone, rtol=0, atol=max(2e-5, 1e-5 * float(alone.abs().max())))


def test_several_images_per_prompt_and_a_negative_prompt() -> None:
    pipe: Any = SD.shared()
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
    pipe: Any = SD.shared()

    def zero_at_the_end(pipe: Any, step: int, timestep: Any, kwargs: dict) -> dict:
        assert kwargs["stage"].count == 2
        return {"latents": torch.zeros_like(kwargs["latents"])} if kwargs["stage"].is_last else {}

    out = run(pipe, callback_on_step_end=zero_at_the_end, output_type="np")
    assert not out.stages[1].latents.any()
    assert out.stages[0].latents.any()


def test_diffusers_own_callbacks_work() -> None:
    cut = run(SD.shared(), callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))
    assert not torch.equal(cut.images, run(SD.shared()).images)


def test_attention_slicing_and_hooks_stay_as_they_are() -> None:
    pipe: Any = SD.build()
    pipe.enable_attention_slicing()
    accelerate.hooks.add_hook_to_module(pipe.unet, accelerate.hooks.ModelHook())
    hook, processors = pipe.unet._hf_hook, dict(pipe.unet.attn_processors)
    run(pipe)
    assert pipe.unet._hf_hook is hook
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in processors.items())


def test_the_progress_bar_says_which_stage_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pipe: Any = SD.build()
    pipe.set_progress_bar_config(disable=False, ncols=80)
    config = pipe._progress_bar_config
    run(pipe)
    shown = capsys.readouterr().err
    assert "stage 0 of 1, 128x128" in shown
    assert "stage 1 of 1, 256x256" in shown
    assert pipe._progress_bar_config is config
    assert config == {"disable": False, "ncols": 80}


def test_a_plan_runs_nothing() -> None:
    cascade = SelfCascade(SD.shared())
    plan = cascade.plan(height=512, width=512, num_inference_steps=[9, 8, 7], pivot_step=[600, 500])
    assert [(stage.size.height, stage.num_inference_steps, stage.pivot_step) for stage in plan] == [
        (128, 9, None),
        (256, 8, 600),
        (512, 7, 500),
    ]
    assert [stage.size for stage in cascade.plan()] == [(128, 128), (256, 256)]


def test_output_types_and_tuple() -> None:
    pipe: Any = SD.shared()
    assert isinstance(run(pipe, output_type="pil").images[0], Image.Image)
    assert isinstance(run(pipe, output_type="np").images, np.ndarray)
    assert run(pipe, output_type="pt").images.shape == (1, 3, 256, 256)
    images, stages = run(pipe, return_dict=False)
    assert torch.equal(images, stages[-1].latents)
    assert all(stage.seconds > 0 for stage in stages)


def test_the_prompt_is_encoded_once_for_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = SD.shared()
    calls = []
    hook = pipe.text_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    run(pipe, SMALL, scale=4, guidance_scale=1.0)
    hook.remove()
    assert len(calls) == 1


def test_tiling_is_switched_for_the_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = SD.shared()
    seen = []
    hook = pipe.unet.register_forward_pre_hook(lambda *_: seen.append(pipe.vae.use_tiling))
    run(pipe, vae_tiling=True, output_type="pt")
    run(pipe, output_type="pt")
    hook.remove()
    assert set(seen[: len(seen) // 2]) == {True}
    assert set(seen[len(seen) // 2 :]) == {False}
    assert not pipe.vae.use_tiling


@pytest.mark.parametrize(("wanted", "expected"), [(None, True), (True, True), (False, False)])
def test_a_vae_that_works_in_tiles_already_can_be_told_not_to(wanted: bool | None, expected: bool) -> None:
    pipe: Any = SMALL.build()
    pipe.vae.enable_tiling()
    seen = list[bool]()
    hook = pipe.vae.decoder.register_forward_pre_hook(lambda *_: seen.append(pipe.vae.use_tiling))
    run(pipe, SMALL, vae_tiling=wanted, output_type="pt")
    hook.remove()
    assert set(seen) == {expected} and pipe.vae.use_tiling


def test_presets_and_methods() -> None:
    assert next(iter(PRESETS)) == "paper"
    paper = PRESETS["paper"]
    assert (paper.pivot_share, paper.later_pivot_share, paper.upsampling) == (0.7, 0.7, "latent-bilinear")
    planned = SelfCascade(SD.shared()).plan(1024, 1024, preset="rgb")
    assert [stage.pivot_step for stage in planned] == [None, 700, 400, 400]
    pipe: Any = SD.shared()
    settings = {**SD.inputs, "prompt": "a house", "height": 256, "width": 256, "num_inference_steps": 4}
    settings["output_type"] = "latent"
    direct = METHODS["direct"](pipe, generator=seeded(), native_size=SD.native, **settings)
    assert torch.equal(direct.images, pipe(generator=seeded(), **settings).images)
    ours = METHODS["self-cascade"](pipe, generator=seeded(), native_size=SD.native, preset="paper", **settings)
    assert torch.equal(ours.images, run(pipe, prompt="a house").images)
