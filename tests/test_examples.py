"""The example programs run as a reader would start them, with `--tiny`, and write what they say."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from command_line import COMMAND
from documents import ROOT

EXAMPLES = ROOT / "examples"
WRITTEN = {
    "sdxl_to_2k.py": {"base-0.png": (64, 64), "base-1.png": (64, 64), "large.png": (128, 128)},
    "own_photograph.py photo.jpg": {"photo-160x128-K300.png": (160, 128), "photo-160x128-K500.png": (160, 128)},
    "controlnet.py edges.png": {"controlled.png": (128, 128)},
    "video.py": {"clip.webp": (128, 128)},
    "train_adapter.py": {"strength-0.png": (128, 128), "strength-1.png": (128, 128)},
}


@pytest.mark.parametrize("line", WRITTEN, ids=lambda line: line.split()[0])
def test_an_example_writes_its_pictures(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, *given = line.split()
    for file in given:
        Image.new("RGB", (80, 64), "green").save(tmp_path / file)
    monkeypatch.setattr(sys, "argv", [name, *given, "--tiny"])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    written = {path.name: Image.open(path).size for path in tmp_path.glob("*.*") if path.name not in given}
    assert written == WRITTEN[line]


def test_every_example_is_run_listed_and_short() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    assert programs == {line.split()[0] for line in WRITTEN}
    pages = (EXAMPLES / "README.md").read_text(), (ROOT / "docs/guides/examples.md").read_text()
    shown = "\n".join(path.read_text() for path in (ROOT / "docs/guides").glob("*.md"))
    for name in programs:
        assert all(name in page for page in pages)
        assert f"{{literalinclude}} ../../examples/{name}" in shown, f"no page of the site shows {name}"
        assert len((EXAMPLES / name).read_text().splitlines()) < 60


@pytest.mark.parametrize("name", ["multi_gpu.yaml", "fsdp2.yaml"])
def test_accelerate_reads_its_configuration(name: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(str(EXAMPLES / name))
    assert (config.num_processes, config.use_cpu) == (8, False)
    assert (config.fsdp_config or {}).get("fsdp_version") == (2 if "fsdp" in name else None)


@pytest.mark.parametrize("name", ["train.slurm", "torchrun.sh"])
def test_a_launched_command_has_the_flags_of_train(name: str) -> None:
    subprocess.run(["bash", "-n", EXAMPLES / name], check=True)
    text = (EXAMPLES / name).read_text()
    given = re.findall(r"--[a-z_]+", text.partition("-m selfcascade.cli train")[2])
    train = COMMAND.commands["train"]  # type: ignore[attr-defined]
    known = {option for parameter in train.params for option in parameter.opts}
    assert given and set(given) <= known
