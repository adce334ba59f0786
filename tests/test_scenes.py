"""The scenes world: the same from a seed for ever, the same picture at every size."""

import dataclasses
import hashlib

import numpy as np
import pytest

from selfcascade.data.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    Scene,
    caption,
    is_held_out,
    render,
    sample_crowd,
    sample_scene,
)


def test_a_seed_is_a_scene_for_ever() -> None:
    scene = sample_scene(7)
    assert scene == sample_scene(7)
    assert scene != sample_scene(8)
    assert Scene.from_json(scene.to_json()) == scene
    assert hashlib.sha256(scene.to_json().encode()).hexdigest()[:16] == "1c1b46a1010d61f0"


def test_a_render_is_the_same_for_ever() -> None:
    # A house on a meadow is painted with sums, products and roots alone, which every processor rounds alike.
    scene = dataclasses.replace(sample_scene(34), items=sample_scene(34).items[:1])
    assert (scene.items[0].kind, scene.background) == ("house", "meadow")
    pixels = (render(scene, 48, 64) * 255).round().astype(np.uint8)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "b43b0a9d1c43dd13"
    assert np.array_equal(render(scene, 48, 64), render(scene, 48, 64))


def test_training_never_sees_a_held_out_combination() -> None:
    for seed in range(400):
        for item in sample_scene(seed).items:
            place = min((abs(item.x - at), name) for name, at in (("left", 0.26), ("centre", 0.5), ("right", 0.74)))[1]
            assert not is_held_out(item.kind, item.colour, place, sample_scene(seed).background)
        main = sample_scene(seed, held_out=True)
        assert main.place is not None
        assert is_held_out(main.items[0].kind, main.items[0].colour, main.place, main.background)


def test_the_world_is_as_varied_as_promised() -> None:
    scenes = [sample_scene(seed) for seed in range(600)]
    items = [item for scene in scenes for item in scene.items]
    assert {item.kind for item in items} == set(KINDS)
    assert {item.colour for item in items} == set(COLOURS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert len(KINDS) >= 6
    assert len(COLOURS) >= 8
    assert len(BACKGROUNDS) >= 5
    assert 0.25 < np.mean([len(scene.items) == 2 for scene in scenes]) < 0.45


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def test_a_small_render_is_the_large_one_box_filtered() -> None:
    errors: dict[int, list[float]] = {64: [], 128: []}
    for seed in range(30):
        scene = sample_scene(seed)
        large = render(scene, 512, 512, supersample=1)  # filtered below, eight pixels to one
        for side, found in errors.items():
            filtered = large.reshape(side, 512 // side, side, 512 // side, 3).mean((1, 3))
            found.append(psnr(render(scene, side, side), filtered))
    for found in errors.values():
        assert min(found) > 33
        assert np.mean(found) > 40


def test_detail_exists_at_large_sizes_only() -> None:
    for seed in range(8):
        scene = sample_scene(seed)
        large = render(scene, 512, 512, supersample=1)
        smooth = np.repeat(np.repeat(render(scene, 64, 64), 8, 0), 8, 1)
        assert psnr(large, smooth) < 30


def test_a_window_is_a_crop_of_the_whole() -> None:
    scene = sample_scene(3)
    whole = render(scene, 128, 128)
    window = render(scene, 128, 128, window=(20, 36, 64, 48))
    np.testing.assert_allclose(window, whole[20:84, 36:84], atol=1e-6)


def test_time_moves_the_waves_and_nothing_else() -> None:
    sea = next(scene for scene in map(sample_scene, range(100)) if scene.background == "sea")
    assert not np.array_equal(render(sea, 64, 64), render(sea, 64, 64, time=1.0))
    desert = next(scene for scene in map(sample_scene, range(100)) if scene.background == "desert")
    assert np.array_equal(render(desert, 64, 64), render(desert, 64, 64, time=1.0))


def test_an_object_keeps_its_share_of_a_wide_picture() -> None:
    scene = next(scene for scene in map(sample_scene, range(100)) if len(scene.items) == 1)
    empty = Scene((), scene.background, scene.texture, scene.seed, None)

    def share(height: int, width: int) -> float:
        return float((np.abs(render(scene, height, width) - render(empty, height, width)).max(2) > 0.02).mean())

    assert share(64, 256) == pytest.approx(share(128, 128), rel=0.25)


def test_captions_say_what_is_there() -> None:
    for seed in range(100):
        scene = sample_scene(seed)
        for phrasing in range(5):
            words = caption(scene, phrasing)
            assert len(words.split()) < 26
            for item in scene.items:
                assert item.kind in words
                assert item.colour in words
                assert item.size in words
            spoken = words.replace("middle", "centre")
            assert len(scene.items) == 2 or str(scene.place) in spoken
    assert len({caption(sample_scene(0), k) for k in range(30)}) > 5
    cropped = caption(sample_scene(0), crop=True)
    assert not any(word in cropped for word in ("left", "right", "large", "small"))


def test_crowds_have_none_to_six_objects_and_a_count_truth() -> None:
    scenes = [sample_crowd(seed) for seed in range(120)]
    assert {len(scene.items) for scene in scenes} >= {0, 1, 2, 3, 4}
    assert all(scene.truth["count"] == min(3, len(scene.items)) for scene in scenes)
    assert render(scenes[0], 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize(("height", "width"), [(0, 64), (64, -1), (20_000, 64), (64, 2**31)])
def test_bad_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 16384"):
        render(sample_scene(0), height, width)
