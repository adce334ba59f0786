"""Step 1: renders the training pictures, shard by shard (native renders, and native-size windows of 2x and 4x renders).

The windows teach the base model the local statistics of the larger sizes, as photographs teach Stable Diffusion.
"""

from __future__ import annotations

import sys

import numpy as np

from common import CONFIG, NATIVE, RUNS, shard_count, write_array, write_json
from selfcascade.data.scenes import Scene, caption, render, sample_scene

SETTINGS = CONFIG["pictures"]


def picture(index: int) -> tuple[np.ndarray, str]:
    """The index-th training picture, (64, 64, 3) uint8, and its caption."""
    scene, rng = sample_scene(index), np.random.default_rng([index, 11])
    draw = rng.random()
    if draw < SETTINGS["native"]:
        image, words = render(scene, NATIVE, NATIVE), caption(scene, index)
    else:
        size = NATIVE * (2 if draw < SETTINGS["native"] + SETTINGS["twice"] else 4)
        image, words = _window(scene, size, rng, index)
    return (image * 255).round().astype(np.uint8), words


def _window(scene: Scene, size: int, rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    if rng.random() < 0.75:
        item = scene.items[int(rng.integers(len(scene.items)))]
        corner = np.array([item.y, item.x]) * size - NATIVE / 2 + rng.normal(0, 0.5 * item.radius * size, 2)
    else:
        corner = rng.uniform(0, size - NATIVE, 2)
    top, left = (int(c) for c in np.clip(corner, 0, size - NATIVE))
    centre_y, centre_x, half = (top + NATIVE / 2) / size, (left + NATIVE / 2) / size, NATIVE / 2 / size
    seen = tuple(
        item
        for item in scene.items
        if abs(item.x - centre_x) < half + 0.4 * item.radius and abs(item.y - centre_y) < half + 0.4 * item.radius
    )
    shown = Scene(seen, scene.background, scene.texture, scene.seed, None)
    return render(scene, size, size, window=(top, left, NATIVE, NATIVE)), caption(shown, index, crop=True)


def main(part: int = 0, parts: int = 1) -> None:
    """Renders the shards that are missing; `part` of `parts` when several processes share the work."""
    for shard in range(part, shard_count(), parts):
        done = RUNS / f"pictures/{shard:04d}.json"
        if done.exists():
            continue
        first = shard * SETTINGS["shard"]
        rows = [picture(first + k) for k in range(SETTINGS["shard"])]
        write_array(RUNS / f"pictures/{shard:04d}.npy", np.stack([image for image, _ in rows]))
        write_json(done, [words for _, words in rows])
        print(f"pictures: shard {shard + 1} of {shard_count()}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
