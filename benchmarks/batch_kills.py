"""A batch that is killed again and again, against one that nothing disturbs.

    python benchmarks/batch_kills.py [--rows 400] [--kills 20] [--model tiny] [--seed 0] [--output batch_kills.md]

Processes work in a group, as torchrun starts them. `kill -9` hits one of them at a random moment of its work, or while
a tar file is being written; what is left of the group is killed ten seconds later, if it has not ended by itself. The
same command starts again, on a random number of processes. In the end every row must be there once, no other file, and
all bytes as in the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = ("a red apple on a table", "a blue boat at the left", "a green tree", "two yellow balls")
SETTINGS = ("--rows-per-shard", "20", "--batch-size", "2")


def write_rows(path: Path, count: int, side: int) -> None:
    """Rows of two sizes, some of which have a seed or a negative prompt of their own."""
    with path.open("w") as file:
        for number in range(count):
            row: dict[str, object] = {"prompt": f"{PROMPTS[number % 4]}, {number}"}
            row |= {"seed": 7 * number} if number % 3 == 0 else {}
            row |= {"negative_prompt": "rain"} if number % 5 == 0 else {}
            row |= {"width": side * 3 // 2} if number % 7 == 0 else {}
            file.write(json.dumps(row) + "\n")


class Group:
    """Processes that work on one batch, forked so that nothing is imported again.

    Args:
        command: Arguments of `selfcascade`.
        count: How many there are.
        victim, writes: The process that kills itself within a tar file, and the file in the tar files at which it does.
    """

    def __init__(self, command: list[str], count: int, victim: int = -1, writes: int = 0) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        shared = {**place, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)} if count > 1 else {}
        self.left: dict[int, int] = {}
        self.codes: dict[int, int] = {}
        for rank in range(count):
            process = os.fork()
            if process == 0:
                os.environ.update({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
                _work(command, writes if rank == victim else 0)
            self.left[rank] = process

    def poll(self) -> bool:
        """Whether all have ended."""
        for rank, process in list(self.left.items()):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
                del self.left[rank]
        return not self.left

    def kill(self, rank: int) -> None:
        """`kill -9`."""
        if rank in self.left:
            os.kill(self.left[rank], signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether all have ended within this time."""
        end = time.monotonic() + seconds
        while not self.poll() and time.monotonic() < end:
            time.sleep(0.02)
        return self.poll()


def _work(command: list[str], writes: int) -> None:
    from selfcascade.cli import main

    log = os.open(f"{command[3]}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if writes:
        add, done = tarfile.TarFile.addfile, []

        def addfile(self: tarfile.TarFile, info: tarfile.TarInfo, content: object = None) -> None:
            done.append(info.name)
            add(self, info, content)  # pyright: ignore[reportArgumentType]
            if len(done) == writes:
                self.fileobj.flush()  # pyright: ignore[reportOptionalMemberAccess]
                os.kill(os.getpid(), signal.SIGKILL)

        tarfile.TarFile.addfile = addfile  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = ["selfcascade", *command]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def done(folder: Path) -> int:
    """Blocks and shards that are there, as a measure of how far a batch is."""
    return len(list(folder.glob(".parts/*/*.tar"))) + 10 * len(list(folder.glob("*_stats.json")))


def disturb(
    command: list[str], folder: Path, kills: int, rng: random.Random, expected: float
) -> list[dict[str, object]]:
    """Kills processes until so many have died, each run a little further; what happened, kill by kill."""
    happened: list[dict[str, object]] = []
    while len(happened) < kills:
        count = 2 if not happened else rng.choice([1, 2, 2, 3])
        victim, writing = rng.randrange(count), len(happened) % 2 == 1
        before = done(folder)
        group = Group(command, count, victim, rng.randint(1, 90) if writing else 0)
        if not writing:
            goal, end = before + rng.randint(0, 8), time.monotonic() + expected
            while not group.poll() and done(folder) <= goal and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(rng.random() * 0.3)
            group.kill(victim)
        end = time.monotonic() + expected
        while victim in group.left and not group.poll() and time.monotonic() < end:
            time.sleep(0.02)
        survivors = group.wait(10)
        for rank in list(group.left):
            group.kill(rank)
        group.wait(10)
        if group.codes[victim] == -signal.SIGKILL:
            halves = len(list(folder.rglob(".selfcascade-*")))
            moment = "within a tar file" if writing else "at a random moment"
            told = {"processes": count, "killed": victim, "moment": moment, "others_ended_by_themselves": survivors}
            happened.append({**told, "half_files_left": halves, "blocks_left": done(folder)})
            print(json.dumps(happened[-1]), flush=True)
        elif all(code == 0 for code in group.codes.values()):
            break
    return happened


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--output", type=Path, default=HERE / "batch_kills.md")
    given = parser.parse_args()

    import torch

    import selfcascade.batch.on_processes
    import selfcascade.cli
    import selfcascade.methods  # noqa: F401

    torch.set_num_threads(1)
    place, rng = Path(tempfile.mkdtemp(prefix="batch-kills-")), random.Random(given.seed)
    write_rows(place / "rows.jsonl", given.rows, given.side)
    size = ("--height", str(given.side), "--width", str(given.side))
    name = given.model if given.model != "tiny" else _tiny(place / "tiny")
    model = ("--model", name, "--steps", "2", "--method", "direct", "--device", "cpu")
    whole, hurt = (
        ["batch", str(place / "rows.jsonl"), "--output", str(place / name), *SETTINGS, *size, *model]
        for name in ("whole", "hurt")
    )
    began = time.monotonic()
    group = Group(whole, 2)
    assert group.wait(3600) and not any(group.codes.values()), (place / "whole.log").read_text()
    seconds = time.monotonic() - began
    happened = disturb(hurt, place / "hurt", given.kills, rng, max(60.0, seconds))
    group = Group(hurt, 2)
    assert group.wait(3600) and not any(group.codes.values()), (place / "hurt.log").read_text()
    expected, found = contents(place / "whole"), contents(place / "hurt")
    keys, differing = rows_of(place / "hurt"), sorted(set(expected.items()) ^ set(found.items()))
    once = keys == [f"{number:09}" for number in range(given.rows)]
    given.output.write_text(report(given, happened, once, len(expected), sorted({name for name, _ in differing})))
    print(given.output.read_text())
    shutil.rmtree(place)
    if differing or not once or len(happened) < given.kills:
        raise SystemExit(1)


def _tiny(folder: Path) -> str:
    """The tests' Stable Diffusion of a few thousand random weights, which makes a picture in a moment."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from tiny import TINY  # pyright: ignore[reportMissingImports]

    TINY["stable-diffusion"].build().save_pretrained(folder)
    return str(folder)


def report(given: argparse.Namespace, happened: list[dict[str, object]], once: bool, files: int, bad: list[str]) -> str:
    """The report as a page."""
    import diffusers
    import torch

    others = [row["processes"] for row in happened if not row["others_ended_by_themselves"]]
    killed = len(happened) + sum(count - 1 for count in others if isinstance(count, int))
    lines = [
        "# A batch, killed again and again",
        "",
        f"Written by `python benchmarks/batch_kills.py`: {given.rows} rows, model {Path(given.model).name} at "
        f"{given.side} pixels, two steps,",
        f"batches of 2, shards of 20 rows. {len(happened)} times `kill -9` hit one process, and then those of its "
        "group that were still at",
        f"work after ten seconds, {killed} processes in all. The same command was then started again on the number of "
        "processes in the",
        f"next line, the last time on 2. Torch {torch.__version__}, diffusers {diffusers.__version__}.",
        "",
        f"- Every row once: {'yes' if once else 'NO'}.",
        f"- Files of the undisturbed run: {files}. Files that differ from it, are missing or are too many: "
        f"{', '.join(bad) if bad else 'none'}.",
        f"- Half-written files that a kill left behind, and a later run removed: "
        f"{sum(row['half_files_left'] != 0 for row in happened)} of {len(happened)} times.",
        "",
        "| kill | processes | killed | moment | half files left | the others ended by themselves, within 10 s |",
        "|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(happened, 1):
        ended = (
            "-" if row["processes"] == 1 else "yes" if row["others_ended_by_themselves"] else "no, killed after 10 s"
        )
        cells = (number, row["processes"], row["killed"], row["moment"], row["half_files_left"], ended)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
