"""Training clips of the video model, in pairs that differ only in their directions of motion."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AnimateDiffPipeline
from torch import Tensor

from common import CONFIG, DEVICE, NATIVE, REVERSED
from selfcascade.data.scenes import caption
from selfcascade.data.scenes.motion import DIRECTIONS, MovingScene, facing, is_held_out_motion, sample_moving_scene
from selfcascade.data.scenes.motion_words import moving_caption
from selfcascade.data.scenes.render_clip import FRAMES, render_clip
from selfcascade.media.frame_rates import DEFAULT_FPS

SETTINGS = CONFIG["video"]
FIRST, OTHERS = 50_000_000, 500_000_000
ENDS = ("first_motion", "last_motion")


class Clips(NamedTuple):
    """Clips and their captions; neighbours (0 and 1, 2 and 3, ...) are a pair.

    Attributes:
        latents: Latents, (N, F, C, h, w).
        ids: Token ids, (N, length).
        said: Directions of the first and last object, (N, 2), as indices into DIRECTIONS; -100 if not in the caption.
        places: Positions of the frames in their clip of 16, (F,).
    """

    latents: Tensor
    ids: Tensor
    said: Tensor
    places: Tensor


def places_of(frames: int, generator: torch.Generator) -> Tensor:
    """Positions of this many frames in a clip of 16, evenly spaced over more than half of it."""
    widest = (FRAMES - 1) // (frames - 1)
    step = int(torch.randint((widest + 1) // 2, widest + 1, (), generator=generator))
    first = torch.randint(FRAMES - step * (frames - 1), (), generator=generator)
    return first + step * torch.arange(frames)


def draw_clips(
    pipe: AnimateDiffPipeline, count: int, number: int, frames: int, dropout: float, generator: torch.Generator
) -> Clips:
    """Clips of `count` scenes, from `number` on, and of the same scenes with all directions reversed.

    A scene without motion is paired with another one. A share of clips shows a part of a picture twice as large, for
    larger sizes; their captions have neither places nor motions.
    """
    places = places_of(frames, generator)
    step = int(places[1] - places[0])
    jitter = float(torch.rand((), generator=generator)) * 2 - 1
    clips, words, said = [], [], []
    for one in range(number, number + count):
        scene, rng = sample_moving_scene(FIRST + one), np.random.default_rng([one, 7])
        windowed, silent = rng.random() < SETTINGS["windows"], rng.random() < dropout
        window = (*(int(edge) for edge in rng.integers(0, NATIVE + 1, 2)), NATIVE, NATIVE) if windowed else None
        side = 2 * NATIVE if windowed else NATIVE
        for half in (scene, turned(scene) or sample_moving_scene(OTHERS + one)):
            start = (int(places[0]) + jitter) / DEFAULT_FPS
            clips.append(render_clip(half, side, side, len(places), DEFAULT_FPS / step, start, window))
            told = caption(half.scene, one, crop=True) if windowed else moving_caption(half, one)
            words.append("" if silent else told)
            ends = [DIRECTIONS.index(str(half.truth[end])) for end in ENDS]
            said.append([-100, -100] if windowed or silent else ends)
    latents = encode(pipe, np.concatenate(clips)).float().unflatten(0, (len(clips), len(places)))
    ids = pipe.tokenizer(words, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return Clips(latents, ids.to(DEVICE), torch.tensor(said, device=DEVICE), places.to(DEVICE))


@torch.no_grad()
def encode(pipe: AnimateDiffPipeline, frames: np.ndarray) -> Tensor:
    """Latents (F, C, h, w) of frames (F, H, W, 3) in [0, 1]."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).mul(2).sub(1)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        return pipe.vae.encode(images.to(DEVICE, memory_format=torch.channels_last)).latent_dist.mode()


def turned(moving: MovingScene) -> MovingScene | None:
    """The scene with all directions reversed; None if nothing moves, or a motion is held out."""
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
