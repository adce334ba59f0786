"""Step 3: trains the composition reader on real renders at all sizes, and measures it on held-out ones."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from common import CONFIG, RUNS, augmented, train_network, write_array, write_json
from loop import Draw
from selfcascade.data.scenes import BACKGROUNDS, COLOURS, KINDS, PLACES, SIZES, render, sample_crowd, sample_scene
from selfcascade.metrics.composition import CompositionReader, accuracy

SETTINGS = CONFIG["reader"]
PICTURE_SIZES = (64, 128, 256)
LABELS = {
    "count": ["0", "1", "2", "3"],
    "background": list(BACKGROUNDS),
    "place": list(PLACES),
    "first_kind": list(KINDS),
    "first_colour": list(COLOURS),
    "first_size": list(SIZES),
    "last_kind": list(KINDS),
    "last_colour": list(COLOURS),
    "last_size": list(SIZES),
}
SHARD = 2000


def example(index: int) -> tuple[np.ndarray, dict]:
    """The index-th training example: a picture at one of the sizes, resized to the reader's, and its truth.

    A third are crowds, whose only truths are count and background.
    """
    rng = np.random.default_rng([index, 21])
    crowd = rng.random() < 0.33
    scene = sample_crowd(index) if crowd else sample_scene(10_000_000 + index)
    size = int(rng.choice(PICTURE_SIZES, p=(0.45, 0.35, 0.2)))
    picture = torch.from_numpy(render(scene, size, size, supersample=2 if size == 64 else 1)).permute(2, 0, 1)[None]
    small = interpolate(picture, size=(96, 96), mode="bilinear", antialias=True)[0]
    truth = scene.truth
    if crowd:
        truth = {"count": truth["count"], "background": truth["background"]}
    return (small.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), truth


def pool(shards: int) -> tuple[np.ndarray, list[dict]]:
    """The training examples, rendered once and cached."""
    images, truths = [], []
    for shard in range(shards):
        path = RUNS / f"reader/{shard:03d}"
        if not path.with_suffix(".json").exists():
            rows = [example(shard * SHARD + k) for k in range(SHARD)]
            write_array(path.with_suffix(".npy"), np.stack([image for image, _ in rows]))
            write_json(path.with_suffix(".json"), [truth for _, truth in rows])
            print(f"reader: examples {shard + 1} of {shards}", flush=True)
        images.append(np.load(path.with_suffix(".npy"), allow_pickle=False))
        truths += json.loads(path.with_suffix(".json").read_text())
    return np.concatenate(images), truths


def measure(model: CompositionReader, count: int = 600) -> dict[str, dict[str, float]]:
    """Accuracy on held-out real renders at each size, and of the count on crowds."""
    result = {}
    for size in PICTURE_SIZES:
        for name, scenes in (
            ("scenes", [sample_scene(20_000_000 + k, held_out=True) for k in range(count)]),
            ("crowds", [sample_crowd(20_000_000 + k) for k in range(count // 2)]),
        ):
            readings: list[dict[str, str]] = []
            for start in range(0, len(scenes), 50):
                pictures = np.stack([render(scene, size, size) for scene in scenes[start : start + 50]])
                readings += model.read(torch.from_numpy(pictures).permute(0, 3, 1, 2))
            truths = [scene.truth for scene in scenes]
            if name == "crowds":
                truths = [{"count": truth["count"]} for truth in truths]
            result[f"{name} {size}"] = accuracy(readings, truths)
            print(name, size, {key: round(value, 4) for key, value in result[f"{name} {size}"].items()}, flush=True)
    return result


def main(shards: int = 16) -> None:
    """Trains, or resumes; then measures and writes the model."""
    torch.manual_seed(SETTINGS["seed"])
    model = CompositionReader(LABELS)
    images, truths = pool(shards)

    def batch_of(draw: Draw) -> tuple[Tensor, list[dict]]:
        rows = torch.randint(len(images), (draw.count,), generator=draw.generator).tolist()
        batch = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 255
        return augmented(batch, draw.generator), [truths[row] for row in rows]

    if train_network("reader", model, model.loss, batch_of, ("stem", "head.2")):
        write_json(RUNS / "reader/accuracy.json", measure(model))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
