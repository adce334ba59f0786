"""Endless batches from a source: skips are counted, samples cropped to a size of their ratio; resuming is exact."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.ahead import in_order
from selfcascade.data.examples import Batch, DataError, Position, Report, Sample, Skip, Source, drawn_from

MAX_RATIO = 2.0
END = -1


def bucket_sizes(size: Size, multiple: int = 64, max_ratio: float = MAX_RATIO) -> tuple[Size, ...]:
    """Sizes of at most `size`'s area with ratios from 1:max_ratio to max_ratio:1, including `size`.

    Args:
        size: Target size.
        multiple: Sides are multiples of this many pixels.
        max_ratio: Largest ratio of the longer side to the shorter.
    """
    found = {size}
    for height in range(multiple, int((size.area * max_ratio) ** 0.5) + 1, multiple):
        width = size.area // height // multiple * multiple
        if width and max(height / width, width / height) <= max_ratio:
            found.add(Size(height, width))
    return tuple(sorted(found))


class Row(NamedTuple):
    """A decoded and cropped sample, with its sizes before and after.

    Attributes:
        pixels: (H, W, 3), or (F, H, W, 3) for a clip, uint8.
        corner: Top and left of the crop, in pixels of the resized sample.
    """

    key: str
    caption: str
    original: Size
    size: Size
    pixels: np.ndarray
    corner: tuple[int, int]


class Stream:
    """Makes batches of a source's pictures or clips, each of one size.

    Args:
        source: The source of samples.
        sizes: Sizes of the batches; a sample gets the one nearest its ratio, and is left out if it is smaller.
        seed: Seed of the order and the crops.
        max_skip_share: Share of damaged samples above which the data counts as broken.
        fixed_crops: Whether to crop a sample at the same place in every epoch.
        workers: Number of processes that read and decode; with 0 the caller's process does. It changes no batch.
        may_change: Whether data that has changed since the resumed position is accepted.

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
        workers: int = 0,
        may_change: bool = False,
    ) -> None:
        self.fixed_crops, self.workers, self.may_change = fixed_crops, workers, may_change
        self.source, self.sizes, self.seed = source, tuple(sizes), seed
        self.report = Report(max_skip_share)

    def batches(
        self, batch_size: int, rank: int = 0, world_size: int = 1, start: Position | None = None
    ) -> Iterator[Batch]:
        """Batches without end. Entry i of an epoch is read by process i mod world_size only.

        Args:
            batch_size: Number of pictures in a batch.
            rank, world_size: Index of this process, and number of processes.
            start: Position to resume from; the batches are then those of an uninterrupted run.

        Raises:
            ValueError: An argument is out of range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, not {rank}")
        start = start or Position()
        pending = [place for place in sorted(start.pending) if not self.may_change or place[1] < len(self.source)]
        places = itertools.chain(pending, self._places(start, rank, world_size))
        rows = in_order(self.decode, places, self.workers)
        waiting: dict[Size, list[tuple[tuple[int, int], Row]]] = {size: [] for size in self.sizes}
        for place, row in itertools.islice(rows, len(pending)):
            row = self._counted(row)
            if row is not None:
                waiting[row.size].append((place, row))
            elif not self.may_change:
                raise DataError(f"the data has changed since {start}: sample {place[1]} of epoch {place[0]} is gone")
        used, whole = self.report.used, start.index == 0
        for (epoch, index), row in rows:
            if index == END:
                if whole and self.report.used == used:
                    whose = f" for process {rank} of {world_size}" if world_size > 1 else ""
                    raise DataError(f"no sample of an epoch is usable{whose}: {self.report.reasons()}")
                self.report.check()
                used, whole = self.report.used, True
                continue
            row = self._counted(row)
            if row is None:
                continue
            own = waiting[row.size]
            own.append(((epoch, index), row))
            if len(own) >= batch_size:
                waiting[row.size] = own[batch_size:]
                left = tuple(sorted(place for rest in waiting.values() for place, _ in rest))
                yield self._batch([row for _, row in own[:batch_size]], Position(epoch, index + 1, left))

    def decode(self, place: tuple[int, int]) -> Row | Skip | None:
        """The sample at (epoch, index), or why it is left out; None at an epoch's end."""
        epoch, index = place
        if index == END:
            return None
        try:
            if index >= len(self.source):
                raise Skip("sample is gone", f"{index} of epoch {epoch}")
            entry = self.source.entry(self.seed, epoch, index)
            sample = entry.load()
            original = size_of(sample)
            size = nearest_ratio(original, self.sizes)
            # Enlarged pictures would teach blur; the sample's size is only known here.
            if original.height < size.height or original.width < size.width:
                raise Skip("smaller than the target", entry.key, damaged=False)
        except Skip as skip:
            return skip
        pixels, corner = self._cropped(sample, size, f"{0 if self.fixed_crops else epoch} {entry.key}")
        return Row(entry.key, entry.caption, original, size, pixels, corner)

    def _places(self, start: Position, rank: int, world_size: int) -> Iterator[tuple[int, int]]:
        """The process's (epoch, index) from a position on, without end; each epoch ends with the index `END`."""
        first = start.index
        for epoch in itertools.count(start.epoch):
            for index in range(first + (rank - first) % world_size, len(self.source), world_size):
                yield epoch, index
            yield epoch, END
            first = 0

    def _counted(self, found: Row | Skip | None) -> Row | None:
        """The row; None for a skip, which is counted."""
        if isinstance(found, Skip):
            self.report.count(found)
            return None
        self.report.used += found is not None
        return found

    def _batch(self, rows: list[Row], position: Position) -> Batch:
        pixels = torch.stack([torch.from_numpy(row.pixels) for row in rows])
        return Batch(
            pixels.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1,
            [row.caption for row in rows],
            [row.key for row in rows],
            torch.tensor([tuple(row.original) for row in rows]),
            torch.tensor([row.corner for row in rows]),
            position,
        )

    def _cropped(self, sample: Sample, size: Size, words: str) -> tuple[np.ndarray, tuple[int, int]]:
        """The sample resized to cover `size` and cropped at a place drawn from the seed, the epoch and the key.

        All frames of a clip are cropped in the same way.
        """
        sides = size_of(sample)
        factor = max(size.height / sides.height, size.width / sides.width)
        height, width = (max(wanted, round(factor * side)) for wanted, side in zip(size, sides, strict=True))
        rng = drawn_from(f"{self.seed} {words}")
        top, left = (int(rng.integers(side - wanted + 1)) for side, wanted in zip((height, width), size, strict=True))

        def cut(image: Image.Image) -> np.ndarray:
            if (width, height) != image.size:
                image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
            return np.array(image.crop((left, top, left + size.width, top + size.height)), np.uint8)

        if isinstance(sample, Image.Image):
            return cut(sample), (top, left)
        return np.stack([cut(Image.fromarray(frame)) for frame in sample]), (top, left)


def size_of(sample: Sample) -> Size:
    """The size of a picture, or of a clip's frames."""
    return Size(sample.height, sample.width) if isinstance(sample, Image.Image) else Size(*sample.shape[1:3])


def nearest_ratio(size: Size, sizes: Sequence[Size]) -> Size:
    """The size in `sizes` whose ratio is nearest to that of `size`."""
    ratio = np.log(size.width / size.height)
    return min(sizes, key=lambda other: abs(np.log(other.width / other.height) - ratio))
