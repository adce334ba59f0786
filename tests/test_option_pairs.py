"""Any two options of a command together: what they ask for is made, or one sentence says why not."""

# pyright: reportPrivateImportUsage=false

import itertools
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade_runs import QUICK
from command_line import run
from selfcascade import FeatureUpsamplers
from selfcascade.cli.flags import flag
from selfcascade.options import Options, uses
from tiny.saved_plugins import save_plugins

pytestmark = pytest.mark.usefixtures("workplace", "_traced_alone")
FIRST = {"generate": ["a house"], "plan": [], "upscale": ["own.png"], "compare": ["a house"]}
# Pairs of each command that are tried: each takes some tenths of a second, a plan more.
DRAWN = {"generate": 8, "plan": 3, "upscale": 8, "compare": 8}

# Words for each option, a list for each thing to say; "*" stands for the folder of what is added to the model.
VALUES: dict[str, list[list[str]]] = {
    "prompt": [["--prompt", "a red house"]],
    "negative_prompt": [["fog"]],
    "method": [["direct"], ["self-cascade-tuned"], ["hidiffusion"], ["lora"]],
    "height": [["128"], ["192"]],
    "width": [["128"]],
    "scale": [["2"], ["1"]],
    "pixels": [["4"]],
    "seed": [["7"]],
    "num_inference_steps": [["2"], ["3", "2"]],
    "guidance_scale": [["1"], ["5", "2"]],
    "preset": [["paper"], ["rgb"], ["quality"], ["fast"]],
    "pivot_step": [["600"]],
    "strength": [["0.5"]],
    "stage_prompt": [["bricks"]],
    "stage_negative_prompt": [["blur"]],
    "stage_scheduler": [["euler"]],
    "stage_lora_scale": [["0.5"]],
    "upsampling": [["rgb"]],
    "pivot_upscaler": [["bundled"]],
    "anchor": [["0.3"]],
    "energy": [["0.5"]],
    "attention": [["local"]],
    "shared_noise": [["0.2"]],
    "upsamplers": [["*/upsamplers"]],
    "upsampler_scale": [["0.5"]],
    "weights": [["*/lora"]],
    "in_cascade": [[]],
    "dilated_share": [["0.5"]],
    "noise_level": [["20"]],
    "num_frames": [["2"]],
    "fps": [["8"]],
    "start": [["0.5"]],
    "vae_tiling": [[]],
    "model": [["sd"]],
    "config": [["*"]],
    "device": [["cpu"]],
    "dtype": [["float32"], ["bfloat16"]],
    "native_size": [["64x64"], ["32x64"]],
    "scheduler": [["dpm++ 2m karras"], ["euler"]],
    "lora": [["*/lora/style.safetensors:0.5"]],
    "controlnet": [["*/controlnet", "--control-image", "*/shown.png"]],
    "control_image": [["*/shown.png"]],
    "control_scale": [["0.5"], ["0.5", "--controlnet", "*/controlnet", "--control-image", "*/shown.png"]],
    "ip_adapter": [["*/ip.safetensors", "--ip-image", "*/shown.png"]],
    "ip_image": [["*/shown.png"]],
    "ip_scale": [["0.5"], ["0.5", "--ip-adapter", "*/ip.safetensors", "--ip-image", "*/shown.png"]],
    "offload": [["model"]],
    "max_memory": [["8GB"]],
    "compile": [[]],
    "channels_last": [[]],
    "autocast": [[]],
}


def options_of(command: str) -> list[str]:
    """The options that a command has as flags."""
    return [name for name, use in uses().items() if command in use.commands and command not in use.positional]


def pairs(command: str) -> list[list[str]]:
    """All pairs of two options' words, in an order that one seed gives."""
    found = [
        [*spelt(one, first), *spelt(other, second)]
        for one, other in itertools.combinations(options_of(command), 2)
        for first in VALUES[one]
        for second in VALUES[other]
    ]
    random.Random(20).shuffle(found)
    return found


def spelt(name: str, words: list[str]) -> list[str]:
    """The option and its values, each after a flag of its own where there are several."""
    shown = flag(name)
    if not words:
        return [shown]
    plain = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
    return [part for word in plain for part in (shown, word)] + words[len(plain) :]


@pytest.fixture(scope="session")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is added to the quick model: a LoRA, a ControlNet, an IP-Adapter, upsamplers, and a picture to show."""
    folder = tmp_path_factory.mktemp("added")
    save_plugins(QUICK, folder, folder / "lora")
    FeatureUpsamplers.from_unet(QUICK.build().unet).save_pretrained(folder / "upsamplers")
    return folder


@pytest.fixture
def _traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are compiled run as they are: what is at stake here is which options go together."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *args, **options: None)


def check_pair(command: str, words: list[str], added: Path, model: str) -> None:
    """Runs a command: it makes what it says, or ends with a sentence and leaves nothing."""
    shown = [word.replace("*", str(added)) for word in words]
    given = shown if "--model" in shown else [*shown, "--model", model]
    given += [] if "--steps" in shown else ["--steps", "2"]
    given += ["--methods", "direct,self-cascade"] if command == "compare" else []
    Image.open(added / "shown.png").save("own.png")
    out = [] if command == "plan" else ["--output", "made.png"]
    result = run(command, *FIRST[command], *given, *out)
    told = f"{command} {' '.join(words)}\n{result.output}"
    assert result.exit_code in (0, 2), told
    assert Path("made.png").is_file() == (result.exit_code == 0 and command != "plan"), told
    if result.exit_code == 2:
        (line,) = [line for line in result.stderr.splitlines() if "NOTE" not in line][-1:]
        assert line.startswith("selfcascade: error: ") and "Traceback" not in result.output, told


def test_every_option_has_a_value_to_try() -> None:
    wanted = {name for command in FIRST for name in options_of(command)}
    assert wanted <= set(VALUES) | {"prompt"} and set(VALUES) <= set(Options.model_fields)


@pytest.mark.parametrize(
    ("command", "number"), [(command, number) for command, count in DRAWN.items() for number in range(count)]
)
def test_two_options_go_together_or_are_refused(command: str, number: int, added: Path, quick_model: str) -> None:
    check_pair(command, pairs(command)[number], added, quick_model)
