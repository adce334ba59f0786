"""The code blocks of the documents, and the small world that they run in: models, data and files by the names used."""

import atexit
import csv
import functools
import io
import json
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from clip_files import write_clip
from clip_score import tiny_clip_score
from selfcascade.data.scenes import caption, render, sample_scene
from selfcascade.metrics.i3d import I3D
from tiny.documents import MODELS, build

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN, SHOWN = ("python", "sh"), ("json", "text")
HERE = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)

# All that is not run as written, and why: what is written, what runs in its place. Beside these, each Hub id is a
# folder of that name with a model of the same class (`tiny.documents.MODELS`).
SUBSTITUTIONS: dict[str, tuple[str, str]] = {
    '.to("cuda")': ('.to("cpu")', "tests have no GPU"),
    "dtype=torch.float16": ("dtype=torch.float32", "half precision is for GPUs"),
    "selfcascade train ": ("selfcascade train --max_train_steps 2 --checkpointing_steps 2 ", "4,000 steps take hours"),
    "selfcascade.cli train ": ("selfcascade.cli train --max_train_steps 2 ", "4,000 steps take hours"),
    "accelerate launch ": ("accelerate launch --cpu --num_processes 1 ", "tests have no GPU"),
    "--pictures 10000 --real-pictures 10000": ("--pictures 2 --real-pictures 4", "20,000 pictures take days"),
    "--pictures 2048 --real-pictures 2048": ("--pictures 2 --real-pictures 4", "4,096 clips take days"),
    "--pictures 500 --real-pictures 2000": ("--pictures 2 --real-pictures 4", "2,500 pictures take hours"),
    '.push_to_hub("me/sharper")': ('._card("me/sharper", None)', "test_shared_upsamplers.py pushes"),
    "inception:inception.safetensors": ("clip:tiny-clip", "the tests do not require torch-fidelity"),
}
# What does not run, by how it starts, and why.
LEFT_OUT: dict[str, str] = {
    "make ": "sets up an environment, or runs these very tests; its targets are looked up instead",
    ".venv/bin/pre-commit ": "changes the repository's hooks",
    ".venv/bin/python -m pytest ": "runs these very tests",
    "selfcascade web": "serves until it is stopped; its options are looked up instead",
    "pip install '.[web]'": "installs from an index",
    "class ZImage(Family)": "is quoted from the package",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """For the test's report."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def files(self) -> dict[str, str]:
        """The files that a block of `sh` writes, with what is in them."""
        return dict(HERE.findall(self.text))

    def commands(self) -> list[list[str]]:
        """The words of each command of a block of `sh`, as a shell would split them; files are not among them."""
        lines = HERE.sub("", self.text).replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    pattern = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    text = page.read_text()
    for match in pattern.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3])


def is_left_out(text: str) -> bool:
    """Whether a command or snippet is one of `LEFT_OUT`."""
    return any(text.startswith(start) for start in LEFT_OUT)


def substituted(text: str) -> str:
    """The text with every substitution made."""
    for written, (run, _) in SUBSTITUTIONS.items():
        text = text.replace(written, run)
    return text


@functools.cache
def saved(name: str) -> Path:
    """The stand-in for a Hub id in a folder that lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="selfcascade-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build(name).save_pretrained(folder)
    return folder


def furnish(folder: Path, page: Path, models_only: bool = False) -> None:
    """Puts the models and files that a page names into a folder."""
    text = page.read_text()
    for name in MODELS:
        if name in text:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(saved(name))
    for name in ("experiments", "examples"):
        (folder / name).symlink_to(ROOT / name)
    for name, make in FILES.items():
        if name in text and not models_only:
            make(folder)


def _scene(number: int, side: int) -> tuple[Image.Image, str]:
    scene = sample_scene(number)
    return Image.fromarray((render(scene, side, side) * 255).astype(np.uint8)), caption(scene, number)


def _photo(folder: Path) -> None:
    _scene(0, 200)[0].save(folder / "photo.jpg")


def _edges(folder: Path) -> None:
    _scene(0, 64)[0].convert("L").save(folder / "edges.png")


def _pictures(folder: Path) -> None:
    (folder / "data").mkdir()
    for number in range(4):
        picture, words = _scene(number, 1024)
        picture.save(folder / f"data/{number}.jpg")
        (folder / f"data/{number}.txt").write_text(words)


def _clips(folder: Path) -> None:
    (folder / "clips").mkdir()
    for number in range(4):
        write_clip(folder / f"clips/{number}.mp4", frames=20, size=(512, 512), fps=8)
        (folder / f"clips/{number}.txt").write_text("a grey square")


def _table(folder: Path) -> None:
    with (folder / "webvid.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["videoid", "name", "page_dir", "duration"])
        for number in range(6):
            rows.writerow([number, "a grey square", "pages", "PT00H00M03S"])
            (folder / "videos/pages").mkdir(parents=True, exist_ok=True)
            write_clip(folder / f"videos/pages/{number}.mp4", frames=24, size=(512, 512), fps=8)


def _shards(folder: Path) -> None:
    (folder / "laion").mkdir()
    with tarfile.open(folder / "laion/00000.tar", "w") as tar:
        for number in range(8):
            picture, words = _scene(number, 1024)
            held = io.BytesIO()
            picture.save(held, "JPEG")
            facts = json.dumps({"width": 1024, "height": 1024, "status": "success"})
            for ending, data in (("jpg", held.getvalue()), ("txt", words.encode()), ("json", facts.encode())):
                member = tarfile.TarInfo(f"{number:08}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _stamps(folder: Path) -> None:
    (folder / "stamps").mkdir()
    for colour in ("red", "green", "blue", "white"):
        Image.new("RGBA", (90, 60), colour).save(folder / f"stamps/{colour}.png")
        (folder / f"stamps/{colour}.txt").write_text(f"A {colour} brick.\n")
    _clip_score(folder)


def _wallpapers(folder: Path) -> None:
    (folder / "wallpapers").mkdir()
    for number in range(2):
        _scene(number, 256)[0].save(folder / f"wallpapers/{number}.jpg")


def _clip_score(folder: Path) -> None:
    score = tiny_clip_score()
    score.model.save_pretrained(folder / "tiny-clip")
    score.tokenizer.save_pretrained(folder / "tiny-clip")


def _video_weights(folder: Path) -> None:
    torch.manual_seed(0)
    torch.save(I3D().state_dict(), folder / "rgb_imagenet.pt")
    save_file(I3D().state_dict(), folder / "i3d.safetensors")


def _inception_weights(folder: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / "weights-inception-2015-12-05-6726825d.pth")
    _clip_score(folder)


FILES: dict[str, Callable[[Path], None]] = {
    "photo.jpg": _photo,
    "edges.png": _edges,
    "data/ ": _pictures,
    "clips/ ": _clips,
    "webvid.csv": _table,
    "laion/": _shards,
    "i3d.safetensors": _video_weights,
    "weights-inception": _inception_weights,
    "sprites=stamps": _stamps,
    "backgrounds=wallpapers": _wallpapers,
}
