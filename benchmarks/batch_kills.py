"""A batch that is killed again and again, against one that nothing disturbs.

    python benchmarks/batch_kills.py [--engine ray] [--rows 800] [--kills 20] [--model tiny] [--side 64] [--seed 0]

writes batch_kills.json and, from it, batch_kills.md beside this file. `kill -9` hits one process at a random moment of
its work, its start included, or while it writes a tar file: a part, or a shard. On processes in a group, as torchrun
starts them, the others are killed within a second, as torchrun does; then the same command starts again, on a random
number of processes. Ray's workers are killed while the command goes on. In the end every row must be there once, no
other file, and all bytes as in the undisturbed run on two processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from killed_group import PART, SHARD, Group

HERE = Path(__file__).parent
PROMPTS = ("a red apple on a table", "a blue boat at the left", "a green tree", "two yellow balls")
SETTINGS = ("--rows-per-shard", "20", "--batch-size", "2")
MOMENTS = ("at a random moment", "while it started", PART, SHARD)
WRITES = "while it wrote"
TITLES = {
    "processes": "On processes",
    "ray": "On Ray, with two workers",
    "ray-earlier": "On Ray, before a worker could be killed while it started",
}
MOST_BLOCKS = 4  # until a kill at a random moment
PATIENCE = 900.0  # seconds of one command
Kill = dict[str, Any]


def write_rows(path: Path, count: int, side: int) -> None:
    """Writes rows of two sizes, some with their own seed or negative prompt."""
    with path.open("w") as file:
        for number in range(count):
            row: dict[str, object] = {"prompt": f"{PROMPTS[number % 4]}, {number}"}
            row |= {"seed": 7 * number} if number % 3 == 0 else {}
            row |= {"negative_prompt": "rain"} if number % 5 == 0 else {}
            row |= {"width": side * 3 // 2} if number % 7 == 0 else {}
            file.write(json.dumps(row) + "\n")


def done(folder: Path) -> int:
    """Number of existing blocks, in parts or in finished shards."""
    return len(list(folder.glob(".parts/*/*.tar"))) + 10 * len(list(folder.glob("*_stats.json")))


def halves(folder: Path) -> int:
    """Number of half-written files."""
    return len(list(folder.rglob(".selfcascade-*")))


def disturb_processes(command: list[str], folder: Path, kills: int, rng: random.Random) -> tuple[list[Kill], int]:
    """Kills processes until this many commands have been interrupted.

    Returns the kills, and how often the command was started, the last time undisturbed.
    """
    happened: list[Kill] = []
    commands = 1
    while len(happened) < kills:
        moment, count = MOMENTS[len(happened) % 4], rng.choice([1, 2, 2, 2, 3])
        victim, before, began = rng.randrange(count), done(folder), time.monotonic()
        writing, member = moment in (PART, SHARD), rng.randint(1, 6 if moment == PART else 60)
        group, commands = Group(command, count, moment if writing else "", member), commands + 1
        if moment == MOMENTS[0]:
            goal = before + rng.randint(1, MOST_BLOCKS)
            group.wait(PATIENCE, lambda: done(folder) >= goal)  # noqa: B023
            time.sleep(rng.random() * 0.2)
        elif moment == MOMENTS[1]:
            group.wait(rng.random() * 8)
        else:
            group.wait(PATIENCE, lambda: bool(group.codes))  # noqa: B023
            victim = next((rank for rank, code in group.codes.items() if code == -signal.SIGKILL), victim)
        group.kill(victim)
        after = time.monotonic() - began
        group.wait(rng.random())
        for rank in list(group.left):
            group.kill(rank)
        group.wait(PATIENCE)
        if group.codes[victim] == -signal.SIGKILL:
            told = {"moment": moment, "processes": count, "killed": victim, "after": after}
            happened.append({**told, "half_files": halves(folder)})
            print(json.dumps(happened[-1]), flush=True)
        elif all(code == 0 for code in group.codes.values()):
            break
    finish(command, Path(f"{folder}.log"))
    return happened, commands


def workers(of: int) -> list[psutil.Process]:
    """The processes of Ray Data's actors below this one."""
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(of).children(recursive=True)
        return [child for child in below if "MapWorker" in "".join(child.cmdline()[:1])]
    return []


def _is_writing(process: psutil.Process) -> bool:
    """Whether a process has a half-written file of a batch open; it is then stopped, so that it stays so."""
    if not _has_half_file(process):
        return False
    process.suspend()
    if _has_half_file(process):
        return True
    process.resume()
    return False


def _has_half_file(process: psutil.Process) -> bool:
    return any(".selfcascade-" in opened.path for opened in process.open_files())


def disturb_ray(command: list[str], folder: Path, kills: int, rng: random.Random) -> tuple[list[Kill], int]:
    """Like `disturb_processes`, but kills workers while the command keeps running; if Ray gives up, it starts again."""
    happened: list[Kill] = []
    whole = [sys.executable, "-m", "selfcascade.cli", *command, "--engine", "ray", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "RAY_worker_niceness": "0"}
    for commands in range(1, kills + 2):
        with Path(f"{folder}.log").open("ab") as log:
            running = subprocess.Popen(whole, stdout=log, stderr=log, env=environment)
        while running.poll() is None and len(happened) < kills:
            moment, began = WRITES if len(happened) % 2 else MOMENTS[0], time.monotonic()
            there = kill_worker(running, folder, moment, done(folder) + rng.randint(1, MOST_BLOCKS), rng)
            if there:
                told = {"moment": moment, "command": commands, "processes": there, "after": time.monotonic() - began}
                happened.append({**told, "half_files": halves(folder)})
                print(json.dumps(happened[-1]), flush=True)
        if running.wait(PATIENCE) == 0:
            return happened, commands
    raise SystemExit(f"Ray gave up {commands} times, see {folder}.log")


def kill_worker(running: subprocess.Popen[bytes], folder: Path, moment: str, goal: int, rng: random.Random) -> int:
    """Kills a worker while it writes, or once this many blocks exist.

    Returns the number of workers there were; 0 if the command ended first.
    """
    while running.poll() is None:
        there = workers(running.pid)
        victim: psutil.Process | None = None
        with contextlib.suppress(psutil.Error):
            if moment == WRITES:
                victim = next((one for one in there if _is_writing(one)), None)
            elif there and done(folder) >= goal:
                victim = rng.choice(there)
            if victim is not None:
                victim.kill()
                return len(there)
        time.sleep(0.001 if moment == WRITES else 0.05)
    return 0


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a batch."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path) -> list[str]:
    """The keys of the pictures in all shards."""
    names: list[str] = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += [name.removesuffix(".png") for name in tar.getnames() if name.endswith(".png")]
    return sorted(names)


def run(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Both batches, and how they compare."""
    import diffusers
    import torch

    import selfcascade.batch.on_processes
    import selfcascade.cli
    import selfcascade.methods  # noqa: F401

    torch.set_num_threads(1)
    write_rows(place / "rows.jsonl", given.rows, given.side)
    name = given.model if given.model != "tiny" else _tiny(place / "tiny")
    model = ("--model", name, "--steps", "2", "--method", "direct", "--device", "cpu")
    size = ("--height", str(given.side), "--width", str(given.side))
    whole, hurt = (
        ["batch", str(place / "rows.jsonl"), "--output", str(place / name), *SETTINGS, *size, *model]
        for name in ("whole", "hurt")
    )
    finish(whole, place / "whole.log")
    disturb = disturb_ray if given.engine == "ray" else disturb_processes
    happened, commands = disturb(hurt, place / "hurt", given.kills, random.Random(given.seed))
    expected, found = contents(place / "whole"), contents(place / "hurt")
    once = rows_of(place / "hurt") == [f"{number:09}" for number in range(given.rows)]
    differing = sorted({name for name, _ in set(expected.items()) ^ set(found.items())})
    facts = {"rows": given.rows, "model": Path(given.model).name, "side": given.side, "seed": given.seed}
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    outcome = {"every_row_once": once, "files": len(expected), "differing": differing, "restarts": commands - 1}
    return {**facts, **versions, **outcome, "kills": happened}


def finish(command: list[str], log: Path) -> None:
    """Runs a command on two processes to its end."""
    group = Group(command, 2)
    assert group.wait(PATIENCE) and not any(group.codes.values()), log.read_text()


def _tiny(folder: Path) -> str:
    """The tests' Stable Diffusion of a few thousand random weights, which makes a picture in a moment."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from cascade_runs import QUICK  # pyright: ignore[reportMissingImports]

    QUICK.build().save_pretrained(folder)
    return str(folder)


def restarts(engine: str, one: dict[str, Any]) -> str:
    """How often the command was started again, in a sentence."""
    if "restarts" not in one and engine != "processes":
        return "How often the command was started again was not counted."
    if "restarts" not in one:
        return f"The command was started again after each kill, {len(one['kills'])} times."
    went_on = f" {len(one['kills']) - one['restarts']} kills did not end it." if engine != "processes" else ""
    return f"The command was started again {one['restarts']} times.{went_on}"


def report(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# A batch, killed again and again",
        "",
        "Written by `python benchmarks/batch_kills.py`, with and without `--engine ray`: two steps, batches of 2,",
        "shards of 20 rows. `kill -9` hit one process, so many seconds after the command's start, or on Ray after the",
        "kill before.",
    ]
    for engine, one in results.items():
        count = len(one["kills"])
        shown = ", ".join(one["differing"]) if one["differing"] else "none"
        lines += [
            "",
            f"## {TITLES[engine]}",
            "",
            f"{one['rows']} rows, model {one['model']} at {one['side']} pixels, torch {one['torch']}, diffusers "
            f"{one['diffusers']}; {count} interruptions.",
            "",
            f"- {restarts(engine, one)}",
            f"- Every row once: {'yes' if one['every_row_once'] else 'NO'}.",
            f"- Files of the undisturbed run: {one['files']}. Files that differ from it, are missing or are too many: "
            f"{shown}.",
            f"- Half-written files lay there after {sum(kill['half_files'] > 0 for kill in one['kills'])} of {count} "
            "kills, and after the last command none.",
            "",
            "| kill | moment | processes | killed | seconds |",
            "|---|---|---|---|---|",
        ]
        for number, kill in enumerate(one["kills"], 1):
            cells = (kill["moment"], kill["processes"], kill.get("killed", "-"), f"{kill['after']:.1f}")
            lines.append(f"| {number} | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--output", type=Path, default=HERE / "batch_kills.json")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="batch-kills-"))
    found = run(given, place)
    earlier = json.loads(given.output.read_text()) if given.output.exists() else {}
    results = {name: one for name, one in {**earlier, given.engine: found}.items()}
    given.output.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    given.output.with_suffix(".md").write_text(report(json.loads(given.output.read_text())))
    if found["differing"] or not found["every_row_once"] or len(found["kills"]) < given.kills:
        raise SystemExit(f"see {place}")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
