"""Clips to train the video model on: whole ones, encoded once, and pairs that differ in nothing but where things go."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AnimateDiffPipeline
from torch import Tensor

from common import CONFIG, DEVICE, NATIVE, REVERSED, RUNS, write_array
from selfcascade.data.scenes import caption
from selfcascade.data.scenes.clips import render_clip
from selfcascade.data.scenes.motion import DIRECTIONS, MovingScene, facing, is_held_out_motion, sample_moving_scene
from selfcascade.data.scenes.motion_words import moving_caption

SETTINGS = CONFIG["video"]
FRAMES, SPARE, FPS = 16, 2, 8.0
SHARD, FIRST, FIRST_PAIR = 100, 50_000_000, 52_000_000
PHRASINGS = 4
ENDS = ("first_motion", "last_motion")


class Clips(NamedTuple):
    """Clips and what is said of them.

    Attributes:
        latents: (N, F, C, h, w).
        ids: Token ids, (N, phrasings, length).
        said: Directions of the first and the last object, (N, 2), as numbers of DIRECTIONS; -100 where it is not said.
        places: Of the frames in their clip of 16, (F,).
        alike: So many neighbours are of the same scene, and get the same noise.
    """

    latents: Tensor
    ids: Tensor
    said: Tensor
    places: Tensor
    alike: int = 1


def window_of(number: int) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of what a clip shows of a render twice as large, or None for a whole one."""
    rng = np.random.default_rng([number, 7])
    if rng.random() >= SETTINGS["windows"]:
        return None
    top, left = rng.integers(0, NATIVE + 1, 2)
    return int(top), int(left), NATIVE, NATIVE


def words_of(scene: MovingScene, number: int, phrasing: int) -> str:
    """A caption; that of a window says neither places nor motions."""
    if window_of(number) is not None:
        return caption(scene.scene, number + phrasing, crop=True)
    return moving_caption(scene, number + 1_000_000 * phrasing)


@torch.no_grad()
def load_clips(pipe: AnimateDiffPipeline, shards: int) -> Clips:
    """Clips of 18 frames in float16, encoded once and kept."""
    clips, ids, said = [], [], []
    for shard in range(shards):
        numbers = [FIRST + shard * SHARD + k for k in range(SHARD)]
        scenes, path = [sample_moving_scene(number) for number in numbers], RUNS / f"video/clips/{shard:03d}.npy"
        if not path.exists():
            rows = []
            for scene, number in zip(scenes, numbers, strict=True):
                window = window_of(number)
                side = NATIVE if window is None else 2 * NATIVE
                clip = render_clip(scene, side, side, FRAMES + SPARE, FPS, -SPARE / 2 / FPS, window)
                rows.append(encode(pipe, clip).half().cpu())
            write_array(path, torch.stack(rows).numpy())
            print(f"video: clips {shard + 1} of {shards}", flush=True)
        clips.append(torch.from_numpy(np.load(path, allow_pickle=False)))
        lines = [words_of(scene, n, k) for scene, n in zip(scenes, numbers, strict=True) for k in range(PHRASINGS)]
        tokens = pipe.tokenizer(lines, padding="max_length", truncation=True, return_tensors="pt").input_ids
        ids.append(tokens.reshape(SHARD, PHRASINGS, -1))
        for scene, number in zip(scenes, numbers, strict=True):
            silent = window_of(number) is not None
            said.append([-100 if silent else DIRECTIONS.index(str(scene.truth[end])) for end in ENDS])
    return Clips(torch.cat(clips), torch.cat(ids), torch.tensor(said), torch.arange(FRAMES + SPARE))


@torch.no_grad()
def encode(pipe: AnimateDiffPipeline, clip: np.ndarray) -> Tensor:
    """Latents (F, C, h, w) of frames (F, H, W, 3) in [0, 1]."""
    images = torch.from_numpy(clip).permute(0, 3, 1, 2).mul(2).sub(1)
    return pipe.vae.encode(images.to(DEVICE, memory_format=torch.channels_last)).latent_dist.mode()


def some(clips: Clips, count: int, generator: torch.Generator) -> Clips:
    """16 neighbouring frames of so many of the clips, in one phrasing each."""
    rows = torch.randint(len(clips.latents), (count,), generator=generator)
    start = int(torch.randint(SPARE + 1, (), generator=generator))
    ids = clips.ids[rows, torch.randint(PHRASINGS, rows.shape, generator=generator)]
    latents = clips.latents[rows, start : start + FRAMES].to(DEVICE).float()
    return Clips(latents, ids, clips.said[rows], torch.arange(FRAMES))


def pairs(pipe: AnimateDiffPipeline, count: int, step: int, generator: torch.Generator) -> Clips:
    """Two frames, far apart, of so many scenes and of the same scenes with all directions turned round."""
    gap = SETTINGS["pairs"]["gap"]
    first = int(torch.randint(FRAMES - gap, (), generator=generator))
    jitter = float(torch.rand((), generator=generator)) * SPARE - SPARE / 2
    rows, words, said, number = [], [], [], FIRST_PAIR + 1000 * step
    while len(rows) < 2 * count:
        scene = sample_moving_scene(number)
        other = turned(scene)
        if other is not None:
            for one in (scene, other):
                clip = render_clip(one, NATIVE, NATIVE, 2, FPS / gap, (first + jitter) / FPS)
                rows.append(encode(pipe, clip))
                words.append(moving_caption(one, number))
                said.append([DIRECTIONS.index(str(one.truth[end])) for end in ENDS])
        number += 1
    ids = pipe.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return Clips(torch.stack(rows), ids, torch.tensor(said), torch.tensor([first, first + gap]), alike=2)


def turned(moving: MovingScene) -> MovingScene | None:
    """The scene in which everything goes the other way; None if nothing moves, or one is never to be trained on."""
    items, motions = [], []
    for item, motion in zip(moving.scene.items, moving.motions, strict=True):
        direction = REVERSED.get(motion.direction, motion.direction)
        if is_held_out_motion(item.kind, item.colour, direction):
            return None
        items.append(facing(item, direction))
        motions.append(replace(motion, direction=direction))
    if all(motion.direction == "still" for motion in motions):
        return None
    return MovingScene(replace(moving.scene, items=tuple(items)), tuple(motions))
