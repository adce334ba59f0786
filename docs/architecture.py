"""The rooms of the package: what each contains, and which others it may import.

    python docs/architecture.py

writes the table of docs/architecture.md. `tests/test_architecture.py` checks that the code imports what the table says.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).with_suffix(".md")
SOURCE = Path(__file__).parents[1] / "src/selfcascade"
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"


class Room(NamedTuple):
    """A package or a module in the root of the library.

    Attributes:
        holds: What it contains.
        imports: Rooms that it imports; they come before it in the list.
    """

    holds: str
    imports: tuple[str, ...] = ()


ROOMS = {
    "cascade": Room("the algorithm: `Size`, `Stage`, `plan_stages`, the loop over stages; torch only"),
    "options": Room(
        "the options of a call, each declared once; the checks of their values; presets, chosen by measurement"
    ),
    "processes": Room(
        "several processes of one run: their group, what they must agree on, the lock of their output folder"
    ),
    "media": Room("pictures and clips: reading, laying out in grids, atomic writing with their records", ("options",)),
    "metrics": Room(
        "detectors and readers of samples, distances between samples, and the registry of all metrics", ("options",)
    ),
    "base_models": Room(
        "drives an untouched diffusers pipeline as a base model; one small class per family", ("cascade", "options")
    ),
    "upsamplers": Room(
        "the tuned version's modules (phi_n), and the hooks that read and add skip features", ("base_models", "options")
    ),
    "loading": Room(
        "checks of a model's folder, additions to it (LoRA, ControlNet, ...), how a pipeline runs",
        ("base_models", "media", "options"),
    ),
    "models": Room("models and upsamplers by name", ("loading", "options", "upsamplers")),
    "data": Room(
        "scenes, folders of pictures or clips, tar shards, tables of clips; deterministic, resumable batches",
        ("cascade", "media", "options"),
    ),
    "cost": Room(
        "estimates TFLOPs, memory and seconds of a plan, and makes it fit", ("base_models", "cascade", "options")
    ),
    "pipeline": Room(
        "`SelfCascade`, the public interface: checks a call's arguments, plans its stages (sizes, K, steps), runs them",
        ("base_models", "cascade", "cost", "loading", "media", "models", "options", "upsamplers"),
    ),
    "methods": Room(
        "ways to reach the target size behind one interface, one file each",
        ("base_models", "cascade", "models", "options", "pipeline"),
    ),
    "making": Room(
        "makes pictures or clips with their records from options, and reads options back from records",
        ("base_models", "loading", "media", "methods", "models", "options", "pipeline"),
    ),
    "batch": Room(
        "makes a picture or clip of each row in a file of prompts, on many processes, in shards that survive kills",
        ("making", "media", "options", "pipeline", "processes"),
    ),
    "training": Room(
        "the training loop, its objective, checkpoints",
        ("base_models", "cascade", "data", "media", "models", "options", "pipeline", "processes", "upsamplers"),
    ),
    "evaluation": Room(
        "benchmarks (prompts and real samples), sampling for them, and evaluators that compute figures",
        (
            "base_models",
            "cascade",
            "cost",
            "data",
            "media",
            "methods",
            "metrics",
            "models",
            "options",
            "pipeline",
            "processes",
            "upsamplers",
        ),
    ),
    "experiments": Room(
        "runs the experiments in the repository's folder `experiments/`: only missing results are made",
        (
            "base_models",
            "cascade",
            "data",
            "evaluation",
            "media",
            "methods",
            "metrics",
            "models",
            "options",
            "processes",
            "training",
        ),
    ),
    "report": Room(
        "the results as tables, plots, pictures and a page to browse",
        ("evaluation", "media", "methods", "metrics", "models", "options"),
    ),
    "web": Room(
        "the page of `selfcascade web`: its tabs, the studio that makes pictures, a gate that protects the server",
        ("base_models", "cascade", "cost", "making", "media", "methods", "models", "options", "pipeline"),
    ),
    "cli": Room(
        "the commands, one module each, without logic of their own",
        (
            "batch",
            "cost",
            "experiments",
            "loading",
            "making",
            "media",
            "methods",
            "models",
            "options",
            "pipeline",
            "processes",
            "report",
            "training",
            "web",
        ),
    ),
    "demo": Room("`make demo`", ("cli", "making", "media", "options")),
    "__main__": Room("`python -m selfcascade`", ("cli",)),
}


def floors() -> dict[str, int]:
    """Each room's floor: 1 if it imports no other, otherwise one above the highest that it imports."""
    found: dict[str, int] = {}
    for name, room in ROOMS.items():
        found[name] = 1 + max((found[other] for other in room.imports), default=0)
    return found


def table() -> str:
    """The rooms as Markdown, the highest floor first."""
    place = floors()
    arrows = sum(len(room.imports) for room in ROOMS.values())
    lines = [f"{len(ROOMS)} rooms on {max(place.values())} floors; {arrows} arrows, each to a lower floor.", ""]
    lines += ["| floor | room | what is in it | imports |", "|---|---|---|---|"]
    for name in sorted(ROOMS, key=lambda name: (-place[name], name)):
        imports = ", ".join(f"`{other}`" for other in sorted(ROOMS[name].imports)) or "-"
        lines.append(f"| {place[name]} | `{_path(name)}` | {ROOMS[name].holds} | {imports} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the current table."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.split(END)[1]}"


def _path(name: str) -> str:
    return f"{name}/" if (SOURCE / name).is_dir() else f"{name}.py"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
