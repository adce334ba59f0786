"""Moving scenes: what a caption says moves does, a frame depends on its time alone, and pictures stay as they were."""

import collections
import hashlib

import numpy as np
import pytest
from transformers import CLIPTokenizer

from selfcascade.data.scenes import (
    BACKGROUNDS,
    DIRECTIONS,
    MOTION_WORDS,
    MovingScene,
    is_held_out,
    is_held_out_motion,
    moving_caption,
    render,
    render_clip,
    sample_moving_scene,
    sample_scene,
)
from selfcascade.models import BUNDLED

MOVERS = {"fish", "balloon", "boat"}
SOME = [sample_moving_scene(seed) for seed in range(500)]


def test_pictures_are_what_they_were_before_anything_moved() -> None:
    # Painted with sums, products and roots alone, which every processor rounds alike; taken before clips existed.
    for seed, digest in ((100, "d26548a8fa87b780"), (10, "e741b6da57aac188"), (9, "f4f01a3040c212a1")):
        pixels = (render(sample_scene(seed), 48, 64) * 255).round().astype(np.uint8)
        assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == digest
    # Sines may differ in their last bit.
    for seed, quarters in (
        (31, (0.82249, 0.81691, 0.52546, 0.56565)),  # a boat on the sea
        (0, (0.52109, 0.54553, 0.57626, 0.57037)),  # a fish in the desert
        (61, (0.77874, 0.70535, 0.87150, 0.83422)),  # a balloon in the snow
        (66, (0.18422, 0.17026, 0.16298, 0.19298)),  # a flower at night
    ):
        means = render(sample_scene(seed), 32, 32).reshape(2, 16, 2, 16, 3).mean((1, 3, 4))
        np.testing.assert_allclose(means.ravel(), quarters, atol=2e-5)


def test_a_seed_is_a_moving_scene_for_ever() -> None:
    moving = sample_moving_scene(7)
    assert moving == sample_moving_scene(7) != sample_moving_scene(8)
    assert MovingScene.from_json(moving.to_json()) == moving
    assert hashlib.sha256(moving.to_json().encode()).hexdigest()[:16] == "139f9e1e91ee2bba"


def test_directions_are_about_equally_frequent_and_fit_the_kind() -> None:
    first = collections.Counter(moving.motions[0].direction for moving in SOME)
    assert set(first) == set(DIRECTIONS)
    assert min(first.values()) > 0.12 * len(SOME) and max(first.values()) < 0.34 * len(SOME)
    for moving in SOME:
        for item, motion in zip(moving.scene.items, moving.motions, strict=True):
            assert item.kind in MOVERS or motion.direction == "still"
            assert item.kind != "boat" or motion.direction in ("left", "right", "still")
            if item.kind != "balloon" and motion.direction in ("left", "right"):
                assert item.flip == (motion.direction == "right")  # painters draw heads to the left


def test_training_never_sees_a_held_out_combination_or_motion() -> None:
    for moving in SOME:
        for item, motion in zip(moving.scene.items, moving.motions, strict=True):
            place = min((abs(item.x - at), name) for name, at in (("left", 0.26), ("centre", 0.5), ("right", 0.74)))[1]
            assert not is_held_out(item.kind, item.colour, place, moving.scene.background)
            assert not is_held_out_motion(item.kind, item.colour, motion.direction)
    kept = [sample_moving_scene(seed, held_out=True) for seed in range(150)]
    for moving in kept:
        main = moving.scene.items[0]
        assert is_held_out(main.kind, main.colour, moving.scene.place or "", moving.scene.background)
    assert len({moving.motions[0].direction for moving in kept}) == 5


def test_objects_stay_inside_for_two_seconds_and_cross_a_readable_distance() -> None:
    for moving in SOME:
        for item, motion in zip(moving.scene.items, moving.motions, strict=True):
            ends = [motion.place(item, time) for time in (0.0, 2.0)]
            (x0, y0), (x1, y1) = ends
            way = {"left": x0 - x1, "right": x1 - x0, "up": y0 - y1, "down": y1 - y0}.get(motion.direction)
            if way is None:
                assert ends[0] == ends[1]
                continue
            assert 0.2 <= way * 15 / 16 <= 0.35  # from the first of 16 frames to the last
            for at in (x0, x1) if motion.direction in ("left", "right") else (y0, y1):
                assert item.radius <= at <= 1 - item.radius


def moved(moving: MovingScene, side: int = 32) -> dict[str, float]:
    """How far the middle of what differs from the empty scene moves in 15 / 8 s, in widths and heights."""
    empty = MovingScene(
        type(moving.scene)((), moving.scene.background, moving.scene.texture, moving.scene.seed, None), ()
    )
    middles = []
    for start in (0.0, 15 / 8):
        pair = [render_clip(which, side, side, frames=1, start=start)[0] for which in (moving, empty)]
        cover = np.abs(pair[0] - pair[1]).max(2) > 0.04
        rows, columns = np.nonzero(cover)
        middles.append((columns.min() + columns.max(), rows.min() + rows.max()))
    across, down = (np.subtract(middles[1], middles[0]) / (2 * side)).tolist()
    return {"left": -across, "right": across, "up": -down, "down": down}


def test_pixels_move_where_the_truth_and_the_caption_say() -> None:
    seen = collections.Counter()
    for moving in SOME:
        direction = moving.motions[0].direction
        if len(moving.scene.items) > 1 or seen[direction] >= 4:
            continue
        seen[direction] += 1
        assert moving.truth["first_motion"] == moving.truth["last_motion"] == direction
        ways = moved(moving)
        if direction == "still":
            assert max(ways.values()) < 0.06
            continue
        assert ways[direction] > 0.15 and ways[direction] == max(ways.values())
        names = {"up": {"rises", "up"}, "down": {"sinks", "down"}}.get(direction, {direction})
        # On "the left ... swims right" both words occur: the direction is what follows the verb.
        words = moving_caption(moving, 1).replace(",", "").split()
        verb = next(index for index, word in enumerate(words) if word in MOTION_WORDS)
        assert names & set(words[verb : verb + 4]), words
    assert all(seen[direction] == 4 for direction in DIRECTIONS)


def test_two_objects_keep_their_sides_and_are_named_from_the_left() -> None:
    pairs = [moving for moving in SOME if len(moving.scene.items) == 2]
    assert 0.25 < len(pairs) / len(SOME) < 0.45
    for moving in pairs:
        both = sorted(zip(moving.scene.items, moving.motions, strict=True), key=lambda pair: pair[0].x)
        for time in np.linspace(0, 2, 9):
            assert both[0][1].place(both[0][0], time)[0] + 0.1 < both[1][1].place(both[1][0], time)[0]
        assert moving.truth["first_motion"] == both[0][1].direction
        assert moving.truth["last_motion"] == both[1][1].direction
        assert moving.truth["count"] == 2 and moving.truth["first_kind"] == both[0][0].kind


def test_captions_fit_the_bundled_tokenizer_and_name_everything() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED / "tokenizer")
    known, new = set(), set(MOTION_WORDS)
    for seed, moving in enumerate(SOME):
        for phrasing in range(3):
            words = moving_caption(moving, seed + 1000 * phrasing)
            assert len(tokenizer(words).input_ids) <= tokenizer.model_max_length
            known |= set(words.replace(",", "").split()) - new
            assert all(word in words for item in moving.scene.items for word in (item.kind, item.colour, item.size))
    # Whatever is not in MOTION_WORDS, the image model has a token for.
    assert not [word for word in known if tokenizer.tokenize(word) != [f"{word}</w>"]]
    assert all(len(tokenizer.tokenize(word)) > 1 for word in MOTION_WORDS)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_small_clip_is_the_large_one_box_filtered(background: str) -> None:
    moving = next(moving for moving in SOME if moving.scene.background == background)
    large = render_clip(moving, 256, 256, frames=1, start=1.7, supersample=1)[0]
    small = render_clip(moving, 64, 64, frames=1, start=1.7)[0]
    assert psnr(small, large.reshape(64, 4, 64, 4, 3).mean((1, 3))) > 33


def test_a_frame_depends_on_its_time_alone() -> None:
    for moving in SOME[:12]:
        clip = render_clip(moving, 24, 40, frames=5, fps=4.0)
        assert clip.shape == (5, 24, 40, 3) and clip.dtype == np.float32
        assert np.array_equal(clip[::2], render_clip(moving, 24, 40, frames=3, fps=2.0))
        assert np.array_equal(clip[3:4], render_clip(moving, 24, 40, frames=1, start=0.75))
        assert np.abs(clip[0] - clip[4]).max() > 0.05 or moving.scene.background in ("desert", "square")


def test_what_stands_still_and_is_painted_once_looks_as_if_painted_each_time() -> None:
    alone = [m for m in SOME if len(m.scene.items) == 1 and m.scene.items[0].kind in ("house", "mushroom")]
    assert len(alone) >= 4
    for moving in alone[:4]:
        clip = render_clip(moving, 32, 32, frames=2)
        for time, frame in enumerate(clip):
            np.testing.assert_allclose(frame, render(moving.scene, 32, 32, time=time / 8), atol=1e-6)


def test_a_window_of_a_clip_is_a_crop_of_it() -> None:
    moving = SOME[0]
    window = render_clip(moving, 64, 64, frames=2, window=(10, 18, 32, 24))
    np.testing.assert_allclose(window, render_clip(moving, 64, 64, frames=2)[:, 10:42, 18:42], atol=1e-6)


def test_every_kind_and_background_that_can_move_does() -> None:
    swaying = {"tree", "flower", "boat"}
    for kind in swaying:
        moving = next(
            m for m in SOME if m.scene.items[0].kind == kind and len(m.scene.items) == 1 and m.scene.background != "sea"
        )
        frames = render_clip(moving, 64, 64, frames=8, fps=8.0)
        assert np.abs(np.diff(frames, axis=0)).max((0, 3)).mean() > 0.001, kind
    for background in ("meadow", "night", "sea", "snow"):
        scene = next(m.scene for m in SOME if m.scene.background == background)
        empty = MovingScene(type(scene)((), background, 1.0, scene.seed, None), ())
        frames = render_clip(empty, 64, 64, frames=9, fps=8.0)
        assert np.abs(frames[8] - frames[0]).mean() > 0.001, background


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frames": 0}, "frames must be from 1 to 4096, not 0"),
        ({"fps": 0.0}, "fps must be a number above 0"),
        ({"fps": float("nan")}, "fps must be a number above 0, not nan"),
        ({"height": 0}, "height must be from 1 to 16384, not 0"),
    ],
)
def test_bad_clips_are_refused(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        render_clip(SOME[0], **{"height": 8, "width": 8, **arguments})  # type: ignore[arg-type]
