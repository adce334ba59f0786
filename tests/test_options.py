"""One list of options: what it refuses, and that commands, calls, records and methods are made from it."""

import importlib
import inspect
import json
import re
import typing
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from cascade_runs import SD, seeded
from selfcascade import METHODS, Preset, SelfCascade
from selfcascade.cli import app
from selfcascade.cli.flags import as_flags, help_of, with_options
from selfcascade.cli.records import gather
from selfcascade.making import KIND, read_options
from selfcascade.options import MAKE, PLAN, Options, Use, hints, uses
from selfcascade.options.checks import MAX_SIDE, OptionError, Share
from selfcascade.training.config import TrainingConfig

GENERATOR = torch.Generator()
REFUSED: list[tuple[str, Any, str]] = [
    ("anchor", 2, "a number from 0 to 1, not 2"),
    ("anchor", True, "a number from 0 to 1, not True"),
    ("anchor", "0.5", "a number from 0 to 1, not '0.5'"),
    ("anchor", float("nan"), "a number from 0 to 1, not nan"),
    ("energy", -0.1, "a number from 0 to 1, not -0.1"),
    ("scale", 0.5, "a number from 1 to 1024, not 0.5"),
    ("pivot_step", [700, None], "a whole number from 1 to 10000, not None"),
    ("pivot_step", [], r"a whole number from 1 to 10000, or one for each stage, not \[\]"),
    ("num_inference_steps", 1.0, "a whole number from 1 to 10000, not 1.0"),
    ("guidance_scale", [5, float("inf")], "a number from 0 to 1000, not inf"),
    ("upsampling", "nearest", "one of latent-bilinear, latent-bicubic, rgb, not 'nearest'"),
    ("preset", ["paper"], r"one of paper, rgb, quality, fast, not \['paper'\]"),
    ("vae_tiling", "yes", "true or false, not 'yes'"),
    ("vae_tiling", 1, "true or false, not 1"),
    ("return_dict", "no", "true or false, not 'no'"),
    ("generator", 5, "a torch.Generator or a list of them, not 5"),
    ("generator", [GENERATOR, 5], "a torch.Generator or a list of them, not .*"),
    ("output_type", "jpg", "one of pil, np, pt, latent, not 'jpg'"),
    ("upsampler_scale", 11, "a number from -10 to 10, not 11"),
    ("shared_noise", True, "a number from 0 to 1, not True"),
]


@pytest.fixture(scope="module")
def cascade() -> SelfCascade:
    return SelfCascade(SD.shared())


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
@pytest.mark.parametrize("call", ["__call__", "upscale", "plan"])
def test_a_call_refuses_values_out_of_range_by_name(cascade: Any, call: str, name: str, value: Any, words: str) -> None:
    if call not in uses()[name].calls:
        return
    first = () if call == "plan" else ("a house",)
    with pytest.raises(OptionError, match=f"^{name} must be {words}$"):
        getattr(cascade, call)(*first, **{name: value})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pivot_steps", "; did you mean pivot_step?"),
        ("steps", "; did you mean num_inference_steps?"),
        ("negative_promt", "; did you mean negative_prompt?"),
        ("upscaling", "; did you mean upsampling?"),
        ("xyz", ""),
        ("fps", ""),
        ("callback", ""),
    ],
)
def test_a_keyword_that_nobody_names_is_refused_with_the_nearest(cascade: Any, name: str, hint: str) -> None:
    assert "kwargs" in inspect.signature(cascade.pipe.__call__).parameters  # which would swallow it
    words = f"{name} is a keyword of neither SelfCascade nor StableDiffusionPipeline{hint}"
    for call in (cascade, cascade.upscale):
        with pytest.raises(OptionError, match=f"^{re.escape(words)}$"):
            call("a house", **{name: 500})


def test_keywords_of_a_pipeline_that_passes_them_on_are_known() -> None:
    class Mine(type(SD.shared())):  # type: ignore[misc]
        def __call__(self, *args: Any, extra: int = 0, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    pipe: Any = SD.build()
    pipe.__class__ = Mine
    made = SelfCascade(pipe)("a", num_inference_steps=2, eta=0.0, extra=1, output_type="latent", preset="paper")
    assert made.images.isfinite().all()
    with pytest.raises(OptionError, match="did you mean clip_skip"):
        SelfCascade(pipe)("a", clip_skips=1)


@pytest.mark.parametrize("call", ["__call__", "upscale", "plan"])
def test_the_signatures_of_calls_are_the_options(call: str) -> None:
    function = getattr(SelfCascade, call)
    typed = typing.get_overloads(function)[0] if call != "plan" else function
    shown = inspect.signature(typed)
    assert inspect.signature(function) == shown
    parameters = {
        name: parameter.default
        for name, parameter in shown.parameters.items()
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if name not in ("self", "prompt")
    }
    fields = Options.model_fields
    assert parameters == {name: fields[name].default for name, use in uses().items() if call in use.calls}


def test_the_limit_of_a_side_is_the_algorithms() -> None:
    from selfcascade import cascade

    assert MAX_SIDE == cascade.MAX_SIDE


BAD_PRESETS: list[tuple[str, Any]] = [
    *((name, value) for name in ("pivot_share", "later_pivot_share", "step_share") for value in (0, 1.1, True, "0.5")),
    *((name, value) for name in ("anchor", "energy") for value in (-0.1, 1.1, True, float("nan"))),
    ("upsampling", "nearest"),
    ("matched", 1),
    ("name", None),
]


@pytest.mark.parametrize(("name", "value"), BAD_PRESETS)
def test_a_preset_refuses_values_out_of_range(name: str, value: Any) -> None:
    given: dict[str, Any] = dict(name="own", summary="", pivot_share=0.5, later_pivot_share=0.5, upsampling="rgb")
    with pytest.raises(OptionError, match=f"^{name} must be "):
        Preset(**{**given, name: value})
    assert Preset(**given).step_share == 1


def test_scale_stands_for_height_and_width(cascade: Any) -> None:
    assert cascade.plan(scale=3) == cascade.plan(384, 384)
    assert cascade.plan(scale=2.51)[-1].size == (320, 320)  # to the nearest multiple of 8
    assert cascade.plan(scale=1) == cascade.plan(128, 128)
    assert cascade.plan(pixels=9) == cascade.plan(scale=3)  # by the number of pixels, not by the sides
    for size in ({"height": 256}, {"width": 256}):
        for ratio in ("scale", "pixels"):
            with pytest.raises(OptionError, match=rf"^{ratio} cannot be given with height or width"):
                cascade.plan(**{ratio: 2}, **size)
    with pytest.raises(OptionError, match=r"^scale cannot be given with pixels"):
        cascade.plan(scale=2, pixels=4)
    settings: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    own = torch.rand(1, 3, 96, 128, generator=seeded())
    scaled, sized = (
        cascade.upscale(own, "a", generator=seeded(), **settings, **size)
        for size in ({"scale": 1.5}, {"height": 144, "width": 192})
    )
    assert torch.equal(scaled.images, sized.images)


class Wider(Options):
    """The options with one more, as a contributor would add it."""

    glow: Annotated[Share | None, Use("How much it glows.", "0", PLAN, taken_by="cascade")] = None


COMMANDS = {info.callback.__name__: info.callback for info in app.registered_commands if info.callback is not None}


@pytest.mark.parametrize("command", sorted(PLAN))
def test_an_option_that_is_added_is_a_flag_of_every_command(command: str) -> None:
    wider = typer.Typer()
    wider.command(command)(with_options(command, Wider)(inspect.unwrap(COMMANDS[command])))
    shown = CliRunner().invoke(wider, ["--help"], env={"COLUMNS": "200"}).stdout
    assert "--glow" in shown and "How much it glows. (from 0 to 1; default: 0)" in shown
    for name, use in uses(Wider).items():
        flag = f"--{name.replace('_', '-')}"
        assert bool(re.search(rf"(?<!no){flag}\b(?!-)", shown)) == (command in use.commands - use.positional), name


def test_an_option_that_is_added_is_checked_recorded_read_and_taken(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^glow must be a number from 0 to 1, not 2$"):
        Wider(glow=2)
    options, _ = gather({"prompt": "a", "glow": 0.25}, kind=Wider)
    record = {"schema": 1, "kind": KIND, "settings": options.as_record()}
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert record["settings"]["glow"] == 0.25
    assert read_options(tmp_path / "a.json", Wider)[0] == options.changed(preset="paper")
    assert options.keywords() == {"glow": 0.25}


def test_an_option_that_is_added_is_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
    page: str = importlib.import_module("write_options").page(Wider)
    row = next(line for line in page.splitlines() if "`glow`" in line)
    commands = ", ".join(f"`{command}`" for command in sorted(PLAN))
    methods = "self-cascade, self-cascade-tuned, restart-late, full-ft, lora"
    words = f"How much it glows. | a number from 0 to 1 | 0 | {commands} | - | {methods} |"
    assert row == f"| `glow`<br>`--glow` | {words}"


def test_errors_name_the_flag_on_the_command_line_and_the_keyword_in_python() -> None:
    for name, flag in (("num_inference_steps", "--steps"), ("anchor", "--anchor"), ("prompt", "prompt")):
        error = OptionError(f"{{{name}}} is wrong: {{found}}", found="{anchor}")
        assert (str(error), as_flags(error)) == (f"{name} is wrong: {{anchor}}", f"{flag} is wrong: {{anchor}}")


def test_every_option_says_what_it_is() -> None:
    for name, use in uses().items():
        assert use.help[0].isupper() or use.help.startswith(("'", "cpu", "z_0")), name
        assert help_of(name, use, hints()[name]).startswith(use.help)
        assert use.commands or use.calls or name in ("image_sha256", "files_sha256"), name
    assert {name for name, use in uses().items() if use.commands >= MAKE} >= {"anchor", "preset", "seed", "vae_tiling"}


OLD = {
    "prompt": "a house",
    "negative_prompt": None,
    "model": "bundled",
    "method": "direct",
    "height": 256,
    "width": 256,
    "native_size": [64, 64],
    "seed": 3,
    "num_inference_steps": 4,
    "pivot_step": None,
    "preset": "quality",
    "upsampling": None,
    "upsamplers": None,
    "upsampler_scale": None,
    "guidance_scale": 3.0,
    "weights": None,
    "in_cascade": False,
    "frames": 16,
    "fps": 8.0,
    "start": None,
    "shared_noise": None,
    "anchor": None,
    "energy": None,
    "image": None,
    "image_sha256": None,
    "device": "cpu",
    "dtype": "float32",
}


def test_records_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They say `frames`, and hold options that the method then left out."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 1, "kind": KIND, "settings": OLD, "result": {"sha256": "0"}}))
    options, sha256 = read_options(path)
    assert (options.num_frames, options.native_size, options.preset, sha256) == (16, (64, 64), None, "0")
    METHODS["direct"].check(options.given())
    cascade = {**OLD, "method": "self-cascade", "preset": None, "pivot_step": [700], "upsampling": "latent-bilinear"}
    path.write_text(json.dumps({"schema": 1, "kind": KIND, "settings": cascade}))
    options, _ = read_options(path)
    assert (options.preset, options.pivot_step, options.upsampling) == ("paper", (700,), "latent-bilinear")


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("upsamplers", "rank", 8),
        ("full", "lora_alpha", 2.0),
        ("lora", "preset", "full"),
        ("full", "upsampling", "latent-bicubic"),
        ("lora", "temporal_kernel", 3),
        ("full", "decoder_rank", 2),
    ],
)
def test_training_refuses_what_its_method_does_not_use(method: Any, name: str, value: Any) -> None:
    given: dict[str, Any] = {"frames": 4} if name == "temporal_kernel" else {}
    others = "lora" if name in ("rank", "lora_alpha") else "upsamplers"
    with pytest.raises(ValueError, match=f"{name}, here {value}, is for method '{others}', not for '{method}'"):
        TrainingConfig(method=method, **{name: value}, **given)
    assert TrainingConfig(method=others, **{name: value}, **given).model_dump()[name] == value  # type: ignore[arg-type]


def test_a_rate_for_low_rank_weights_needs_some() -> None:
    with pytest.raises(ValueError, match=r"decoder_learning_rate, here 0\.002, needs a decoder_rank over 0"):
        TrainingConfig(decoder_learning_rate=0.002)
    assert TrainingConfig(decoder_rank=2, decoder_learning_rate=0.002).decoder_learning_rate == 0.002


def test_an_evaluation_of_a_seed_that_no_experiment_has_is_refused() -> None:
    suite = Path(__file__).parents[1] / "experiments/table1"
    result = CliRunner().invoke(app, ["evaluate", str(suite), "--seed", "99", "--dry-run"])
    assert result.exit_code == 2
    assert "--seed must be one of the experiments' own, 0" in result.stderr and ", not 99" in result.stderr
