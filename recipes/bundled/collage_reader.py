"""Trains the composition reader of collages on real renders, and measures it on held-out and damaged ones.

python recipes/bundled/collage_reader.py            # renders, trains (resumable), measures
python recipes/bundled/collage_reader.py --ship     # and puts it into the package
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from common import CONFIG, RUNS, augmented, ship, train_network, write_array, write_json
from loop import Draw
from selfcascade.data.collages import (
    PLACES,
    RELATIONS,
    SIZES,
    Collage,
    bundled_assets,
    render,
    sample_collage,
    sample_crowd,
)
from selfcascade.media.whole_files import write_whole
from selfcascade.metrics.composition import CompositionReader, accuracy

NAME = "collage_reader"
PAGE = Path(__file__).parents[2] / "docs/collages.md"
ACCURACY = PAGE.with_suffix(".json")
SETTINGS = CONFIG[NAME]
PICTURE_SIZES = (64, 128, 256)
LABELS = {
    "count": ["0", "1", "2", "3"],
    "background": list(bundled_assets().background_names),
    "place": list(PLACES),
    "relation": list(RELATIONS),
    "first_kind": list(bundled_assets().kinds),
    "first_size": list(SIZES),
    "last_kind": list(bundled_assets().kinds),
    "last_size": list(SIZES),
}
FIRST_AND_LAST = ("stem", "head.2", "object_head.there", "object_head.where", "object_head.read.2")
SHARD, SIDE = 2000, SETTINGS["model"]["input_size"]
TRAINED, HELD_OUT = 10_000_000, 20_000_000  # the first collages' numbers


def example(index: int) -> tuple[np.ndarray, dict]:
    """The index-th training example: a picture at one of two sizes, resized to the reader's, and its truth.

    A quarter are crowds, whose only truths are count and background.
    """
    rng = np.random.default_rng([index, 21])
    crowd = rng.random() < 0.25
    collage = sample_crowd(TRAINED + index) if crowd else sample_collage(TRAINED + index)
    size = int(rng.choice((64, 128)))
    picture = torch.from_numpy(render(collage, size, size)).permute(2, 0, 1)[None]
    small = interpolate(picture, size=(SIDE, SIDE), mode="bilinear", antialias=True)[0]
    names = ("count", "background") if crowd else tuple(collage.truth)
    pixels = (small.permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return pixels, {name: collage.truth[name] for name in names}


def pool() -> tuple[list[np.ndarray], list[dict]]:
    """The training examples in shards, rendered once and cached."""
    images, truths = [], []
    shards = SETTINGS["examples"] // SHARD
    for shard in range(shards):
        path = RUNS / NAME / f"{shard:03d}"
        if not path.with_suffix(".json").exists():
            rows = [example(shard * SHARD + k) for k in range(SHARD)]
            write_array(path.with_suffix(".npy"), np.stack([image for image, _ in rows]))
            write_json(path.with_suffix(".json"), [truth for _, truth in rows])
            print(f"{NAME}: examples {shard + 1} of {shards}", flush=True)
        images.append(np.load(path.with_suffix(".npy"), allow_pickle=False, mmap_mode="r"))
        truths += json.loads(path.with_suffix(".json").read_text())
    return images, truths


def mirrored(truth: dict) -> dict:
    """The truth of a picture's mirror image."""
    truth = dict(truth)
    if truth.get("place") in ("left", "right"):
        truth["place"] = "left" if truth["place"] == "right" else "right"
    if truth.get("relation") == "beside":
        swapped = {name.replace("first", "last"): truth[name] for name in truth if name.startswith("first")}
        swapped |= {name.replace("last", "first"): truth[name] for name in truth if name.startswith("last")}
        truth |= swapped
    return truth


def held_out(count: int) -> list[Collage]:
    """Collages of held-out combinations."""
    return [sample_collage(HELD_OUT + k, "validation") for k in range(count)]


def read(
    model: CompositionReader, collages: list[Collage], size: int, damage: Callable[[torch.Tensor], torch.Tensor]
) -> list[dict[str, str]]:
    """The model's readings of damaged renders of this size."""
    readings: list[dict[str, str]] = []
    for start in range(0, len(collages), 50):
        pictures = np.stack([render(collage, size, size) for collage in collages[start : start + 50]])
        readings += model.read(damage(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    return readings


def resized(side: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Blurs pictures by resizing them to this side and back."""

    def damage(images: torch.Tensor) -> torch.Tensor:
        small = interpolate(images, size=(side, side), mode="area")
        return interpolate(small, size=images.shape[-2:], mode="bilinear")

    return damage


def noisy(deviation: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Adds white noise with this deviation, the same for all pictures."""

    def damage(images: torch.Tensor) -> torch.Tensor:
        draw = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(0))
        return (images + deviation * draw).clamp(0, 1)

    return damage


def repeated(images: torch.Tensor) -> torch.Tensor:
    """Four small copies in one picture, as direct inference repeats things."""
    small = interpolate(images, scale_factor=0.5, mode="area")
    return torch.cat([torch.cat([small, small], 3)] * 2, 2)


def shredded(images: torch.Tensor) -> torch.Tensor:
    """Moves rows of an eighth of the height sideways by different widths."""
    rows = images.chunk(8, 2)
    return torch.cat([row.roll((3 * k % 8 - 4) * images.shape[-1] // 16, 3) for k, row in enumerate(rows)], 2)


LADDER = {
    "nothing": lambda images: images,
    "made 48 pixels": resized(48),
    "made 32 pixels": resized(32),
    "made 24 pixels": resized(24),
    "made 16 pixels": resized(16),
    "noise 0.05": noisy(0.05),
    "noise 0.1": noisy(0.1),
    "noise 0.2": noisy(0.2),
    "shredded": shredded,
    "repeated 2 x 2": repeated,
}


@torch.no_grad()
def measure(model: CompositionReader, count: int = 500) -> dict[str, dict[str, float]]:
    """Accuracy on held-out renders at each size, of the count on crowds, and on damaged renders of 128 pixels."""
    collages, result = held_out(count), {}
    truths = [collage.truth for collage in collages]
    crowds = [sample_crowd(HELD_OUT + k) for k in range(count // 2)]
    counts = [{"count": crowd.truth["count"]} for crowd in crowds]
    for size in PICTURE_SIZES:
        result[f"collages {size}"] = accuracy(read(model, collages, size, LADDER["nothing"]), truths)
        result[f"crowds {size}"] = accuracy(read(model, crowds, size, LADDER["nothing"]), counts)
        print(size, {key: round(value, 4) for key, value in result[f"collages {size}"].items()}, flush=True)
    for name, damage in LADDER.items():
        result[f"128, {name}"] = accuracy(read(model, collages, 128, damage), truths)
        print(name, round(result[f"128, {name}"]["all"], 4), flush=True)
    return result


def with_tables(page: str) -> str:
    """The page with the tables of measured accuracy."""
    for mark, text in tables(json.loads(ACCURACY.read_text())).items():
        start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


def tables(measured: dict[str, dict[str, float]]) -> dict[str, str]:
    """Accuracy by size and attribute, and by damage, in percent."""
    names = ["all", *sorted(LABELS)]
    sizes = [["size", *(name.replace("_", " ") for name in names), "count in crowds"]]
    for size in PICTURE_SIZES:
        own = measured[f"collages {size}"]
        sizes.append([str(size), *(percent(own[name]) for name in names), percent(measured[f"crowds {size}"]["count"])])
    shown = ("all", "first_kind", "first_size", "place", "relation", "count", "background")
    damaged = [["128 pixels, then", *(name.replace("_", " ") for name in shown)]]
    damaged += [[name, *(percent(measured[f"128, {name}"][column]) for column in shown)] for name in LADDER]
    return {"accuracy": as_table(sizes), "ladder": as_table(damaged)}


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f}"


def as_table(rows: list[list[str]]) -> str:
    """Rows in Markdown, the first as the heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main(shipped: bool) -> None:
    """Trains, or resumes; then measures and, if wanted, ships the model."""
    torch.manual_seed(SETTINGS["seed"])
    model = CompositionReader(LABELS, **SETTINGS["model"])
    images, truths = pool()

    def batch_of(draw: Draw) -> tuple[torch.Tensor, list[dict]]:
        rows = torch.randint(len(truths), (draw.count,), generator=draw.generator).tolist()
        pixels = np.stack([images[row // SHARD][row % SHARD] for row in rows])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        flip = bool(torch.rand((), generator=draw.generator) < 0.5)
        told = [mirrored(truths[row]) if flip else truths[row] for row in rows]
        return augmented(batch.flip(3) if flip else batch, draw.generator), told

    if train_network(NAME, model, model.loss, batch_of, FIRST_AND_LAST):
        write_json(RUNS / NAME / "accuracy.json", measure(model))
        if shipped:
            write_json(ACCURACY, json.loads((RUNS / NAME / "accuracy.json").read_text()))
            write_whole(PAGE, lambda aside: aside.write_text(with_tables(PAGE.read_text())))
            ship(NAME, model.half(), 1.5)


if __name__ == "__main__":
    main("--ship" in sys.argv[1:])
