"""The command line on a tiny real pipeline: pictures that can be made again, bit for bit."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from command_line import SRC, WITH_MODEL, fork, made, record, refuse, run, start, succeed
from selfcascade import METHODS
from tiny import TINY
from tiny.unets import super_resolver

pytestmark = pytest.mark.usefixtures("workplace")


def test_a_picture_is_made_with_its_record() -> None:
    (path,) = succeed("generate", "a red house", *WITH_MODEL, "--height", "256", "--width", "192", "--seed", "5")
    assert path == str(Path("outputs/picture.png"))
    with Image.open(path) as image:
        assert image.size == (192, 256)
        parameters = image.info["parameters"].splitlines()
    assert parameters[0] == "a red house"
    assert parameters[1].startswith("Steps: 4, Sampler: DDIM, CFG scale: 7.5, Seed: 5, Size: 192x256, Model: sd, ")
    assert parameters[1].endswith(", Version: selfcascade 0.1.0")
    settings, result = record(path)["settings"], record(path)["result"]
    assert settings["pivot_step"] == [500]
    assert (settings["preset"], settings["upsampling"]) == ("quality", "rgb")
    assert [(stage["height"], stage["width"]) for stage in result["stages"]][-1] == (256, 192)
    assert [stage["pivot_step"] for stage in result["stages"]] == [None, 500]
    assert set(record(path)["versions"]) >= {"selfcascade", "torch", "diffusers"}


CASES = {
    "defaults": "",
    "paper": "--preset paper",
    "all": "--height 320 --width 256 --seed 7 --pivot-step 600 --preset rgb --guidance-scale 2 --negative-prompt blur",
    "stages": "--height 512 --width 512 --pivot-step 800 --pivot-step 500 --upsampling latent-bicubic",
    "quality": "--energy 0.25",
    "fast": "--preset fast",
    "native": "--height 128 --width 128",
    "small native": "--native-size 64x64 --height 128 --width 128",
    "direct": "--method direct --dtype float32 --device cpu",
}
# Read from the picture's own text too, which holds the same record.
WITH_PICTURE = CASES["all"], CASES["direct"]


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_a_record_gives_the_same_pixels(options: str) -> None:
    (first,) = succeed("generate", "a house 🏠, at night", *WITH_MODEL, *options.split(), "--output", "first.png")
    recorded = [Path(first).with_suffix(".json"), *([Path(first)] if options in WITH_PICTURE else [])]
    for source in recorded:
        result = run("generate", "--from", source, "--output", "again.png", "--force")
        assert result.exit_code == 0
        assert f"the pixels are the same as recorded in {source}" in result.stderr
        assert Path("again.png").read_bytes() == Path(first).read_bytes()
        assert record("again.png")["settings"] == record(first)["settings"]


def test_a_record_with_other_options_is_another_picture() -> None:
    succeed("generate", "a house", *WITH_MODEL, "--output", "a.png")
    result = run("generate", "--from", "a.json", "--seed", "1", "--preset", "rgb", "--output", "b.png")
    assert "the same as" not in result.stderr
    assert record("b.png")["settings"] == record("a.png")["settings"] | {
        "seed": 1,
        "preset": "rgb",
        "pivot_step": [700],
        "anchor": 0.0,
        "energy": 0.0,
        "attention": "full",
    }


def test_pixels_that_changed_are_reported() -> None:
    succeed("generate", "a house", *WITH_MODEL, "--output", "a.png")
    changed = record("a.png")
    changed["settings"]["seed"] = 1
    Path("a.json").write_text(json.dumps(changed))
    result = run("generate", "--from", "a.json")
    assert "the pixels are NOT the same" in result.stderr


def test_each_of_many_pictures_is_the_one_its_seed_gives_alone() -> None:
    paths = succeed("generate", "a house", *WITH_MODEL, "--seed", "3", "--count", "3", "--output", "a.png")
    assert paths == ["a.png", "a-2.png", "a-3.png"]
    assert [record(path)["settings"]["seed"] for path in paths] == [3, 4, 5]
    (alone,) = succeed("generate", "a house", *WITH_MODEL, "--seed", "5", "--output", "alone.png")
    assert Path(alone).read_bytes() == Path("a-3.png").read_bytes()


def test_force_overwrites_the_named_file_and_no_other() -> None:
    for _ in range(2):
        paths = succeed("generate", "a house", *WITH_MODEL, "--count", "2", "--output", "a.png", "--force")
        assert paths == ["a.png", "a-2.png"]


@pytest.mark.parametrize("extension", [".jpg", ".webp"])
def test_other_formats(extension: str) -> None:
    (path,) = succeed("generate", "a house", *WITH_MODEL, "--output", f"a{extension}")
    assert Image.open(path).size == (256, 256)


def test_an_own_picture_is_enlarged_and_the_record_repeats_it(tmp_path: Path) -> None:
    Image.effect_noise((150, 130), 60).save("own.jpg")
    (path,) = succeed("upscale", "own.jpg", *WITH_MODEL, "--prompt", "noise", "--output", "big.png")
    assert Image.open(path).size == (304, 256)
    settings = record(path)["settings"]
    assert settings["image"] == "own.jpg"
    assert len(settings["image_sha256"]) == 64
    result = run("generate", "--from", "big.json", "--output", "again.png")
    assert "the pixels are the same" in result.stderr
    assert Path("again.png").read_bytes() == Path("big.png").read_bytes()
    Image.effect_noise((150, 130), 60).save("own.jpg")
    assert "is not the file that was recorded" in refuse("generate", "--from", "big.json")


def test_plan_shows_the_stages_and_makes_nothing(tmp_path: Path) -> None:
    result = run("plan", *WITH_MODEL, "--height", "512", "--width", "512")
    assert result.exit_code == 0, result.output
    for size in ("128x128", "256x256", "512x512", "TFLOPs", "500"):
        assert size in result.stdout
    assert made(tmp_path) == set()


def test_a_picture_is_held_to_so_much_memory_and_its_record_says_it() -> None:
    size = ("--height", "128", "--width", "128")
    refused = refuse("plan", *WITH_MODEL, *size, "--max-memory", "0.1MB")
    assert "--max-memory 0.1MB is too little for 128x128" in refused
    least = refused.split("it takes ")[1].split(",")[0]
    planned = run("plan", *WITH_MODEL, *size, "--max-memory", least)
    assert planned.exit_code == 0, planned.output
    assert f"within {least}: the VAE in tiles" in planned.stderr and "x the time" in planned.stderr
    assert (
        refuse("generate", "a house", *WITH_MODEL, *size, "--max-memory", "0.1MB", "--output", "small.png") == refused
    )
    succeed("generate", "a house", *WITH_MODEL, *size, "--max-memory", least, "--output", "small.png")
    assert record("small.png")["settings"]["max_memory"] == least
    assert run("generate", "--from", "small.json", "--output", "again.png").exit_code == 0
    assert Path("again.png").read_bytes() == Path("small.png").read_bytes()


def test_compare_makes_a_grid_a_table_and_a_record() -> None:
    lines = succeed("compare", "a house", *WITH_MODEL, "--output", "c.png")
    assert lines[-1] == "c.png"
    assert any("direct" in line for line in lines)
    assert Image.open("c.png").width > 512
    without_weights = [name for name in METHODS if name not in ("self-cascade-tuned", "full-ft", "lora", "sr")]
    assert [one["settings"]["method"] for one in record("c.png")["pictures"]] == without_weights
    assert "kind" in refuse("generate", "--from", "c.json")


def test_every_method_s_picture_comes_back_bit_for_bit() -> None:
    tuned = TINY["stable-diffusion"].build().unet
    tuned.conv_out.weight.data *= 1.1
    tuned.save_pretrained("trained/unet")
    super_resolver().save_pretrained("resolver")
    options = {"full-ft": ["--weights", "trained"], "sr": ["--weights", "resolver"]}
    pictures = {}
    for name in METHODS:
        if name in ("self-cascade-tuned", "lora"):
            continue
        succeed("generate", "a house", *WITH_MODEL, "--method", name, *options.get(name, []), "--output", "one.png")
        result = run("generate", "--from", "one.json", "--output", "again.png")
        assert result.exit_code == 0 and "the pixels are the same" in result.stderr, name
        pictures[name] = Image.open("one.png").tobytes()
        for path in ("one", "again"):
            Path(f"{path}.png").unlink()
            Path(f"{path}.json").unlink()
    assert len(set(pictures.values())) == len(pictures)
    inside = ["--method", "full-ft", "--weights", "trained", "--in-cascade"]
    succeed("generate", "a house", *WITH_MODEL, *inside, "--output", "inside.png")
    assert record("inside.png")["settings"]["in_cascade"] is True
    assert len(record("inside.png")["result"]["stages"]) == 2
    assert Image.open("inside.png").tobytes() not in pictures.values()


def test_info_names_what_is_there() -> None:
    text = "\n".join(succeed("info", "--model", "sd"))
    for fact in ("torch", "direct", "self-cascade", "paper", "StableDiffusionPipeline", "128x128", "DDIMScheduler"):
        assert fact in text
    assert "selfcascade" in "\n".join(succeed("info"))


def test_without_a_command_there_is_help() -> None:
    assert any("Usage" in line for line in succeed())
    assert succeed("--version")[0].startswith("selfcascade ")


@pytest.mark.parametrize("module", ["selfcascade", "selfcascade.cli"])
def test_the_command_is_a_module_too(module: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    said = subprocess.check_output([sys.executable, "-m", module, "--version"], text=True, env=environment)
    assert said.startswith("selfcascade ")


def test_shells_complete_commands_and_options() -> None:
    code = "import sys; sys.argv = ['selfcascade']; from selfcascade.cli import main; main()"
    asked = {"_SELFCASCADE_COMPLETE": "complete_bash", "COMP_WORDS": "selfcascade plan --pre", "COMP_CWORD": "2"}
    environment = {**os.environ, "PYTHONPATH": str(SRC), **asked}
    said = subprocess.run([sys.executable, "-c", code], text=True, env=environment, capture_output=True, check=False)
    assert said.stdout.split() == ["--preset"], said.stderr


def test_a_prompt_the_model_cannot_hold_is_remarked_on() -> None:
    result = run("generate", "word " * 100, *WITH_MODEL)
    assert result.exit_code == 0
    assert "reads 77; the rest is ignored" in result.stderr


def test_ctrl_c_ends_with_130_and_leaves_nothing(one_thread: None) -> None:
    options = ["--model", "sd", "--steps", "8", "--count", "1000", "--output", "out/a.png"]
    process, output, said = fork("generate", "a house", *options)
    with output, said:
        first = output.readline()
        time.sleep(0.5)
        os.kill(process, signal.SIGINT)
        errors = said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert errors.splitlines()[-1] == "selfcascade: interrupted"
    assert "Traceback" not in errors
    assert first.strip() == str(Path("out/a.png"))
    stems = [path.stem for path in Path("out").iterdir()]
    assert all(stems.count(stem) == 2 for stem in stems)


WITHOUT_TORCH: tuple[tuple[list[str], str], ...] = (
    (["generate", "a", "--method", "none"], "--method must be one of direct, attn-sf, "),
    (["upscale", "a.png", "--anchor", "2"], "--anchor must be a number from 0 to 1, not 2.0"),
    (["generate", "a", "--method", "direct", "--anchor", "0.5"], "--anchor is for methods self-cascade, "),
    (["generate", "a", "--method", "lora", "--weights", "b", "--anchor", "0.5"], "--anchor needs --in-cascade with"),
    (["generate", "a", "--method", "sr"], "method sr needs --weights: "),
    (["plan", "--pivot-step", "5000"], "--pivot-step must be a whole number from 1 to 1000, not 5000"),
    (["plan", "--model", "sd", "--pivot-step", "1001"], "--pivot-step must be a whole number from 1 to 1000, not 1001"),
    (["compare", "a", "--methods", "direct", "--anchor", "0.5"], "--anchor is for methods self-cascade, "),
    (["compare", "a", "--methods", "direct,none"], "--method must be one of direct, attn-sf, "),
)


def test_what_the_options_alone_forbid_is_refused_without_torch() -> None:
    code = """if True:
        import json, sys
        from selfcascade.cli import main
        for words in json.loads(sys.argv[1]):
            sys.argv = ["selfcascade", *words]
            try:
                main()
            except SystemExit as ended:
                print(ended.code, [name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
    """
    words = json.dumps([words for words, _ in WITHOUT_TORCH])
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", code, words]
    said = subprocess.run(command, text=True, env=environment, capture_output=True, check=True)
    assert said.stdout.splitlines() == ["2 []"] * len(WITHOUT_TORCH)
    for line, (_, sentence) in zip(said.stderr.splitlines(), WITHOUT_TORCH, strict=True):
        assert line.startswith(f"selfcascade: error: {sentence}"), line


def test_help_begins_with_what_everyone_needs() -> None:
    shown = run("generate", "--help").stdout
    headings = [line.strip("╭─╮ ") for line in shown.splitlines() if line.startswith("╭")]
    assert headings == [
        "Arguments",
        "Options",
        "Model",
        "Added to the model, and how it runs",
        "Methods other than the plain cascade",
        "Stages above the base",
        "Clips",
    ]
    first = shown.split("╰")[1]
    for name in ("--scale", "--height", "--seed", "--steps", "--preset", "--output", "--from", "--force"):
        assert name in first
    assert len(first.splitlines()) < len(shown.splitlines()) / 2.5


def test_help_is_fast() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start("--help")
    output, errors = process.communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 2  # of the processor, whatever else it does; 0.4 s seen
    assert process.returncode == 0
    assert "generate" in output
    assert errors == ""


def test_the_demonstration_writes_its_picture(tmp_path: Path) -> None:
    from selfcascade import demo

    path = demo.run(tmp_path / "demo.png", "sd", steps=2)
    pictures = record(path)["pictures"]
    assert [one["settings"]["method"] for one in pictures] == ["direct"] * 3 + ["self-cascade"] * 2
    assert [one["result"]["width"] for one in pictures] == [128, 256, 512, 256, 512]
    assert Image.open(path).width > 3 * 512


def test_a_crop_is_said_in_one_line_and_one_side_alone_cuts_nothing(workplace: Path) -> None:
    Image.new("RGB", (128, 64), "red").save("wide.png")
    square = run("upscale", "wide.png", *WITH_MODEL, "--height", "256", "--width", "256", "--output", "square.png")
    assert square.exit_code == 0, square.output
    said = "selfcascade: the image, 64x128, is cropped at its centre to 64x64, the ratio of 256x256; "
    assert [line for line in square.stderr.splitlines() if "cropped" in line] == [
        said + "give height or width alone to keep all of it"
    ]
    whole = run("upscale", "wide.png", *WITH_MODEL, "--height", "256", "--output", "whole.png")
    assert whole.exit_code == 0 and "cropped" not in whole.stderr
    assert Image.open("square.png").size == (256, 256) and Image.open("whole.png").size == (512, 256)
