"""The cascade on clips: tuned and not, noise that frames share, decoding in parts, clips of the user's own."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cascade_runs import SETTINGS, run, seeded
from selfcascade import FeatureUpsamplers, SelfCascade
from selfcascade.base_models import frames
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample
from selfcascade.base_models.frames import frames_at_once, join_parts, over_frames
from selfcascade.base_models.image_pivot import image_pivot
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.renoising import mixed_noise
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import as_floats, lanczos
from selfcascade.cascade import Size
from selfcascade.media.images import clips_of
from tiny import TINY
from tiny.parts import quiet
from tiny.plugins import tiny_video_controlnet, tiny_video_xl
from tiny.videos import ltx

FRAMEWISE = ("animatediff", "text-to-video-synthesis")
VIDEO = tuple(name for name, family in TINY.items() if family.video)
# Both decode frame by frame and differ in their U-Nets: where that matters little, the second takes `make test-slow`.
ONE_IS_ENOUGH = pytest.mark.parametrize("name", [FRAMEWISE[0], pytest.param(FRAMEWISE[1], marks=pytest.mark.slow)])
SHORT: dict[str, Any] = {"num_frames": 2, "num_inference_steps": 2}


@functools.cache
def built(name: str) -> Any:
    """One pipeline for all tests: calls leave it as it was."""
    return TINY[name].build()


def moving(count: int = 4, side: int = 64) -> list[Image.Image]:
    """A bright bar that moves to the right over a ramp."""
    clip = np.zeros((count, side, side, 3), np.uint8) + np.linspace(0, 200, side, dtype=np.uint8)[:, None, None]
    for index, frame in enumerate(clip):
        frame[:, 8 * index : 8 * index + 8] = 255
    return [Image.fromarray(frame) for frame in clip]


def as_bytes(clip: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in clip])


@pytest.mark.parametrize("name", FRAMEWISE)
def test_untrained_upsamplers_give_the_frames_of_the_tuning_free_cascade(name: str) -> None:
    family = TINY[name]
    pipe = built(name)
    settings = {**family.inputs, **SETTINGS, **SHORT, "output_type": "pil", "preset": "paper"}
    settings |= {"height": 128, "width": 96}
    made = []
    for upsamplers in (None, FeatureUpsamplers.from_unet(pipe.unet, "full")):
        cascade = SelfCascade(pipe, upsamplers, native_size=(64, 64))
        made.append(cascade(**settings, shared_noise=0.3, generator=seeded()))
    assert [frame.size for frame in made[0].frames[0]] == [(96, 128)] * 2
    assert made[0].images is None and len(made[0].stages) == 2
    assert np.array_equal(as_bytes(made[0].frames[0]), as_bytes(made[1].frames[0]))
    assert torch.equal(made[0].stages[-1].latents, made[1].stages[-1].latents)


@ONE_IS_ENOUGH
def test_a_clip_is_the_same_alone_and_among_others(name: str) -> None:
    family = TINY[name]
    pipe = built(name)
    options = {**SHORT, "shared_noise": 0.5, "output_type": "pt"}
    prompts = {"prompt": ["a red fish"] * 2, "negative_prompt": ["blurry"] * 2}
    both = run(pipe, family, **prompts, generator=[seeded(1), seeded(2)], **options).frames
    for index in range(2):
        one = {"prompt": "a red fish", "negative_prompt": "blurry", "generator": seeded(index + 1)}
        alone = run(pipe, family, **one, **options).frames
        # Kernels share a batch out by its length, so the last bits of float32 may differ.
        torch.testing.assert_close(both[index], alone[0], rtol=0, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_a_controlnet_guides_every_stage_of_a_clip() -> None:
    pipe = tiny_video_controlnet(built("animatediff"))
    family = TINY["animatediff"]
    bars, blank = moving(2), [Image.new("RGB", (64, 64))] * 2
    made = [run(pipe, family, **SHORT, conditioning_frames=clip).stages for clip in (bars, blank)]
    for index, size in enumerate((8, 16)):
        first, other = (stages[index].latents for stages in made)
        assert first.shape == (1, 4, 2, size, size)
        assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_mixed_noise_keeps_its_variance_and_has_the_asked_correlation(share: float) -> None:
    own, common = torch.randn(1, 4, 6, 64, 64, generator=seeded(1)), torch.randn(1, 4, 1, 64, 64, generator=seeded(2))
    noise = mixed_noise(own, common, share)
    correlation = torch.corrcoef(noise.transpose(1, 2).flatten(0, 1).flatten(1))
    assert torch.allclose(noise.var(dim=(0, 1, 3, 4)), torch.ones(6), atol=0.04)  # 16384 values a frame: sd 0.011
    expected = torch.full((6, 6), share).fill_diagonal_(1)
    assert torch.allclose(correlation, expected, atol=0.04)
    assert share > 0 or torch.equal(noise, own)
    assert share < 1 or torch.equal(noise, common.expand_as(noise))


@pytest.mark.parametrize("name", VIDEO)
def test_frames_share_a_stages_noise_as_far_as_asked(name: str) -> None:
    family = TINY[name]
    cascade = SelfCascade(built(name), native_size=family.native)
    stage = cascade.plan(num_inference_steps=4)[1]
    z_0 = torch.zeros(
        1, cascade.pipe.vae.config.get("z_dim", cascade.pipe.vae.config.get("latent_channels")), 3, 16, 16
    )

    def renoised(share: float) -> Tensor:
        request = Request(None, seeded(4), "latent", family.inputs)
        base = PipelineBaseModel(cascade.family, request, PivotSettings(shared_noise=share))
        return base.renoise(z_0, stage, PipelineSample(z_0)).z_K

    own, half, whole = (renoised(share) for share in (0.0, 0.5, 1.0))
    assert torch.equal(whole, whole[:, :, :1].expand_as(whole))
    scale = own.std()
    assert abs(half.std() / scale - 1) < 0.1
    for noise, correlation in ((own, 0.0), (half, 0.5)):
        first, second = (noise[:, :, index].flatten() / scale for index in (0, 1))
        assert abs((first * second).mean() - correlation) < 0.15  # 1024 values and more: sd 0.035


@pytest.mark.parametrize("name", ["animatediff", "cogvideox"])
def test_sharing_no_noise_changes_no_bit_and_sharing_some_does(name: str) -> None:
    family = TINY[name]
    short = SHORT | {"num_frames": 2 if name == "animatediff" else 9}
    shares: list[dict[str, Any]] = [{}, {"shared_noise": 0}, {"shared_noise": 0.5}]
    latents = [run(built(name), family, **short, **share).stages[1].latents for share in shares]
    assert torch.equal(latents[0], latents[1])
    assert not torch.allclose(latents[0], latents[2], atol=1e-3)


def test_parts_of_a_clip_make_the_whole() -> None:
    clip = torch.randn(2, 3, 7, 4, 4, generator=seeded())
    for count in (1, 2, 3, 7, 9):
        seen: list[int] = []

        def doubled(part: Tensor, seen: list[int] = seen) -> Tensor:
            seen.append(part.shape[2])
            return 2 * part[:, :1]

        assert torch.equal(over_frames(doubled, clip, count), 2 * clip[:, :1])
        assert max(seen) == min(count, 7) and sum(seen) == 7
    lists = join_parts(iter([[["a"], ["d"]], [["b", "c"], ["e", "f"]]]), 3, axis=1)
    assert lists == [["a", "b", "c"], ["d", "e", "f"]]
    arrays = join_parts(iter([np.zeros((2, 1, 3)), np.ones((2, 2, 3))]), 3, axis=1)
    assert arrays[:, :, 0].tolist() == [[0, 1, 1]] * 2


@pytest.mark.parametrize(
    ("clips", "side", "count"), [(1, 64, 16), (1, 256, 16), (1, 512, 4), (2, 512, 2), (1, 1024, 1), (8, 2048, 1)]
)
def test_a_megapixel_is_coded_at_once(clips: int, side: int, count: int) -> None:
    assert frames_at_once(clips, Size(side, side)) == count


@pytest.mark.parametrize(
    ("name", "kind"), [("animatediff", "pil"), ("animatediff", "np"), ("text-to-video-synthesis", "pt")]
)
def test_frames_in_parts_are_those_of_the_pipelines_own_decoding(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = TINY[name]
    pipe = built(name)
    settings = {**family.inputs, "num_inference_steps": 1, "output_type": kind, "num_frames": 5}
    settings |= {"height": 64, "width": 64}
    plain = pipe(**settings, generator=seeded(), return_dict=False)[0]
    whole = SelfCascade(pipe, native_size=(64, 64))(**settings, generator=seeded()).frames
    monkeypatch.setattr(frames, "FRAMES_AT_ONCE", 2)
    decoded: list[int] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, **more: decoded.append(len(z)) or decode(z, **more))
    parts = SelfCascade(pipe, native_size=(64, 64))(**settings, generator=seeded()).frames
    assert decoded == [2, 2, 1]
    if kind == "pil":
        plain, whole, parts = ([as_bytes(clip) for clip in clips] for clips in (plain, whole, parts))
    plain, whole, parts = (torch.as_tensor(np.asarray(clips)) for clips in (plain, whole, parts))
    assert torch.equal(whole, plain)
    # Kernels share a batch out by its length: the last bits of float32, so at most one level where rounding tips over.
    torch.testing.assert_close(parts.float(), plain.float(), rtol=0, atol=1 if kind == "pil" else 1e-5)


def test_the_pipelines_own_chunk_size_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    family, pipe = TINY["animatediff"], built("animatediff")
    decoded: list[int] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, **more: decoded.append(len(z)) or decode(z, **more))
    for chunk, count in ((3, 4), (18, 18)):
        options = {"num_frames": count, "num_inference_steps": 1, "output_type": "pt"}
        run(pipe, family, scale=1, decode_chunk_size=chunk, **options)
    assert decoded == [3, 1, 18]
    with pytest.raises(ValueError, match="decode_chunk_size must be a positive whole number, not 0"):
        run(pipe, family, decode_chunk_size=0)


def test_a_vae_that_overflows_in_half_precision_decodes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_video_xl().to(torch.float16)
    decoded: list[torch.dtype] = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, **more: decoded.append(z.dtype) or decode(z, **more))
    settings = {"height": 64, "width": 64, "num_frames": 2, "num_inference_steps": 1, "output_type": "pt"}
    made = SelfCascade(pipe, native_size=(64, 64))("a fish", **settings, generator=seeded())
    assert decoded == [torch.float32] and pipe.vae.dtype == torch.float16
    assert made.stages[0].latents.dtype == torch.float16 and made.frames.isfinite().all()

    def overflow(z: Tensor, **_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipe.vae, "decode", overflow)
    with pytest.raises(RuntimeError, match="out of memory"):
        SelfCascade(pipe, native_size=(64, 64))("a fish", **settings)
    assert pipe.vae.dtype == torch.float16


def test_free_init_runs_at_the_base_stage_only() -> None:
    family = TINY["animatediff"]
    pipe: Any = family.build()
    pipe.enable_free_init(num_iters=2)
    steps: list[int] = []

    def count(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        steps.append(kwargs["stage"].index)
        return {}

    run(pipe, family, **SHORT, callback_on_step_end=count)
    assert steps.count(0) == 2 * steps.count(1) == 4
    assert pipe._free_init_num_iters == 2


def test_free_noise_lifts_the_limit_of_the_motion_adapter() -> None:
    family = TINY["animatediff"]
    pipe: Any = family.build()
    pipe.enable_free_noise(context_length=16, context_stride=8)
    assert run(pipe, family, scale=1, num_frames=33, num_inference_steps=1).frames.shape[2] == 33


@ONE_IS_ENOUGH
def test_the_rgb_pivot_is_enlarged_in_parts_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = TINY[name]
    pipe = built(name)
    whole = run(pipe, family, **SHORT, upsampling="rgb").stages[1].latents
    monkeypatch.setattr(frames, "FRAMES_AT_ONCE", 1)
    coded: list[int] = []
    encode = pipe.vae.encode
    monkeypatch.setattr(pipe.vae, "encode", lambda x, **more: coded.append(len(x)) or encode(x, **more))
    parts = run(pipe, family, **SHORT, upsampling="rgb").stages[1].latents
    assert coded == [1] * 2
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)  # the last bits of float32, through two steps


@pytest.mark.parametrize("told", [False, True], ids=["0.9.0", "0.9.1"])
def test_ltx_decodes_whether_or_not_its_vae_is_told_the_noise_level(told: bool) -> None:
    family = TINY["ltx"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe: Any = quiet(ltx(timestep_conditioning=told))
    settings = {**family.inputs, "height": 64, "width": 64, "num_inference_steps": 1}
    plain = pipe(**settings, output_type="pt", generator=seeded()).frames  # (B, F, 3, H, W) in [0, 1]
    cascade = SelfCascade(pipe, native_size=family.native)
    latents = cascade(**settings, output_type="latent", generator=seeded()).stages[0].latents
    decoded = cascade.family.decode(latents).transpose(1, 2)
    assert torch.equal((decoded / 2 + 0.5).clamp(0, 1), plain)
    larger = run(pipe, family, **SHORT | {"num_frames": 9}, upsampling="rgb", output_type="pt").frames
    assert larger.shape == (1, 9, 3, 128, 128) and larger.isfinite().all()


QUICK = ("animatediff", "wan")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in VIDEO]
)
def test_an_own_clip_is_enlarged(name: str) -> None:
    family = TINY[name]
    pipe = built(name)
    words = {key: value for key, value in family.inputs.items() if key not in ("prompt", "num_frames")}
    count = family.inputs["num_frames"]
    cascade = SelfCascade(pipe, native_size=family.native)
    settings = {**words, "num_inference_steps": 2, "pivot_step": 700, "output_type": "pt"}
    prompt = family.inputs.get("prompt")
    out = cascade.upscale(moving(count), prompt, **settings, generator=seeded())
    assert out.frames.shape == (1, count, 3, 128, 128)
    assert [stage.pivot_step for stage in out.stages] == [700]
    assert out.frames.isfinite().all() and out.stages[0].latents.shape[-1] == 16


def test_clips_are_read_in_every_form() -> None:
    clip, expected = moving(), torch.from_numpy(as_bytes(moving())).permute(0, 3, 1, 2)[None]
    fixed = as_bytes(clip)
    fixed.flags.writeable = False
    for form in (clip, [clip], as_bytes(clip), [as_bytes(clip)], as_bytes(clip[::-1])[::-1], fixed):
        assert clips_of(form).dtype == torch.uint8 and torch.equal(clips_of(form), expected)
    assert torch.equal(clips_of([clip, clip]), expected.repeat(2, 1, 1, 1, 1))
    assert torch.equal(clips_of(expected / 255), expected / 255)


def test_the_first_pivot_is_the_own_clip_cropped_enlarged_and_coded() -> None:
    cascade = SelfCascade(built("animatediff"), native_size=(64, 64))
    pixels = (clips_of(moving()) / 255).transpose(1, 2)
    z_0 = image_pivot(cascade.family, Request(["a", "b"]), pixels, Size(64, 128), Size(32, 64)).latents
    cut = lanczos(pixels[..., 16:48, :], Size(64, 128)).clamp(0, 1) * 2 - 1
    with torch.no_grad():
        frames = [cascade.family.encode(frame) for frame in cut.split(1, dim=2)]
    # Frames coded one by one and at once differ in the last bits of float32.
    torch.testing.assert_close(z_0, torch.cat(frames, 2).repeat(2, 1, 1, 1, 1), rtol=0, atol=1e-5)


def test_bytes_become_floats_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cascade = SelfCascade(built("animatediff"), native_size=(64, 64))
    whole = clips_of(moving()).transpose(1, 2)
    monkeypatch.setattr(frames, "FRAMES_AT_ONCE", 2)
    seen: list[tuple[torch.dtype, int]] = []
    made = as_floats

    def watched(pixels: Tensor) -> Tensor:
        seen.append((pixels.dtype, pixels.shape[2]))
        return made(pixels)

    monkeypatch.setattr("selfcascade.base_models.resizing.as_floats", watched)
    z_0 = image_pivot(cascade.family, Request("a"), whole, Size(64, 64), Size(32, 32)).latents
    assert seen == [(torch.uint8, 2)] * 2
    assert torch.equal(z_0, image_pivot(cascade.family, Request("a"), whole / 255, Size(64, 64), Size(32, 32)).latents)


def test_several_clips_and_one_for_several_prompts() -> None:
    family = TINY["animatediff"]
    cascade = SelfCascade(built("animatediff"), native_size=family.native)
    settings = {"num_inference_steps": 4, "pivot_step": 300, "output_type": "latent"}
    assert cascade.upscale([moving(2), moving(2)], "a", **settings).frames.shape[:3] == (2, 4, 2)
    assert cascade.upscale(moving(2), ["a", "b"], **settings).frames.shape[:3] == (2, 4, 2)
    with pytest.raises(ValueError, match="clip has 2 clips, and there are 3 prompts"):
        cascade.upscale([moving(2), moving(2)], ["a", "b", "c"], **settings)


BAD_CLIPS: list[tuple[Any, str]] = [
    (moving()[0], "clip must be a list of frames"),
    ([], "image must be a PIL image, a list of them"),
    ([moving(4), moving(5)], "clips of one size and length"),
    ([moving(1)[0], moving(1, 32)[0]], "pictures of one size"),
    (np.zeros((4, 64, 64, 3), np.float32), r"clip must be \(F, H, W, 3\) bytes"),
    (np.zeros((64, 64, 3), np.uint8), r"clip must be \(F, H, W, 3\) bytes"),
    (torch.zeros(4, 3, 64, 64), r"clip must be \(B, F, 3, H, W\) floats"),
    (torch.full((1, 4, 3, 64, 64), 2.0), "floats in"),
    ("clip.mp4", "clip must be a list of frames"),
    (moving(33), "num_frames must be at most 32"),
]


@pytest.mark.parametrize(("clip", "message"), BAD_CLIPS)
def test_what_is_no_clip_is_refused(clip: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfCascade(built("animatediff")).upscale(clip)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stable-diffusion", {"shared_noise": 0.5}, "shared_noise is for frames of video, and StableDiffusionPipeline"),
        ("stable-diffusion", {"shared_noise": 2}, "shared_noise must be a number from 0 to 1, not 2"),
        ("animatediff", {"shared_noise": float("nan")}, "shared_noise must be a number from 0 to 1, not nan"),
        ("animatediff", {"shared_noise": "all"}, "shared_noise must be a number from 0 to 1, not 'all'"),
        ("animatediff", {"num_frames": 33}, "num_frames must be at most 32, where the motion adapter"),
        ("animatediff", {"num_frames": 0}, "num_frames must be a whole number from 1 to 10000, not 0"),
        ("wan", {"num_frames": 16}, "one more than a multiple of 4 for WanPipeline, not 16; 17 is the nearest"),
        ("ltx", {"num_frames": 16}, "one more than a multiple of 8 for LTXPipeline, not 16; 17 is the nearest"),
        ("ltx", {"num_frames": 4}, "one more than a multiple of 8 for LTXPipeline, not 4; 1 is the nearest"),
        ("ltx", {"num_frames": 5}, "one more than a multiple of 8 for LTXPipeline, not 5; 9 is the nearest"),
        ("cogvideox", {"num_frames": 13}, "one more than a multiple of 8 for CogVideoXPipeline, not 13; 17 is"),
    ],
)
def test_clips_that_a_model_does_not_make_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    family = TINY[name]
    with pytest.raises(ValueError, match=message):
        run(built(name), family, **options)


def test_noise_to_share_where_no_stage_draws_any_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shared_noise, here 0\.5, is for stages above the base, and 64x64 has none"):
        run(built("animatediff"), TINY["animatediff"], scale=1, shared_noise=0.5)
    run(built("animatediff"), TINY["animatediff"], scale=1, shared_noise=0, **SHORT)


def test_another_length_than_the_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="num_frames is the clip's, 4, not 8; leave it out"):
        SelfCascade(built("animatediff")).upscale(moving(), num_frames=8)


def test_copies_of_a_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="num_videos_per_prompt cannot be given with a clip"):
        SelfCascade(built("wan"), native_size=(64, 64)).upscale(moving(5), num_videos_per_prompt=2)


def test_a_clip_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, 3, H, W\)"):
        SelfCascade(built("stable-diffusion")).upscale(torch.zeros(1, 4, 3, 64, 64))
