"""What the recipe's video model is trained on: pairs of clips in which everything goes opposite ways."""

from typing import Any

import numpy as np
import pytest
import torch

from common import REVERSED
from selfcascade.data.scenes.motion import DIRECTIONS, MovingScene, is_held_out_motion, sample_moving_scene
from selfcascade.data.scenes.render_clip import render_clip
from video_batches import FRAMES, draw_clips, places_of, turned


def scenes(count: int) -> list[MovingScene]:
    return [sample_moving_scene(seed) for seed in range(count)]


def test_a_turned_scene_goes_the_other_way_from_the_same_middle() -> None:
    pairs = [(scene, other) for scene in scenes(40) if (other := turned(scene)) is not None]
    assert len(pairs) > 20
    for scene, other in pairs:
        for item, motion, back in zip(scene.scene.items, scene.motions, other.motions, strict=True):
            assert back.direction == REVERSED.get(motion.direction, motion.direction) and back.speed == motion.speed
            assert back.place(item, 1.0) == pytest.approx(motion.place(item, 1.0))
    scene, other = next(pair for pair in pairs if pair[0].truth["first_motion"] in ("up", "down"))
    clip, back = (render_clip(one, 64, 64, 2, 1 / 2) for one in (scene, other))
    # What only moves up or down at an even speed is at the other's end where it began, bar what else sways.
    assert np.abs(clip[0] - back[1]).mean() < np.abs(clip[0] - back[0]).mean()


def test_scenes_in_which_nothing_moves_or_that_are_held_out_are_not_turned() -> None:
    without = [scene for scene in scenes(200) if turned(scene) is None]
    assert without
    for scene in without:
        still = all(motion.direction == "still" for motion in scene.motions)
        kept_back = any(
            is_held_out_motion(item.kind, item.colour, REVERSED.get(motion.direction, motion.direction))
            for item, motion in zip(scene.scene.items, scene.motions, strict=True)
        )
        assert still or kept_back


def test_few_frames_are_far_apart_and_inside_the_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    for frames, nearest in ((2, 8), (4, 3)):
        drawn = torch.stack([places_of(frames, generator) for _ in range(300)])
        assert drawn.min() == 0 and drawn.max() == FRAMES - 1 and drawn.diff(dim=1).min() == nearest
    assert torch.equal(places_of(FRAMES, generator), torch.arange(FRAMES))


def test_batches_are_drawn_from_their_numbers_and_say_what_they_show(bundled_pipe: Any) -> None:
    pipe = bundled_pipe
    batch = draw_clips(pipe, 4, 30, 2, 0.0, torch.Generator().manual_seed(1))
    again = draw_clips(pipe, 4, 30, 2, 0.0, torch.Generator().manual_seed(1))
    assert batch.latents.shape == (8, 2, 20, 16, 16) and batch.ids.shape == (8, 32) and batch.said.shape == (8, 2)
    assert all(map(torch.equal, batch, again))
    told = [row.tolist() for row in batch.said if row[0] >= 0]
    assert told and all(0 <= one < len(DIRECTIONS) for row in told for one in row)
    empty = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    silent = draw_clips(pipe, 2, 30, 2, 1.0, torch.Generator().manual_seed(1))
    assert (silent.ids == empty).all() and (silent.said == -100).all()
