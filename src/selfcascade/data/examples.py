"""The parts of training data in any format: entries that may be skipped, batches, and a position to resume from.

Axis letters: B samples, F frames, H, W pixels.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

MIN_SEEN = 100

# A picture, or a clip's frames, (F, H, W, 3) uint8.
Sample = Image.Image | np.ndarray


def drawn_from(words: str) -> np.random.Generator:
    """A random generator that depends only on the words."""
    digest = hashlib.sha256(words.encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


class DataError(ValueError):
    """The data as a whole cannot be used; the message says why."""


class Skip(Exception):
    """A sample that is left out, and why.

    Attributes:
        reason: The reason, in the same words for all such samples.
        key: Key of the sample.
        damaged: Whether the sample is faulty, rather than left out by a filter.
    """

    def __init__(self, reason: str, key: str, damaged: bool = True) -> None:
        super().__init__(reason, key, damaged)  # used to make it again in another process
        self.reason, self.key, self.damaged = reason, key, damaged

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


@dataclass(frozen=True)
class Entry:
    """A sample before decoding.

    Attributes:
        key: Name of the sample, which also seeds its crop.
        caption: The caption.
        load: Decodes the sample to RGB, for a clip the frames that this epoch takes; raises `Skip`.
        file: File of the sample; None if it has no file of its own.
    """

    key: str
    caption: str
    load: Callable[[], Sample]
    file: Path | None = None


@dataclass(frozen=True)
class Fingerprint:
    """A summary of a collection, by which changes are noticed.

    Attributes:
        entries: Number of entries in an epoch.
        bytes: Bytes of all files; 0 for rendered data.
        digest: Digest of the files' names and sizes.
    """

    entries: int
    bytes: int
    digest: str

    def change_from(self, earlier: dict[str, Any]) -> str | None:
        """Describes what has changed since an earlier fingerprint of the same collection; None if nothing has."""
        now = asdict(self)
        if now == earlier:
            return None
        counts = [f"{earlier.get(name)} {name} then, {now[name]} now" for name in ("entries", "bytes")]
        words = [
            count for count, name in zip(counts, ("entries", "bytes"), strict=True) if earlier.get(name) != now[name]
        ]
        return ", ".join(words) or "files of other names or contents"


class Source(ABC):
    """A collection of samples in a deterministic order, each accessible by its index."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of entries in an epoch, including those that will be skipped."""

    @abstractmethod
    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The sample at an index of an epoch's order; no other is read.

        Raises:
            Skip: The sample cannot be used, which is known without decoding it.
        """

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """A summary of the names and sizes of all files."""

    def prepare(self, part: int, parts: int) -> None:  # noqa: B027 (most have nothing to do)
        """Does one part of the work that is needed once before the first sample is read."""

    def entries(self, seed: int, epoch: int, first: int = 0) -> Iterator[Entry | Skip]:
        """The samples of an epoch in order, from index `first` on."""
        for index in range(first, len(self)):
            try:
                found: Entry | Skip = self.entry(seed, epoch, index)
            except Skip as skip:
                found = skip
            yield found


@functools.lru_cache(maxsize=8)
def order(count: int, *seeds: int) -> np.ndarray:
    """The numbers below `count` in a random order from the seeds."""
    return np.random.default_rng(list(seeds)).permutation(count)


def file_size(path: Path) -> int:
    """Bytes of a file; -1 if it is missing."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def fingerprint_of(entries: int, files: Iterable[tuple[str, Path]], *words: object) -> Fingerprint:
    """The fingerprint of files with their names in the collection, and of words that the samples depend on."""
    digest, total = hashlib.sha256(repr(words).encode()), 0
    for name, path in files:
        size = file_size(path)
        digest.update(f"{name}\0{size}\n".encode(errors="backslashreplace"))
        total += max(size, 0)
    return Fingerprint(entries, total, digest.hexdigest())


class Position(NamedTuple):
    """A position in the stream of a process: entries offered so far, and samples that wait to fill a batch.

    Attributes:
        epoch: Current epoch, from 0.
        index: Entries of this epoch offered so far to all processes together.
        pending: (epoch, index) of each sample that waits in a bucket.
    """

    epoch: int = 0
    index: int = 0
    pending: tuple[tuple[int, int], ...] = ()

    def as_json(self) -> list[Any]:
        """The position as lists and numbers."""
        return [self.epoch, self.index, [list(place) for place in self.pending]]

    @classmethod
    def from_json(cls, value: Any) -> Position:
        """The inverse of `as_json`.

        Raises:
            ValueError: The value is malformed.
        """
        try:
            epoch, index, pending = value
            place = cls(int(epoch), int(index), tuple((int(e), int(i)) for e, i in pending))
            if any(number < 0 for pair in (place[:2], *place.pending) for number in pair):
                raise ValueError("negative")
        except (TypeError, ValueError) as error:
            raise ValueError(f"a data position must be [epoch, index, pending], not {value!r}") from error
        return place


@dataclass(frozen=True)
class Batch:
    """Pictures, or clips, of one size.

    Attributes:
        pixels: (B, 3, H, W), or (B, F, 3, H, W) for clips, float32 in [-1, 1].
        captions, keys: Captions and keys, B each.
        original_sizes: (B, 2) int64, height and width before resizing.
        crops: (B, 2) int64, top and left of the crop.
        position: Position after this batch.
    """

    pixels: Tensor
    captions: list[str]
    keys: list[str]
    original_sizes: Tensor
    crops: Tensor
    position: Position


@dataclass
class Report:
    """Counts of used and skipped samples.

    Attributes:
        used: Number of decoded samples, in a batch or waiting for one.
        damaged, filtered: Number of samples left out, by reason.
        examples: The first key for each reason.
        max_skip_share: Share of damaged samples above which the data counts as broken.
    """

    max_skip_share: float = 0.5
    used: int = 0
    damaged: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, skip: Skip) -> None:
        """Counts a skip.

        Raises:
            DataError: Too many samples are damaged.
        """
        (self.damaged if skip.damaged else self.filtered)[skip.reason] += 1
        self.examples.setdefault(skip.reason, skip.key)
        if self.used + self.damaged.total() >= MIN_SEEN:
            self.check()

    def check(self) -> None:
        """Raises DataError if the share of damaged samples is over the limit."""
        damaged, seen = self.damaged.total(), self.used + self.damaged.total()
        if damaged > self.max_skip_share * seen:
            limit = f"max_skip_share {self.max_skip_share:g}"
            raise DataError(f"{damaged} of {seen} samples are damaged, over {limit}: {self.reasons()}")

    def reasons(self) -> str:
        """All reasons with counts and one example each, most frequent first."""
        both = (self.damaged + self.filtered).most_common()
        return "; ".join(f"{reason} {count} (as {self.examples[reason]})" for reason, count in both) or "none"

    def __str__(self) -> str:
        left_out = f"{self.damaged.total()} damaged, {self.filtered.total()} filtered"
        reasons = f": {self.reasons()}" if self.damaged or self.filtered else ""
        return f"{self.used} samples read, {left_out}{reasons}"
