"""The example programs run as a reader would start them, with `--tiny`, and write what they say."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from command_line import COMMAND
from documents import ROOT
from processes import free_port

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


STANDINS = {
    "scontrol": 'printf "host-0\\nhost-1\\n"',
    # As srun starts a task on each of two machines, and ends as the worst of them.
    "srun": """
for node in 0 1; do
  env SLURM_NODEID=$node SLURM_PROCID=$node SLURM_NNODES=2 SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 "$@" &
  tasks="$tasks $!"
done
status=0; for task in $tasks; do wait $task || status=$?; done; exit $status""",
}


def slurm(tmp_path: Path, **standins: str) -> dict[str, str]:
    """The environment of a job of two machines, with programs that stand in for Slurm's, and others."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {**STANDINS, **standins}.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_NODELIST": "host-[0-1]"}


def test_the_job_starts_a_launcher_on_each_machine_and_goes_on_where_a_checkpoint_is(tmp_path: Path) -> None:
    place = slurm(tmp_path, accelerate='echo "$@" > machine-$SLURM_NODEID.txt')
    for resumed in (False, True):
        subprocess.run(["bash", str(EXAMPLES / "train.slurm")], check=True, cwd=tmp_path, env=place)
        for number in (0, 1):
            said = (tmp_path / f"machine-{number}.txt").read_text()
            launched = (
                "--num_machines 2 --num_processes 16 --machine_rank {} --main_process_ip host-0 --main_process_port"
            )
            assert launched.format(number) in said
            assert said.strip().endswith("--resume_from_checkpoint latest" if resumed else "--output_dir runs/micro")
        (tmp_path / "runs/micro/checkpoint-000002").mkdir(parents=True, exist_ok=True)


@pytest.mark.slow
def test_the_job_trains_on_two_processes(tmp_path: Path, quick_model: str) -> None:
    text = (EXAMPLES / "train.slurm").read_text()
    for before, after in {
        "$((8 * SLURM_NNODES))": "$((1 * SLURM_NNODES))",
        "examples/multi_gpu.yaml": str(EXAMPLES / "multi_gpu.yaml"),
        "29500": str(free_port()),
        "stable-diffusion-v1-5/stable-diffusion-v1-5": quick_model,
        '"laion/*.tar" --resolution 1024 --mixed_precision bf16': "scenes --resolution 64 --max_train_steps 2",
        "--dataloader_num_workers 4": "--train_batch_size 1 --checkpointing_steps 1",
    }.items():
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "job.slurm").write_text(text)
    place = {**slurm(tmp_path, scontrol="echo 127.0.0.1"), "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "job.slurm"], check=True, cwd=tmp_path, env=place, capture_output=True, text=True)
    assert "2 pictures a step, float32 on cpu, 2 processes" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs/micro/curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows][-1] == 2
    assert (tmp_path / "runs/micro/checkpoint-000002").is_dir()
