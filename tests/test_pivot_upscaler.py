"""`pivot_upscaler`: a super-resolution model of the user's own enlarges pivots, as pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cascade_runs import QUICK, SETTINGS, seeded
from command_line import record, refuse, succeed
from selfcascade import METHODS, SelfCascade
from selfcascade.base_models import family_of, pixel_upscaling
from selfcascade.base_models.driver import PipelineBaseModel, PipelineSample
from selfcascade.base_models.pivot_controls import PivotSettings
from selfcascade.base_models.pixel_tiles import in_tiles
from selfcascade.base_models.pixel_upscaling import PixelUpscaler
from selfcascade.base_models.request import Request
from selfcascade.base_models.resizing import lanczos
from selfcascade.cascade import Size
from selfcascade.evaluation import Sampling
from selfcascade.evaluation.tflops import planned_tflops
from selfcascade.options import Options
from selfcascade.options.checks import OptionError
from selfcascade.pipeline.named_upscalers import held_upscaler, load_upscaler
from spandrel_models import save_upscaler, spandrel
from tiny import TINY
from tiny.parts import quiet
from tiny.unets import super_resolver

CALL: dict[str, Any] = {**SETTINGS, "preset": "rgb", "pivot_step": 400, "height": 128, "width": 128}
VIDEO = TINY["animatediff"]


def nearest(pixels: Tensor) -> Tensor:
    assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.dtype == torch.float32
    assert not torch.is_grad_enabled()
    return pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)


def cascade(pipe: Any = None) -> SelfCascade:
    return SelfCascade(QUICK.shared() if pipe is None else pipe, native_size=QUICK.native)


def made(**given: Any) -> Tensor:
    call: Any = {**QUICK.inputs, **CALL, "generator": seeded(), **given}
    return cascade()(**call).images


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of spandrel's, and files that hold none."""
    folder = tmp_path_factory.mktemp("upscalers")
    for scale in (1, 2, 4):
        save_upscaler(folder / f"{scale}x.safetensors", scale=scale)
    save_upscaler(folder / "grey.safetensors", scale=2, in_nc=1, out_nc=1)
    save_upscaler(
        folder / "window.safetensors",
        "SwinIR",
        **{"upscale": 2, "img_size": 16, "window_size": 8, "depths": [2], "embed_dim": 12, "num_heads": [2]},
        upsampler="pixelshuffledirect",
    )
    save_file({"weight": torch.zeros(3)}, folder / "unknown.safetensors")
    cut = {name: value for name, value in load_file(folder / "2x.safetensors").items() if name != "model.0.bias"}
    save_file(cut, folder / "cut.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"nothing")
    (folder / "old.pth").write_bytes(b"")
    (folder / "notes.txt").write_text("notes")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A StableDiffusionUpscalePipeline, which runs for three steps."""
    monkeypatch.setattr(pixel_upscaling, "STEPS", 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return quiet(super_resolver())


@pytest.mark.parametrize("name", ["stable-diffusion", "animatediff", "ltx"])
def test_the_enlarged_pivot_is_the_decoded_one_put_through_the_model_and_encoded(name: str) -> None:
    pipe: Any = TINY[name].shared()
    family = family_of(pipe)
    height, width = (side // family.factor for side in TINY[name].native)
    shape = (2, pipe.vae.config.latent_channels, *([3] if family.video else []), height, width)
    z_0 = torch.randn(shape, generator=seeded())
    size = Size(2 * height * family.factor, 2 * width * family.factor)
    upscaler = PixelUpscaler(nearest, torch.device("cpu"), Request())
    base = PipelineBaseModel(family, Request(["a", "b"]), PivotSettings("rgb", upscaler=upscaler))
    pixels = family.decode(z_0).clamp(-1, 1)
    frames = pixels.transpose(1, 2).flatten(0, 1) if family.video else pixels
    larger = interpolate(frames, scale_factor=2, mode="nearest")
    if family.video:
        larger = larger.unflatten(0, (2, -1)).transpose(1, 2)
    # Pixels go from [-1, 1] to [0, 1] and back, which rounds.
    assert torch.allclose(base.upsample(PipelineSample(z_0), size), family.encode(larger), atol=1e-5)


def test_a_model_that_is_lanczos_is_a_pivot_enlarged_as_a_picture() -> None:
    pipe: Any = QUICK.build()
    pipe.vae.decoder.conv_out.weight.data *= 0.1
    pipe.vae.decoder.conv_out.bias.data *= 0.1

    def doubled(pixels: Tensor) -> Tensor:
        larger = lanczos(pixels, Size(*(2 * side for side in pixels.shape[-2:])))
        assert larger.min() > 0 and larger.max() < 1  # nothing is cut off on the way
        return larger

    given: dict[str, Any] = {**QUICK.inputs, **CALL}
    plain = cascade(pipe)(**given, generator=seeded()).images
    # Pixels go from [-1, 1] to [0, 1] and back, which rounds.
    own = cascade(pipe)(**given, pivot_upscaler=doubled, generator=seeded()).images
    assert torch.allclose(own, plain, atol=1e-4)
    other = cascade(pipe)(**given, pivot_upscaler=nearest, generator=seeded()).images
    assert not torch.allclose(other, plain, atol=1e-3)


@pytest.mark.parametrize(("factor", "side", "times"), [(2, 128, 1), (4, 128, 1), (2, 256, 2), (2, 2048, 3)])
def test_a_model_runs_until_the_picture_is_large_enough_and_lanczos_does_the_rest(
    factor: int, side: int, times: int
) -> None:
    seen: list[tuple[int, ...]] = []

    def larger(pixels: Tensor) -> Tensor:
        seen.append(tuple(pixels.shape))
        return pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    pixels = torch.rand(1, 3, 64, 48, generator=seeded())
    out = PixelUpscaler(larger, torch.device("cpu"), Request())(pixels, Size(side, side * 3 // 4))
    assert seen == [(1, 3, 64 * factor**number, 48 * factor**number) for number in range(times)]
    expected = pixels.repeat_interleave(factor**times, -1).repeat_interleave(factor**times, -2)
    assert torch.allclose(out, lanczos(expected, Size(side, side * 3 // 4)).clamp(0, 1))


@pytest.mark.parametrize("name", ["2x", "4x", "window"])
def test_a_file_is_what_spandrel_makes_of_it(files: Path, name: str) -> None:
    path = files / f"{name}.safetensors"
    descriptor = spandrel().ModelLoader().load_from_file(path)
    named = made(pivot_upscaler=str(path))
    assert torch.equal(named, made(pivot_upscaler=descriptor))
    assert torch.equal(named, made(pivot_upscaler=lambda pixels: descriptor(pixels)))
    assert not torch.allclose(named, made(), atol=1e-3)


def test_a_network_keeps_its_own_precision() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

        def forward(self, pixels: Tensor) -> Tensor:
            return nn.functional.interpolate(pixels * self.weight, scale_factor=2)

    pixels = torch.rand(1, 3, 8, 8, generator=seeded())
    out = PixelUpscaler(Halved(), torch.device("cpu"), Request())(pixels, Size(16, 16))
    assert out.dtype == torch.float32
    assert torch.equal(out, interpolate(pixels.bfloat16().float(), scale_factor=2))


@pytest.mark.parametrize("kind", ["file", "pipeline"])
def test_pictures_made_together_are_those_made_alone(files: Path, resolver: Any, kind: str) -> None:
    upscaler = resolver if kind == "pipeline" else str(files / "2x.safetensors")
    given: dict[str, Any] = {**QUICK.inputs, **CALL, "pivot_upscaler": upscaler}
    prompts = ["a red house", "a tree"]
    together = cascade()(
        **{**given, "prompt": prompts, "negative_prompt": ["", ""], "generator": [seeded(1), seeded(2)]}
    )
    for index, prompt in enumerate(prompts):
        alone = cascade()(**{**given, "prompt": prompt, "negative_prompt": "", "generator": seeded(index + 1)})
        assert torch.allclose(alone.images[0], together.images[index], atol=1e-4)
    again = cascade()(**{**given, "prompt": "a tree", "negative_prompt": "", "generator": seeded(2)})
    assert torch.equal(again.images, alone.images)


def test_a_diffusion_upscaler_gets_the_prompt_and_the_generator_of_its_picture(resolver: Any) -> None:
    pixels, size = torch.rand(2, 3, 17, 9, generator=seeded()), Size(68, 36)
    request = Request(["a house", "a tree"], [seeded(1), seeded(2)])
    out = PixelUpscaler(resolver, torch.device("cpu"), request)(pixels, size)
    for index, prompt in enumerate(["a house", "a tree"]):
        padded = nn.functional.pad(pixels[index : index + 1], (0, 3, 0, 3), mode="replicate")
        settings = {"num_inference_steps": 3, "noise_level": 9, "output_type": "pt"}
        alone = resolver(prompt, padded, generator=seeded(index + 1), **settings).images
        assert torch.equal(out[index], alone[0, :, :68, :36])


def test_frames_of_a_clip_go_through_the_model_one_by_one(files: Path) -> None:
    pipe: Any = VIDEO.shared()
    path = files / "2x.safetensors"
    clips = SelfCascade(pipe, native_size=VIDEO.native)
    sides = {"height": 2 * VIDEO.native[0], "width": 2 * VIDEO.native[1]}
    given: dict[str, Any] = {**VIDEO.inputs, **SETTINGS, **sides, "preset": "rgb", "pivot_step": 400}
    out = clips(**given, pivot_upscaler=str(path), generator=seeded())
    model, shapes = load_upscaler(str(path)), []

    def noted(pixels: Tensor) -> Tensor:
        shapes.append(tuple(pixels.shape))
        return model(pixels)  # type: ignore[operator]

    again = clips(**given, pivot_upscaler=noted, generator=seeded())
    assert torch.equal(out.frames, again.frames)
    assert shapes == [(1, 3, *VIDEO.native)] * VIDEO.inputs["num_frames"]


def test_a_picture_to_enlarge_goes_through_the_model_where_the_first_stage_is_larger(resolver: Any) -> None:
    image, seen = torch.rand(1, 3, 60, 60, generator=seeded()), []

    def noted(pixels: Tensor) -> Tensor:
        seen.append(pixels.clone())
        return nearest(pixels)

    given = {"num_inference_steps": 4, "preset": "rgb", "output_type": "latent", "height": 128, "width": 128}
    out: Any = cascade().upscale(image, "a", pivot_upscaler=noted, generator=seeded(), **given)
    assert [one.shape[-1] for one in seen] == [60, 64]  # for the stages of 64 and of 128
    assert torch.equal(seen[0], image)
    assert out.images.shape[-1] == 16
    same: Any = cascade().upscale(torch.rand(1, 3, 128, 128), "a", pivot_upscaler=noted, generator=seeded(), **given)
    assert same.images.shape[-1] == 16 and len(seen) == 2
    pair = {**given, "generator": [seeded(1), seeded(2)], "pivot_upscaler": resolver}
    two: Any = cascade().upscale(image, ["a house", "a tree"], **pair)
    one: Any = cascade().upscale(image, "a tree", **{**pair, "generator": seeded(2)})
    assert torch.allclose(two.images[1], one.images[0], atol=1e-4)


def test_tiles_make_what_the_whole_picture_makes(files: Path) -> None:
    model: Any = load_upscaler(str(files / "2x.safetensors"))
    picture = torch.rand(1, 3, 100, 60, generator=seeded())
    tiled = in_tiles(model, side=80, margin=19)
    assert tiled is not model
    # No pixel of this model depends on others more than 19 away.
    assert torch.allclose(tiled(picture), model(picture), atol=1e-5)
    assert not torch.allclose(in_tiles(model, side=80, margin=1)(picture), model(picture), atol=1e-5)
    assert in_tiles(nearest) is nearest
    window: Any = load_upscaler(str(files / "window.safetensors"))
    assert in_tiles(window) is window  # spandrel advises against tiles


def test_a_record_makes_the_picture_again(files: Path, quick_model: str, workplace: Path) -> None:
    path, model = files / "2x.safetensors", ["--model", quick_model, "--steps", "4", "--preset", "rgb"]
    common = ["a house", *model, "--scale", "2"]
    (first,) = succeed("generate", *common, "--pivot-upscaler", path, "--output", "a.png")
    (plain,) = succeed("generate", *common, "--output", "plain.png")
    settings = record(first)["settings"]
    assert settings["pivot_upscaler"] == str(path)
    assert list(settings["files_sha256"]) == [str(path)]
    assert f"Hires upscaler: {path}" in Image.open(first).text["parameters"]  # type: ignore[attr-defined]
    (again,) = succeed("generate", "--from", "a.json", "--output", "b.png")
    assert Image.open(first).tobytes() == Image.open(again).tobytes() != Image.open(plain).tobytes()
    (copied := workplace / "mine.safetensors").write_bytes(path.read_bytes())
    mine = ["--pivot-upscaler", "mine.safetensors"]
    succeed("upscale", "plain.png", *model, *mine, "--output", "c.png")
    succeed("generate", *common, *mine, "--output", "d.png")
    save_file({**load_file(copied), "more": torch.zeros(1)}, copied)
    said = refuse("generate", "--from", "d.json", "--output", "e.png")
    assert "--pivot-upscaler 'mine.safetensors' is not the file that was recorded" in said
    succeed("compare", *common, "--methods", "direct,self-cascade", "--pivot-upscaler", path, "--output", "both.png")
    held = [one["settings"]["pivot_upscaler"] for one in record("both.png")["pictures"]]
    assert held == [None, str(path)]


def test_a_batch_has_one_upscaler(files: Path, quick_model: str, workplace: Path) -> None:
    (workplace / "rows.jsonl").write_text('{"prompt": "a house"}\n{"prompt": "a tree"}\n')
    model = ["--model", quick_model, "--steps", "4"]
    given = ["--preset", "rgb", "--pivot-upscaler", files / "2x.safetensors"]
    succeed("batch", "rows.jsonl", *model, *given, "--output", "rows")
    (workplace / "own.jsonl").write_text('{"prompt": "a house", "pivot_upscaler": "x.safetensors"}\n')
    assert "for the whole batch" in refuse("batch", "own.jsonl", *model, "--output", "own", "--dry-run")


REFUSED: dict[str, tuple[str, str]] = {
    "missing": ("missing.safetensors", "'missing.safetensors' does not exist"),
    "pickle": ("old.pth", "'old.pth' has a format that can run code when it is read; convert it to .safetensors"),
    "missing pickle": ("x/4x.PTH", "convert it to .safetensors"),
    "text": ("notes.txt", "must be a .safetensors file or a folder, not 'notes.txt'"),
    "folder": ("empty", "'empty' is a folder without model_index.json"),
    "unknown": ("unknown.safetensors", "holds no model that spandrel knows"),
    "cut": ("cut.safetensors", "'cut.safetensors' cannot be read: "),
    "damaged": ("damaged.safetensors", "'damaged.safetensors' cannot be read: "),
    "grey": ("grey.safetensors", "is not a super-resolution model that makes pictures in RGB"),
    "scale 1": ("1x.safetensors", "'1x.safetensors' has a scale of 1, so it does not enlarge"),
    "no model": ("no-such-upscaler", "'no-such-upscaler' does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_upscaler_is_refused_before_anything_is_sampled(
    case: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    name, words = REFUSED[case]
    with pytest.raises(OptionError) as caught:
        made(pivot_upscaler=name, callback_on_step_end=_never)
    assert words in str(caught.value) and str(caught.value).startswith("pivot_upscaler ")
    assert "\n" not in str(caught.value)


def _never(*_: Any) -> dict[str, Any]:
    raise AssertionError("a step ran")


def test_the_command_line_refuses_files_before_a_model_is_loaded(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    for name in ("missing.safetensors", "old.pth", "damaged.safetensors", "empty"):
        said = refuse("generate", "a", "--model", "no/model", "--pivot-upscaler", name, "--output", "never.png")
        assert f"--pivot-upscaler '{name}'" in said
    said = refuse("generate", "a", "--method", "direct", "--pivot-upscaler", "2x.safetensors", "--output", "never.png")
    assert "--pivot-upscaler is for methods self-cascade, self-cascade-tuned, restart-late, full-ft and lora" in said
    said = refuse("generate", "a", "--max-memory", "8GB", "--pivot-upscaler", "2x.safetensors", "--output", "never.png")
    assert "--pivot-upscaler cannot be given with --max-memory, as its memory is not counted" in said


def test_a_folder_of_another_pipeline_and_one_that_is_given_are_refused(models: Path) -> None:
    with pytest.raises(OptionError, match=r"pivot_upscaler '.*' is a .*, not a StableDiffusionUpscalePipeline"):
        made(pivot_upscaler=str(models / "sd"))
    with pytest.raises(OptionError, match="of class StableDiffusionPipeline is a pipeline, but not a"):
        made(pivot_upscaler=QUICK.shared())


def test_a_folder_of_an_upscaler_is_the_upscaler(resolver: Any, tmp_path: Path) -> None:
    resolver.save_pretrained(tmp_path)
    assert torch.equal(made(pivot_upscaler=str(tmp_path)), made(pivot_upscaler=resolver))


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "latents": ({"upsampling": "latent-bilinear"}, "so upsampling must be rgb, not latent-bilinear"),
    "preset": ({"preset": "paper"}, "so upsampling must be rgb, not latent-bilinear"),
    "memory": ({"max_memory": "8GB"}, "pivot_upscaler cannot be given with max_memory"),
    "no pivot": ({"height": 64, "width": 64, "pivot_step": None}, "is for stages above the base, and 64x64 has none"),
    "number": ({"pivot_upscaler": 4}, "must be a name, or a callable that enlarges pixels, not 4"),
    "class": ({"pivot_upscaler": nn.Identity}, "pivot_upscaler Identity is a class; give an object of it"),
    "blank": ({"pivot_upscaler": " "}, "pivot_upscaler must be the name of a model, not ' '"),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_that_it_does_not_fit_are_refused(case: str) -> None:
    given, words = CALLS[case]
    with pytest.raises(OptionError, match=words):
        made(**{"pivot_upscaler": nearest, "callback_on_step_end": _never, **given})


RESULTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "same": (lambda pixels: pixels, r"made \[1, 3, 64, 64\] of \[1, 3, 64, 64\]"),
    "grey": (lambda pixels: nearest(pixels)[:, :1], r"made \[1, 1, 128, 128\]"),
    "one side": (lambda pixels: pixels.repeat_interleave(2, -1), r"made \[1, 3, 64, 128\]"),
    "no tensor": (lambda pixels: None, "made NoneType"),
    "bytes": (lambda pixels: (255 * nearest(pixels)).byte(), r"made values from .*; they must be in \[0, 1\]"),
    "from -1": (lambda pixels: 2 * nearest(pixels) - 1, "made values from -1"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_a_result_that_is_no_larger_picture_is_refused(case: str) -> None:
    function, words = RESULTS[case]
    with pytest.raises(OptionError, match=words):
        made(pivot_upscaler=function)


class Learning(nn.Module):
    """Doubles sides, and would learn in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(3), nn.Dropout().eval()

    def forward(self, pixels: Tensor) -> Tensor:
        return nearest(self.frozen(self.norm(pixels)))


def test_a_network_runs_in_evaluation_mode_and_is_left_as_it_was() -> None:
    own = Learning()
    assert torch.equal(made(pivot_upscaler=own), made(pivot_upscaler=Learning().eval()))
    assert own.training and own.norm.training and not own.frozen.training
    assert own.norm.num_batches_tracked == 0 and not own.norm.running_mean.any()  # type: ignore[union-attr]


@pytest.mark.parametrize(("height", "width"), [(99, 150), (97, 131), (100, 100)])
def test_rounding_to_the_models_multiple_is_no_reason_to_run_again(height: int, width: int) -> None:
    seen: list[tuple[int, ...]] = []

    def counted(pixels: Tensor) -> Tensor:
        seen.append(tuple(pixels.shape[-2:]))
        return nearest(pixels)

    upscaler, picture = PixelUpscaler(counted, torch.device("cpu"), Request()), torch.rand(1, 3, height, width)
    size = Size(*(-(-2 * side // 8) * 8 for side in (height, width)))
    assert upscaler(picture, size).shape[-2:] == size and seen == [(height, width)]


def test_a_factor_that_is_not_whole_is_rounded_to_pixels() -> None:
    upscaler = PixelUpscaler(lambda pixels: interpolate(pixels, scale_factor=1.5), torch.device("cpu"), Request())
    assert upscaler(torch.rand(1, 3, 60, 67), Size(88, 96)).shape[-2:] == (88, 96)


def test_a_file_that_was_replaced_is_read_again(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes((files / "2x.safetensors").read_bytes())
    first: Any = held_upscaler(str(path))
    assert held_upscaler(str(path)) is first
    path.write_bytes((files / "4x.safetensors").read_bytes())
    second: Any = held_upscaler(str(path))
    assert (first.scale, second.scale) == (2, 4)


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(FloatingPointError, match="pivot_upscaler made values that are not finite"):
        made(pivot_upscaler=lambda pixels: nearest(pixels) / 0)


def test_a_diffusion_upscaler_needs_the_prompt_as_text(resolver: Any) -> None:
    embeds, negative = QUICK.shared().encode_prompt("a", "cpu", 1, True)
    given = {"prompt": None, "negative_prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": negative}
    with pytest.raises(OptionError, match="reads a prompt as text; give prompt, not embeddings"):
        made(pivot_upscaler=resolver, **given)
    assert made(pivot_upscaler=nearest, **given).shape[-1] == 16


def test_methods_of_the_cascade_take_it(files: Path) -> None:
    given = {
        **{name: CALL[name] for name in ("height", "width", "num_inference_steps", "output_type")},
        "pivot_step": 400,
    }
    run = METHODS["restart-late"]
    path = str(files / "2x.safetensors")
    out = run(QUICK.shared(), "a house", native_size=QUICK.native, pivot_upscaler=path, generator=seeded(), **given)
    plain = run(QUICK.shared(), "a house", native_size=QUICK.native, generator=seeded(), **given)
    assert not torch.allclose(out.images, plain.images, atol=1e-3)
    with pytest.raises(OptionError, match="pivot_upscaler is for methods"):
        METHODS["direct"](QUICK.shared(), "a house", height=128, width=128, pivot_upscaler=path)
    tuned = {"weights": "nowhere", "in_cascade": True, "pivot_upscaler": path, "preset": "paper"}
    with pytest.raises(OptionError, match="upsampling must be rgb"):  # before the base sample, and before the weights
        METHODS["lora"](QUICK.shared(), "a house", height=128, width=128, callback_on_step_end=_never, **tuned)


def test_samplings_without_it_are_as_before_and_with_it_have_no_planned_cost(files: Path) -> None:
    plain = Sampling(preset="rgb")
    assert "pivot_upscaler" not in plain.as_record()
    named = Sampling(preset="rgb", pivot_upscaler=str(files / "2x.safetensors"), num_inference_steps=4)
    assert json.loads(json.dumps(named.as_record()))["pivot_upscaler"] == str(files / "2x.safetensors")
    pipe = QUICK.shared()
    assert planned_tflops(pipe, plain.sized(pipe)) is not None
    assert planned_tflops(pipe, named.sized(pipe)) is None


def test_an_object_is_recorded_as_its_class_and_a_path_as_its_name() -> None:
    assert Options(pivot_upscaler=nn.Identity()).as_record()["pivot_upscaler"] == "Identity"
    assert Options(pivot_upscaler=Path("x.safetensors")).as_record()["pivot_upscaler"] == "x.safetensors"
