"""Endless batches from a source: skips counted, pictures and clips cropped to a size of their ratio, exact resume."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data.examples import Batch, DataError, Entry, Position, Report, Sample, Skip, Source, drawn_from

MAX_RATIO = 2.0


def bucket_sizes(size: Size, multiple: int = 64, max_ratio: float = MAX_RATIO) -> tuple[Size, ...]:
    """Sizes of at most `size`'s area, from 1:max_ratio to max_ratio:1, the given one among them.

    Args:
        size: The target.
        multiple: Sides are multiples of it.
        max_ratio: Largest ratio of the longer side to the shorter.
    """
    found = {size}
    for height in range(multiple, int((size.area * max_ratio) ** 0.5) + 1, multiple):
        width = size.area // height // multiple * multiple
        if width and max(height / width, width / height) <= max_ratio:
            found.add(Size(height, width))
    return tuple(sorted(found))


class _Row(NamedTuple):
    """An entry that is decoded and cropped, where it came from, and the sizes it had and has."""

    epoch: int
    index: int
    entry: Entry
    original: Size
    size: Size
    pixels: Tensor
    corner: tuple[int, int]


class Stream:
    """A source's pictures, or clips, as batches of one size each.

    Args:
        source: Where they come from.
        sizes: Sizes of the batches; a sample goes to the one nearest its ratio, and is left out if it is smaller.
        seed: Seed of the order and the crops.
        max_skip_share: Share of damaged samples from which the data counts as broken.
        fixed_crops: Crop a sample at the same place in every epoch.

    Raises:
        DataError: While iterating: no sample is usable, or too many are damaged.
    """

    def __init__(
        self,
        source: Source,
        sizes: Sequence[Size],
        seed: int = 0,
        max_skip_share: float = 0.5,
        fixed_crops: bool = False,
    ) -> None:
        self.fixed_crops = fixed_crops
        self.source, self.sizes, self.seed = source, tuple(sizes), seed
        self.report = Report(max_skip_share)

    def batches(
        self, batch_size: int, rank: int = 0, world_size: int = 1, start: Position | None = None
    ) -> Iterator[Batch]:
        """Batches without end, epoch after epoch; the i-th entry goes to process i mod world_size.

        Args:
            batch_size: Pictures of a batch.
            rank, world_size: Index of this process, and how many there are.
            start: Where to go on; the batches are then those of an uninterrupted run.

        Raises:
            ValueError: An argument is out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, not {rank}")
        start = start or Position()
        waiting = self._waiting(start)
        epoch, first = start.epoch, start.index
        while True:
            used = self.report.used
            for index, entry in enumerate(self.source.entries(self.seed, epoch, first), first):
                row = self._row(epoch, index, entry) if index % world_size == rank else None
                if row is None:
                    continue
                waiting[row.size].append(row)
                if len(waiting[row.size]) >= batch_size:
                    rows, waiting[row.size] = waiting[row.size][:batch_size], waiting[row.size][batch_size:]
                    pending = sorted((other.epoch, other.index) for rest in waiting.values() for other in rest)
                    yield self._batch(rows, Position(epoch, index + 1, tuple(pending)))
            if first == 0 and self.report.used == used:
                whose = f" for process {rank} of {world_size}" if world_size > 1 else ""
                raise DataError(f"no sample of an epoch is usable{whose}: {self.report.reasons()}")
            self.report.check()
            epoch, first = epoch + 1, 0

    def _waiting(self, start: Position) -> dict[Size, list[_Row]]:
        """The buckets as they were at a position: what waited in them is decoded again, in the order it came."""
        waiting: dict[Size, list[_Row]] = {size: [] for size in self.sizes}
        for epoch, places in itertools.groupby(sorted(start.pending), key=lambda place: place[0]):
            wanted = [index for _, index in places]
            entries = self.source.entries(self.seed, epoch, wanted[0])
            offered = dict(zip(range(wanted[0], wanted[-1] + 1), entries, strict=False))
            for index in wanted:
                row = self._row(epoch, index, offered[index]) if index in offered else None
                if row is None:
                    raise DataError(f"the data has changed since {start}: sample {index} of epoch {epoch} is gone")
                waiting[row.size].append(row)
        return waiting

    def _row(self, epoch: int, index: int, entry: Entry | Skip) -> _Row | None:
        """An entry decoded and cropped, or None, with the reason counted."""
        try:
            if isinstance(entry, Skip):
                raise entry
            sample = entry.load()
            original = size_of(sample)
            size = nearest_ratio(original, self.sizes)
            # Enlarged pictures would teach blur; only here is it known which size a sample goes to.
            if original.height < size.height or original.width < size.width:
                raise Skip("smaller than the target", entry.key, damaged=False)
        except Skip as skip:
            self.report.count(skip)
            return None
        self.report.used += 1
        pixels, corner = self._cropped(sample, size, f"{0 if self.fixed_crops else epoch} {entry.key}")
        return _Row(epoch, index, entry, original, size, pixels, corner)

    def _batch(self, rows: list[_Row], position: Position) -> Batch:
        return Batch(
            torch.stack([row.pixels for row in rows]),
            [row.entry.caption for row in rows],
            [row.entry.key for row in rows],
            torch.tensor([tuple(row.original) for row in rows]),
            torch.tensor([row.corner for row in rows]),
            position,
        )

    def _cropped(self, sample: Sample, size: Size, words: str) -> tuple[Tensor, tuple[int, int]]:
        """The sample resized to cover `size` and cropped at a place drawn from the seed, the epoch and the key.

        A clip's frames are all cropped alike.
        """
        sides = size_of(sample)
        factor = max(size.height / sides.height, size.width / sides.width)
        height, width = (max(wanted, round(factor * side)) for wanted, side in zip(size, sides, strict=True))
        rng = drawn_from(f"{self.seed} {words}")
        top, left = (int(rng.integers(side - wanted + 1)) for side, wanted in zip((height, width), size, strict=True))

        def cut(image: Image.Image) -> Tensor:
            if (width, height) != image.size:
                image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
            array = np.asarray(image.crop((left, top, left + size.width, top + size.height)), np.float32)
            return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1

        if isinstance(sample, Image.Image):
            return cut(sample), (top, left)
        return torch.stack([cut(Image.fromarray(frame)) for frame in sample]), (top, left)


def size_of(sample: Sample) -> Size:
    """The size of a picture, or of a clip's frames."""
    return Size(sample.height, sample.width) if isinstance(sample, Image.Image) else Size(*sample.shape[1:3])


def nearest_ratio(size: Size, sizes: Sequence[Size]) -> Size:
    """The one of `sizes` whose ratio is nearest that of `size`."""
    ratio = np.log(size.width / size.height)
    return min(sizes, key=lambda other: abs(np.log(other.width / other.height) - ratio))


def prefetched(batches: Iterator[Batch], depth: int = 2) -> Iterator[Batch]:
    """The same batches in the same order, made by a thread ahead of time; an error comes out where its batch would.

    Args:
        batches: Any iterator; it is not used by anyone else.
        depth: How many batches wait at most.
    """
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="selfcascade-data", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
