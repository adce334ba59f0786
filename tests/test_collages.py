"""Collages: the same from a seed for ever, the same picture at every size, of the package's cut-outs or one's own."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from selfcascade.cascade import Size
from selfcascade.data import DataError, Skip, Stream, open_source
from selfcascade.data.collages import (
    SPLITS,
    Collage,
    bundled_assets,
    bundled_categories,
    caption,
    open_assets,
    render,
    sample_collage,
    sample_crowd,
    split_of,
    splits_of,
)
from selfcascade.data.collages.names import noun, texts_in, words_of
from selfcascade.data.collages.sprites import SPRITES, read_sprite
from selfcascade.data.collages.textures import Surface
from selfcascade.data.scenes import KINDS as SCENE_KINDS


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def box_filtered(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    return pixels.reshape(height, factor, width, factor, 3).mean((1, 3))


def with_background(name: str, **changes) -> Collage:
    found = next(collage for collage in map(sample_collage, range(500)) if collage.background == name)
    return replace(found, **changes)


def test_the_cut_outs_are_as_promised() -> None:
    assets = bundled_assets()
    assert 80 <= len(assets.kinds) <= 150
    assert set(bundled_categories()) == {"animal", "plant", "food", "vehicle", "object"}
    assert sum(map(len, bundled_categories().values())) == len(assets.kinds)
    assert not set(assets.kinds) & set(SCENE_KINDS)
    files = [file for kind in assets.sprites.values() for file in kind]
    assert sum(file.stat().st_size for file in files) <= 3_000_000
    assert "MIT License" in (SPRITES / "LICENSE").read_text()
    for file in files:
        with Image.open(file) as picture:
            assert (picture.mode, max(picture.size)) == ("RGBA", 512)


def test_a_seed_is_a_collage_for_ever() -> None:
    collage = sample_collage(7)
    assert collage == sample_collage(7)
    assert collage != sample_collage(8)
    assert Collage.from_json(collage.to_json()) == collage
    assert hashlib.sha256(collage.to_json().encode()).hexdigest()[:16] == "5b8043d2d969be2c"
    assert np.array_equal(render(collage, 48, 64), render(collage, 48, 64))


def test_splits_share_no_combination() -> None:
    for split in SPLITS:
        for seed in range(100):
            assert splits_of(sample_collage(seed, split)) == {split}
    kinds = bundled_assets().kinds
    pairs = [split_of(*sorted((one, other))) for k, one in enumerate(kinds) for other in kinds[k + 1 :]]
    for split in SPLITS[1:]:
        assert pairs.count(split) / len(pairs) == pytest.approx(1 / 30, abs=0.01)
    with pytest.raises(ValueError, match="split must be one of train, tuning, validation, test, not 'held-out'"):
        sample_collage(0, "held-out")  # type: ignore[arg-type]


def test_collages_are_as_varied_as_promised() -> None:
    collages = [sample_collage(seed) for seed in range(1500)]
    assets = bundled_assets()
    assert {item.kind for collage in collages for item in collage.items} == set(assets.kinds)
    assert {collage.background for collage in collages} == set(assets.background_names)
    assert np.mean([len(collage.items) == 2 for collage in collages]) == pytest.approx(0.4, abs=0.05)
    single = [collage.place for collage in collages if collage.place]
    assert min(single.count(place) for place in set(single)) > 100
    assert len(set(single)) == 5


def test_a_truth_follows_from_the_places() -> None:
    for seed in range(200):
        collage = sample_collage(seed)
        first, last = collage.ordered[0], collage.ordered[-1]
        truth = collage.truth
        assert (truth["first_kind"], truth["last_kind"]) == (first.kind, last.kind)
        assert truth["count"] == len(collage.items)
        if truth.get("relation") == "beside":
            assert last.x - first.x > 0.3 > abs(last.y - first.y)
        elif truth.get("relation") == "above":
            assert last.y - first.y > 0.3 > abs(last.x - first.x)
        else:
            assert truth["place"] == collage.place


def test_captions_say_what_is_there() -> None:
    for seed in range(100):
        collage = sample_collage(seed)
        for phrasing in range(5):
            words = caption(collage, phrasing)
            assert len(words.split()) < 24
            for item in collage.items:
                assert f"a {item.size} {item.kind}" in words
            assert any(phrase in words for phrase in bundled_assets().backgrounds[collage.background])
            if collage.place:
                assert collage.place in words.replace("middle", "centre")
    cropped = caption(sample_collage(0), crop=True)
    assert not any(word in cropped for word in ("left", "right", "large", "small", "above"))
    assert len({caption(sample_collage(0), k) for k in range(30)}) > 5


@pytest.mark.parametrize("main", [0, 1])
@pytest.mark.parametrize("relation", ["beside", "above"])
def test_a_caption_names_the_relation_from_the_main_object(relation: str, main: int) -> None:
    found = next(collage for collage in map(sample_collage, range(200)) if collage.relation == relation)
    first = found.ordered[main]
    collage = replace(found, items=(first, found.ordered[1 - main]))
    said = {"beside": (("left",), ("right",)), "above": (("above", "over"), ("below", "under"))}[relation][main]
    for phrasing in range(10):
        words = caption(collage, phrasing)
        begin = words.index(first.kind)
        assert any(word in words[begin : words.index(collage.items[1].kind)] for word in said)


def test_a_small_render_is_the_large_one_box_filtered() -> None:
    errors: dict[int, list[float]] = {64: [], 128: [], 256: []}
    for name in bundled_assets().background_names:
        for second in (False, True):
            collage = replace(sample_collage(len(name), second=second), background=name)
            large = render(collage, 512, 512)
            for side, found in errors.items():
                found.append(psnr(render(collage, side, side), box_filtered(large, 512 // side)))
    for found in errors.values():
        assert min(found) > 34
        assert np.mean(found) > 40


def test_every_background_has_detail_that_only_large_sizes_show() -> None:
    for name in bundled_assets().background_names:
        large = render(with_background(name, items=()), 512, 512)
        smooth = np.repeat(np.repeat(box_filtered(large, 2), 2, 0), 2, 1)
        assert psnr(large, smooth) < 42, name


def test_a_window_is_a_crop_of_the_whole() -> None:
    for seed in range(4):
        whole = render(sample_collage(seed), 128, 128)
        window = render(sample_collage(seed), 128, 128, window=(20, 36, 64, 48))
        np.testing.assert_allclose(window, whole[20:84, 36:84], atol=2.5 / 255)  # cut-outs are sampled in 8 bits


def test_objects_lie_where_the_collage_says() -> None:
    collage = with_background("sand", items=(sample_collage(3).items[0],))
    item = replace(collage.items[0], x=0.3, y=0.6, diameter=0.4, turn=0.0)
    bare, drawn = (render(replace(collage, items=items), 100, 100) for items in ((), (item,)))
    changed = np.abs(drawn - bare).max(2) > 0.25
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(40, abs=4)
    assert np.mean([columns[0], columns[-1]]) == pytest.approx(30, abs=3)
    assert np.mean([rows[0], rows[-1]]) == pytest.approx(60, abs=3)


def test_a_mirrored_cut_out_is_the_mirror_of_the_cut_out() -> None:
    item = replace(sample_collage(3).items[0], x=0.5, y=0.5, turn=12.0, flip=False)
    collage = with_background("water", items=(item,))
    bare = render(replace(collage, items=()), 96, 96)
    mirrored = render(replace(collage, items=(replace(item, turn=-12.0, flip=True),)), 96, 96)
    one = np.abs(render(collage, 96, 96) - bare).max(2) > 0.35
    other = np.abs(mirrored - bare).max(2)[:, ::-1] > 0.35
    assert np.mean(one != other) < 0.06


@pytest.mark.parametrize("size", [(64, 192), (192, 64)])
@pytest.mark.parametrize("second", [False, True])
def test_objects_stay_in_the_picture_at_other_ratios(size: tuple[int, int], second: bool) -> None:
    for seed in range(6):
        collage = replace(sample_collage(seed, second=second), background="sand")
        bare = render(replace(collage, items=()), *size)
        for item in collage.items:
            alone = replace(collage, items=(replace(item, turn=0.0),))
            changed = np.abs(render(alone, *size) - bare).max(2) > 0.3
            border = np.concatenate([changed[0], changed[-1], changed[:, 0], changed[:, -1]])
            assert changed.any()
            assert border.mean() < 0.06


def test_crowds_have_none_to_six_objects_and_no_caption() -> None:
    crowds = [sample_crowd(seed) for seed in range(120)]
    assert {len(crowd.items) for crowd in crowds} >= {0, 1, 2, 3, 4}
    assert all(crowd.truth["count"] == min(3, len(crowd.items)) for crowd in crowds)
    assert render(crowds[0], 32, 32).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="has no caption"):
        caption(crowds[0])


@pytest.mark.parametrize(("height", "width"), [(0, 64), (64, -1), (20_000, 64), (64, 2**31)])
def test_bad_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 16384"):
        render(sample_collage(0), height, width)


def test_noise_has_unit_deviation_at_any_grain() -> None:
    at = (np.arange(256, dtype=np.float32) + 0.5) / 256
    surface = Surface(at, at, 1 / 256, 1.0, 1.0)
    for grain in (0.02, 0.05):
        field = np.concatenate([surface.noise(grain, grain, seed).ravel() for seed in range(4)])
        assert field.mean() == pytest.approx(0, abs=0.1)
        assert field.std() == pytest.approx(1, abs=0.1)


def own_assets(folder: Path) -> tuple[Path, Path]:
    sprites, backgrounds = folder / "sprites", folder / "backgrounds"
    (sprites / "animals").mkdir(parents=True)
    backgrounds.mkdir()
    for k, colour in enumerate(("red", "green", "blue", "white", "black", "orange")):
        picture = Image.new("RGBA", (120, 80))
        ImageDraw.Draw(picture).ellipse((10, 10, 110, 70), fill=colour)
        picture.save(sprites / "animals" / f"{colour}_ball.png")
        if k:
            (sprites / "animals" / f"{colour}_ball.txt").write_text(f"A {colour} ball.\nde.utf8=Ein Ball.\n")
    for name, grey in (("old_wall", 90), ("clear-sky", 200)):
        Image.new("RGB", (300, 200), (grey,) * 3).save(backgrounds / f"{name}.jpg")
    (backgrounds / "old_wall.txt").write_text("an old wall.")
    return sprites, backgrounds


def test_ones_own_cut_outs_and_photographs_are_composed(tmp_path: Path) -> None:
    sprites, backgrounds = own_assets(tmp_path)
    source = open_source(f"collages:sprites={sprites},backgrounds={backgrounds}", Size(48, 64))
    entries = [entry for entry, _ in zip(source.entries(0, 0), range(20), strict=False)]
    for entry in entries:
        assert not isinstance(entry, Skip)
        assert "ball" in entry.caption
        assert "in front of an old wall" in entry.caption or "in front of clear sky" in entry.caption
        pixels = np.asarray(entry.load())
        assert pixels.shape == (48, 64, 3)
        assert abs(np.median(pixels) - (90 if "wall" in entry.caption else 200)) < 12
    again = next(iter(source.entries(0, 0)))
    assert not isinstance(again, Skip)
    assert np.array_equal(np.asarray(again.load()), np.asarray(entries[0].load()))  # type: ignore[union-attr]


def test_photographs_of_one_name_are_all_used(tmp_path: Path) -> None:
    sprites, backgrounds = own_assets(tmp_path)
    for number in range(5):
        folder = backgrounds / f"trip-{number}"
        folder.mkdir()
        Image.new("RGB", (90, 60), (50 * number,) * 3).save(folder / "IMG_1.jpg")
    assets = open_assets(sprites, backgrounds)
    name = next(name for name, files in assets.photographs.items() if len(files) == 5)
    assert {*assets.photographs[name]} <= {*assets.files}
    x, y = ((np.arange(side) + 0.5).astype(np.float32) / 32 for side in (48, 32))
    surface = Surface(x, y, 1 / 32, 48 / 32, 1.0)
    levels = {round(float(assets.paint(name, surface, 0.0, seed).mean()) * 255 / 50) for seed in range(10)}
    assert levels == {0, 1, 2, 3, 4}


def test_few_kinds_have_single_objects_where_no_pair_belongs_to_the_split(tmp_path: Path) -> None:
    assets = open_assets(own_assets(tmp_path)[0])
    assert not any(split_of(*sorted(pair)) == "test" for pair in itertools.combinations(assets.kinds, 2))
    collages = [sample_collage(seed, "test", assets=assets) for seed in range(20)]
    assert {len(collage.items) for collage in collages} == {1}
    with pytest.raises(ValueError, match="6 kinds of cut-outs are too few for collages of the split 'test'"):
        sample_collage(0, "test", second=True, assets=assets)


def test_a_photograph_is_box_filtered_too(tmp_path: Path) -> None:
    sprites, backgrounds = own_assets(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (700, 1000, 3), dtype=np.uint8)).save(backgrounds / "old_wall.jpg")
    assets = open_assets(sprites, backgrounds)
    collage = sample_collage(0, assets=assets)
    collage = replace(collage, background="an old wall")
    large = render(collage, 256, 256, assets=assets)
    assert psnr(render(collage, 64, 64, assets=assets), box_filtered(large, 4)) > 34


def test_a_damaged_cut_out_is_skipped_and_named(tmp_path: Path) -> None:
    sprites, backgrounds = own_assets(tmp_path)
    for file in sprites.rglob("*.png"):
        file.write_bytes(b"no picture")
    source = open_source(f"collages:sprites={sprites},backgrounds={backgrounds}", Size(32, 32))
    stream = Stream(source, (Size(32, 32),), 0)
    with pytest.raises(DataError, match="a cut-out or photograph cannot be used"):
        next(stream.batches(4))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "collages:sprits=x",
            r"'collages:sprits=x' must be 'collages' or 'collages:sprites=DIR,backgrounds=DIR,split=NAME'",
        ),
        ("collages:split=held-out", "must be one of train, tuning, validation, test, not 'held-out'"),
        ("collages:sprites=", "each once"),
        ("collages:sprites=a,sprites=a", "each once"),
        ("collages:sprites=/nowhere", "sprites '/nowhere' is not a folder"),
        ("collages:backgrounds=/nowhere", "backgrounds '/nowhere' is not a folder"),
    ],
)
def test_bad_names_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        open_source(name, Size(64, 64))


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of at least two kinds, not 0"):
        open_source(f"collages:sprites={tmp_path}", Size(64, 64))
    with pytest.raises(DataError, match="has no photographs"):
        open_source(f"collages:backgrounds={tmp_path}", Size(64, 64))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    sprites, _ = own_assets(tmp_path)
    outside = tmp_path / "outside.png"
    Image.new("RGBA", (9, 9), "red").save(outside)
    (sprites / "linked.png").symlink_to(outside)
    assert "linked" not in open_assets(sprites).kinds


@pytest.mark.parametrize(
    ("caption_file", "name", "kind"),
    [
        ("A red apple.", "x.png", "red apple"),
        ("An owl", "x.png", "owl"),
        ("some grapes.\nde.utf8=Trauben.", "x.png", "grapes"),
        ("A wheel! Put the brakes to the rear.", "x.png", "wheel"),
        ("BMX bike", "x.png", "BMX bike"),
        ("", "red_apple-2.png", "red apple 2"),
        (None, "RedApple.png", "red Apple"),
    ],
)
def test_a_cut_out_is_named_by_its_caption_or_its_file(
    tmp_path: Path, caption_file: str | None, name: str, kind: str
) -> None:
    path = tmp_path / name
    if caption_file is not None:
        path.with_suffix(".txt").write_text(caption_file)
    assert noun(words_of(path, texts_in(tmp_path))) == kind


def test_a_transparent_cut_out_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20)).save(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"nothing\.png' cannot be used: is transparent all over"):
        read_sprite(tmp_path / "nothing.png")


def test_a_training_stream_takes_collages() -> None:
    stream = Stream(open_source("collages", Size(32, 48)), (Size(32, 48),), 0)
    batch = next(stream.batches(4))
    assert batch.pixels.shape == (4, 3, 32, 48)
    assert batch.keys[0] == "collage-0"
    held_out = next(iter(open_source("collages:split=validation", Size(32, 32)).entries(0, 0)))
    assert not isinstance(held_out, Skip)
    assert held_out.caption == caption(sample_collage(0, "validation"), 0)
    assert json.loads(json.dumps(batch.captions)) == [caption(sample_collage(k), k) for k in range(4)]
