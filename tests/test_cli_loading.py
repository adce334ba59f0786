"""What the command line loads beside a model: it is what diffusers loads, and a record makes the picture again."""

# pyright: reportPrivateImportUsage=false

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors.torch import load_file, save_file

from cascade_runs import SD
from command_line import WITH_MODEL, record, refuse, run, succeed
from selfcascade import load_model
from selfcascade.loading.additions import call_keywords, with_controlnet
from selfcascade.loading.named_files import check_files
from selfcascade.options import Options
from tiny.saved_plugins import save_plugins
from tiny.single_files import save_single_file

pytestmark = pytest.mark.usefixtures("workplace")
SMALL = ["--steps", "3", "--preset", "paper"]


@pytest.fixture(scope="session")
def additions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA, a ControlNet, an IP-Adapter and a picture."""
    folder = tmp_path_factory.mktemp("additions")
    save_plugins(SD, folder, folder)
    return folder


def pixels(path: str | Path) -> bytes:
    return Image.open(path).tobytes()


@pytest.fixture(scope="session")
def plain(models: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The picture's pixels with nothing added."""
    path = tmp_path_factory.mktemp("plain") / "plain.png"
    succeed("generate", "a house", "--model", models / "sd", *SMALL, "--output", path)
    return pixels(path)


ADDED = {
    "scheduler": ["--scheduler", "dpm++ 2m karras"],
    "lora": ["--lora", "{0}/style.safetensors:0.8"],
    "two loras": ["--lora", "{0}/style.safetensors:0.5", "--lora", "{0}/style.safetensors:-1"],
    "controlnet": ["--controlnet", "{0}/controlnet", "--control-image", "{0}/shown.png", "--control-scale", "0.7"],
    "ip-adapter": ["--ip-adapter", "{0}/ip.safetensors", "--ip-image", "{0}/shown.png"],
    "channels last": ["--channels-last", "--scheduler", "euler"],
}


@pytest.mark.filterwarnings("error:Already found a `peft_config`")  # nothing is told of a second LoRA
@pytest.mark.parametrize("options", ADDED.values(), ids=ADDED.keys())
def test_what_is_added_changes_the_picture_and_its_record_repeats_it(
    options: list[str], additions: Path, plain: bytes
) -> None:
    given = [one.format(additions) for one in options]
    (path,) = succeed("generate", "a house", *WITH_MODEL, *SMALL, *given, "--output", "added.png")
    assert pixels(path) != plain
    again = run("generate", "--from", "added.json", "--output", "again.png")
    assert again.exit_code == 0 and "the pixels are the same" in again.stderr, again.output


def test_a_controlnet_whose_features_have_another_size_is_refused_in_a_line(additions: Path) -> None:
    unet = SD.build().unet
    ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8)).save_pretrained("coarse")
    given = [*SMALL, "--controlnet", "coarse", "--control-image", additions / "shown.png"]
    told = refuse("generate", "a house", *WITH_MODEL, *given)
    words = "it reduces its picture 2 times a side, and the model's latents are 8 times smaller"
    assert told.endswith(f"--controlnet 'coarse' does not go with the model: {words}")


def test_a_single_file_is_bit_for_bit_its_folder(models: Path) -> None:
    save_single_file(load_model(str(models / "sd")), Path("sd.safetensors"))
    one, other = load_model("sd"), load_model("sd.safetensors", config="sd")
    for name in ("unet", "vae", "text_encoder"):
        expected, found = (getattr(pipe, name).state_dict() for pipe in (one, other))
        assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    (folder,) = succeed("generate", "a house", *WITH_MODEL, *SMALL, "--output", "folder.png")
    file = ["--model", "sd.safetensors", "--config", "sd"]
    (single,) = succeed("generate", "a house", *file, "--steps", "4", *SMALL, "--output", "single.png")
    assert pixels(folder) == pixels(single)
    assert record(single)["settings"]["config"] == "sd"
    assert "--config 'nowhere' is not a folder" in refuse("plan", "--model", "sd.safetensors", "--config", "nowhere")


def test_a_file_that_changed_or_is_gone_is_said_before_a_model_is_loaded(additions: Path) -> None:
    weights = Path("own.safetensors")
    weights.write_bytes((additions / "style.safetensors").read_bytes())
    succeed("generate", "a house", *WITH_MODEL, *SMALL, "--lora", "own.safetensors", "--output", "a.png")
    assert list(record("a.png")["settings"]["files_sha256"]) == ["own.safetensors"]
    save_file({"lora.weight": torch.zeros(1)}, weights)
    gone = ["--model", "owner/missing"]
    assert "'own.safetensors' is not the file that was recorded" in refuse("generate", "--from", "a.json", *gone)
    weights.unlink()
    assert "--lora 'own.safetensors' does not exist" in refuse("generate", "--from", "a.json", *gone)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lora", "none.safetensors"], "--lora 'none.safetensors' does not exist"),
        (["--lora", "{0}/shown.png"], "--lora must be a .safetensors file"),
        (["--lora", "{0}/ip.safetensors"], "holds no LoRA"),
        (["--lora", "{0}/controlnet:0.5"], "holds no LoRA"),
        (["--controlnet", "{0}/controlnet"], "--controlnet needs --control-image"),
        (["--ip-adapter", "{0}/style.safetensors", "--ip-image", "{0}/shown.png"], "holds no IP-Adapter"),
        (
            ["--ip-adapter", "{0}/ip.safetensors", "--ip-image", "none.png"],
            "--ip-image: image 'none.png' does not",
        ),
        (["--scheduler", "eulr"], "did you mean euler?"),
        (["--offload", "model", "--device", "cpu"], "--offload spares the memory of a GPU"),
        (["--config", "sd"], "--config is for --model of a .safetensors file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(options: list[str], words: str, additions: Path) -> None:
    given = [one.format(additions) for one in options]
    assert words in refuse("generate", "a house", "--model", "owner/missing", *given)


@pytest.mark.parametrize("kind", ["lora", "controlnet", "ip-adapter"])
def test_a_batch_does_not_go_on_with_another_file_of_the_same_name(kind: str, additions: Path) -> None:
    changed = {"lora": "style.safetensors", "controlnet": "shown.png", "ip-adapter": "shown.png"}[kind]
    for place in additions.iterdir():
        (shutil.copytree if place.is_dir() else shutil.copy)(place, place.name)
    Path("rows.jsonl").write_text('{"prompt": "a house"}\n')
    command = ["batch", "rows.jsonl", "--output", "out", *WITH_MODEL, *SMALL, *(one.format(".") for one in ADDED[kind])]
    succeed(*command)
    succeed(*command)
    if changed == "shown.png":
        Image.new("RGB", (128, 128), "red").save(changed)
    else:
        state = load_file(changed)
        save_file({name: 2 * value for name, value in state.items()}, changed)
    assert f"'{changed}' is another file than it was (its SHA-256 differs)" in refuse(*command)


def test_a_control_picture_that_changes_during_a_run_is_refused(additions: Path) -> None:
    shutil.copy(additions / "shown.png", "shown.png")
    pipe = with_controlnet(SD.build(), str(additions / "controlnet"))
    options = Options(model="sd", controlnet=str(additions / "controlnet"), control_image="shown.png")
    options = check_files(options)
    assert set(call_keywords(pipe, options)) == {"image"}
    Image.new("RGB", (128, 128), "red").save("shown.png")
    with pytest.raises(ValueError, match="is not the file that was recorded"):
        call_keywords(pipe, options)
