"""Order, resume and shares of a stream, over collections of every shape and any number of processes."""

import functools
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data import (
    Batch,
    DataError,
    Entry,
    Fingerprint,
    Position,
    ScenesSource,
    Skip,
    Source,
    Stream,
    open_source,
)
from selfcascade.data.scenes import is_held_out, sample_scene

SIDE, WIDE = Size(16, 16), Size(8, 32)
SHAPES = {"square": (20, 18), "wide": (40, 10), "damaged": None, "small": (9, 9)}


class Collection(Source):
    """Samples of the shapes named, in an order of seed and epoch."""

    def __init__(self, shapes: list[str]) -> None:
        self.shapes = shapes

    def __len__(self) -> int:
        return len(self.shapes)

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        number = int(np.random.default_rng([seed, epoch]).permutation(len(self.shapes))[index])
        return Entry(f"{number}", f"{self.shapes[number]} {number}", functools.partial(self._load, number))

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(len(self), 0, " ".join(self.shapes))

    def _load(self, number: int) -> Image.Image:
        shape = SHAPES[self.shapes[number]]
        if shape is None:
            raise Skip("picture is damaged", str(number))
        pixels = np.random.default_rng(number).integers(0, 256, (shape[1], shape[0], 3), np.uint8)
        return Image.fromarray(pixels)


def stream(shapes: list[str], seed: int = 0) -> Stream:
    return Stream(Collection(shapes), (SIDE, WIDE), seed, max_skip_share=1.0)


def same(a: Batch, b: Batch) -> bool:
    return (
        (a.keys, a.captions, a.position) == (b.keys, b.captions, b.position)
        and torch.equal(a.pixels, b.pixels)
        and torch.equal(a.crops, b.crops)
        and torch.equal(a.original_sizes, b.original_sizes)
    )


@settings(max_examples=40, deadline=None)
@given(
    rest=st.lists(st.sampled_from(sorted(SHAPES)), max_size=7),
    world_size=st.integers(1, 3),
    batch_size=st.integers(1, 4),
    seed=st.integers(0, 99),
    cut=st.integers(1, 9),
)
def test_a_run_goes_on_exactly_where_it_was_cut(
    rest: list[str], world_size: int, batch_size: int, seed: int, cut: int
) -> None:
    # Enough squares for each process to have one in any order; wide pictures wait for each other over epochs.
    shapes = [*rest, "wide", *["square"] * (4 * len(rest) + 4)]
    for rank in range(world_size):
        whole = list(itertools.islice(stream(shapes, seed).batches(batch_size, rank, world_size), 12))
        place = Position.from_json(json.loads(json.dumps(whole[cut - 1].position.as_json())))
        again = stream(shapes, seed).batches(batch_size, rank, world_size, place)
        for left, right in zip(again, whole[cut:], strict=False):
            assert same(left, right)


def test_what_waits_in_a_bucket_for_epochs_is_not_lost() -> None:
    shapes = ["wide", *["square"] * 5]
    for rank in (0, 1):
        whole = list(itertools.islice(stream(shapes).batches(4, rank, 2), 30))
        assert any(len({epoch for epoch, _ in batch.position.pending}) > 1 for batch in whole)
        for cut in range(1, 29):
            assert same(next(stream(shapes).batches(4, rank, 2, whole[cut - 1].position)), whole[cut])


@settings(max_examples=30, deadline=None)
@given(count=st.integers(3, 20), world_size=st.integers(1, 3), seed=st.integers(0, 99))
def test_processes_share_an_epoch_without_overlap_or_loss(count: int, world_size: int, seed: int) -> None:
    keys: list[str] = []
    for rank in range(world_size):
        for batch in stream(["square"] * count, seed).batches(1, rank, world_size):
            if batch.position.epoch:
                break
            keys += batch.keys
    assert sorted(keys) == sorted(str(number) for number in range(count))


def test_a_picture_is_never_enlarged() -> None:
    class Thin(Collection):
        def _load(self, number: int) -> Image.Image:
            return Image.new("RGB", (40, 15) if number else (16, 16))  # 40 x 15 has the area, but not the height

    thin = Stream(Thin(["square"] * 3), (SIDE,))
    assert list(itertools.islice(thin.batches(1), 3))[-1].keys == ["0"]
    assert list(thin.report.filtered) == ["smaller than the target"] and not thin.report.damaged


def test_a_position_in_data_that_has_changed_is_refused() -> None:
    # The wide one waits alone for another.
    cut = next(batch for batch in stream(["wide", *["square"] * 5]).batches(2) if batch.position.pending)
    for now in (["damaged", *["square"] * 5], []):
        with pytest.raises(DataError, match=r"the data has changed since .* sample \d of epoch 0 is gone"):
            next(stream(now).batches(2, start=cut.position))


def test_more_processes_than_samples_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="no sample of an epoch is usable for process 1 of 2: none"):
        next(stream(["square"]).batches(1, 1, 2))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((0,), "batch_size must be 1 or more, not 0"), ((1, 2, 2), "rank must be .* 1, not 2"), ((1, -1), "not -1")],
)
def test_arguments_out_of_range_are_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        next(stream(["square"]).batches(*arguments))


@pytest.mark.parametrize("value", [[-1, 0, []], [0, -1, []], [0, 0, [[0, -1]]]])
def test_a_position_before_the_first_is_refused(value: list[object]) -> None:
    with pytest.raises(ValueError, match="a data position must be"):
        Position.from_json(value)


def test_no_name_is_no_source() -> None:
    with pytest.raises(DataError, match="train_data must be 'scenes'"):
        open_source("", SIDE)


@pytest.mark.parametrize("size", [Size(24, 24), Size(16, 48), Size(40, 24)], ids=str)
def test_scenes_come_at_any_size_and_never_held_out(size: Size) -> None:
    batch = next(Stream(ScenesSource(size), (size,), seed=5).batches(6))
    assert batch.pixels.shape == (6, 3, *size) and batch.pixels.std() > 0.05 and all(batch.captions)
    assert batch.crops.tolist() == [[0, 0]] * 6 and batch.original_sizes.tolist() == [list(size)] * 6
    for key in batch.keys:
        scene = sample_scene(int(key.removeprefix("scene-")))
        main = scene.items[0]
        assert not is_held_out(main.kind, main.colour, scene.place or "", scene.background)


def test_fixed_crops_are_those_of_the_first_epoch() -> None:
    places: dict[str, set[tuple[int, ...]]] = {}
    fixed = Stream(Collection(["square"] * 4), (SIDE,), fixed_crops=True)
    for batch in itertools.islice(fixed.batches(4), 5):
        for key, crop in zip(batch.keys, batch.crops.tolist(), strict=True):
            places.setdefault(key, set()).add(tuple(crop))
    assert len(places) == 4 and all(len(crops) == 1 for crops in places.values())
