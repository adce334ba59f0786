"""Endless batches from a source: skips counted, pictures cropped to a size of about their ratio, exact resume."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfcascade.cascade import Size
from selfcascade.data.examples import Batch, DataError, Entry, Position, Report, Skip, Source

MAX_RATIO = 2.0


def bucket_sizes(size: Size, multiple: int = 64, max_ratio: float = MAX_RATIO) -> tuple[Size, ...]:
    """Sizes of at most `size`'s area, from 1:max_ratio to max_ratio:1, the given one among them.

    Args:
        size: The target.
        multiple: Sides are multiples of it.
        max_ratio: Of the longer side to the shorter.
    """
    found = {size}
    for height in range(multiple, int((size.area * max_ratio) ** 0.5) + 1, multiple):
        width = size.area // height // multiple * multiple
        if width and max(height / width, width / height) <= max_ratio:
            found.add(Size(height, width))
    return tuple(sorted(found))


class Stream:
    """A source's pictures as batches of one size each.

    Args:
        source: Where they come from.
        sizes: Of the batches; a picture goes to the one nearest its ratio.
        seed: Of the order and the crops.
        max_skip_share: Share of damaged samples from which the data counts as broken.

    Raises:
        DataError: While iterating: no sample is usable, or too many are damaged.
    """

    def __init__(self, source: Source, sizes: Sequence[Size], seed: int = 0, max_skip_share: float = 0.5) -> None:
        self.source, self.sizes, self.seed = source, tuple(sizes), seed
        self.report = Report(max_skip_share)

    def batches(
        self, batch_size: int, rank: int = 0, world_size: int = 1, start: Position | None = None
    ) -> Iterator[Batch]:
        """Batches without end, epoch after epoch; the i-th entry goes to process i mod world_size.

        Args:
            batch_size: Pictures of a batch.
            rank, world_size: Of this process, and how many there are.
            start: Where to go on; the batches are then those of an uninterrupted run.
        """
        start = start or Position()
        waiting: dict[Size, list[tuple[int, int, Entry, Image.Image]]] = {size: [] for size in self.sizes}
        epoch = min((e for e, _ in start.pending), default=start.epoch)
        while True:
            used = self.report.used
            # Nothing before these can be wanted again.
            wanted = [i for e, i in start.pending if e == epoch] + [start.index if epoch == start.epoch else 0]
            first = min(wanted) if epoch >= start.epoch else min(wanted[:-1])
            for index, entry in enumerate(self.source.entries(self.seed, epoch, first), first):
                place = (epoch, index)
                seen = place < (start.epoch, start.index)
                if index % world_size != rank or (seen and place not in start.pending):
                    continue
                image = self._load(entry)
                if image is None or isinstance(entry, Skip):
                    continue
                size = nearest_ratio(image.size, self.sizes)
                waiting[size].append((epoch, index, entry, image))
                if len(waiting[size]) == batch_size and not seen:
                    rows, waiting[size] = waiting[size], []
                    pending = sorted((e, i) for rest in waiting.values() for e, i, _, _ in rest)
                    yield self._batch(rows, size, Position(epoch, index + 1, tuple(pending)))
            if epoch >= start.epoch and start.index == 0 and self.report.used == used:
                raise DataError(f"no sample of an epoch is usable: {self.report.reasons()}")
            self.report.check()
            epoch += 1
            if epoch > start.epoch:
                start = Position(epoch, 0, ())

    def _load(self, entry: Entry | Skip) -> Image.Image | None:
        try:
            if isinstance(entry, Skip):
                raise entry
            image = entry.load()
        except Skip as skip:
            self.report.count(skip)
            return None
        self.report.used += 1
        return image

    def _batch(self, rows: list[tuple[int, int, Entry, Image.Image]], size: Size, position: Position) -> Batch:
        cut = [self._cropped(image, size, f"{epoch} {entry.key}") for epoch, _, entry, image in rows]
        return Batch(
            torch.stack([pixels for pixels, _ in cut]),
            [entry.caption for _, _, entry, _ in rows],
            [entry.key for _, _, entry, _ in rows],
            torch.tensor([[image.height, image.width] for *_, image in rows]),
            torch.tensor([corner for _, corner in cut]),
            position,
        )

    def _cropped(self, image: Image.Image, size: Size, words: str) -> tuple[Tensor, tuple[int, int]]:
        """The picture resized to cover `size` and cropped at a place drawn from the seed, the epoch and the key."""
        factor = max(size.height / image.height, size.width / image.width)
        height, width = (
            max(wanted, round(factor * side)) for wanted, side in zip(size, (image.height, image.width), strict=True)
        )
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        digest = hashlib.sha256(f"{self.seed} {words}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
        top, left = (int(rng.integers(side - wanted + 1)) for side, wanted in zip((height, width), size, strict=True))
        array = np.asarray(image.crop((left, top, left + size.width, top + size.height)), np.float32)
        return torch.from_numpy(array).permute(2, 0, 1) / 127.5 - 1, (top, left)


def nearest_ratio(size: tuple[int, int], sizes: Sequence[Size]) -> Size:
    """The one of `sizes` whose ratio is nearest that of a picture of (width, height)."""
    ratio = np.log(size[0] / size[1])
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
