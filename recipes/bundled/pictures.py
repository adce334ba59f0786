"""Step 1: renders the training pictures of every world, shard by shard; each depends only on its number.

There are several groups: whole pictures at several sizes, and windows of larger renders, captioned without place and
size. The windows teach the base model what larger sizes look like close up, as photographs do for Stable Diffusion.

Usage: pictures.py [part parts]   several processes share the shards
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import CONFIG, RUNS, write_array, write_json
from worlds import WORLDS, World, draw_window

SETTINGS = CONFIG["pictures"]
PHRASINGS = 4
GROUP_STRIDE = 1_000_000  # numbers between one group's first picture and the next one's


def picture(group: str, world: World, index: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The index-th picture of a group, (H, W, 3) uint8, with its captions and, for whole pictures, the truth."""
    settings = SETTINGS["groups"][group]
    number = index + GROUP_STRIDE * list(SETTINGS["groups"]).index(group)
    scene, side = world.sample(number), settings["side"]
    phrasings = [number + 100 * GROUP_STRIDE * k for k in range(PHRASINGS)]
    if "window" in settings:
        size = settings["window"]
        window = draw_window(world, scene, side, size, np.random.default_rng([number, 11]))
        image = world.render(scene, side, side, (window.top, window.left, size, size))
        said: dict[str, Any] = {"captions": [world.caption(window.shown, k, True) for k in phrasings], "truth": {}}
    else:
        image = world.render(scene, side, side, None)
        said = {"captions": [world.caption(scene, k, False) for k in phrasings], "truth": scene.truth}
    return (image * 255).round().astype(np.uint8), said


def shards(groups: Sequence[str]) -> list[tuple[str, str, int]]:
    """(group, world, shard) of all pictures of these groups."""
    return [
        (group, world, shard)
        for group in groups
        for world in WORLDS
        for shard in range(-(-SETTINGS["groups"][group]["count"] // SETTINGS["shard"]))
    ]


def path_of(kind: str, group: str, world: str, shard: int, ending: str) -> Path:
    """Path of a shard of pictures or latents."""
    return RUNS / kind / f"{group}-{world}" / f"{shard:04d}.{ending}"


def load(kind: str, group: str, world: str) -> list[np.ndarray]:
    """The shards of one group, mapped from disk."""
    wanted = [path_of(kind, *shard, "npy") for shard in shards([group]) if shard[1] == world]
    return [np.load(path, mmap_mode="r", allow_pickle=False) for path in wanted]


def load_said(group: str, world: str) -> list[dict[str, Any]]:
    """Captions and truth of each picture of one group."""
    wanted = [path_of("pictures", *shard, "json") for shard in shards([group]) if shard[1] == world]
    return [row for path in wanted for row in json.loads(path.read_text())]


def main(part: int = 0, parts: int = 1) -> None:
    """Renders the missing shards; share `part` of `parts` if several processes work together."""
    for group, world, shard in shards(list(SETTINGS["groups"]))[part::parts]:
        done = path_of("pictures", group, world, shard, "json")
        if done.exists():
            continue
        draw = functools.partial(picture, group, WORLDS[world])
        last = min((shard + 1) * SETTINGS["shard"], SETTINGS["groups"][group]["count"])
        rows = [draw(index) for index in range(shard * SETTINGS["shard"], last)]
        write_array(path_of("pictures", group, world, shard, "npy"), np.stack([image for image, _ in rows]))
        write_json(done, [said for _, said in rows])
        print(f"pictures: {group} of {world}, shard {shard + 1}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
