"""Tar shards in img2dataset's layout, like LAION: KEY.jpg, KEY.txt and KEY.json, filtered before decoding.

Members are read in place, never unpacked. Links, paths that lead out, and pickles are left out and counted. The headers
of a shard are read once, into an index, so samples can be shuffled and read one by one.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.decode import (
    MAX_CAPTION_BYTES,
    check_caption,
    decode_caption,
    decode_picture,
    is_small,
    printable,
)
from selfcascade.data.examples import DataError, Entry, Fingerprint, Skip, Source, file_size, order
from selfcascade.data.shard_index import MAX_MEMBER_BYTES, Member, index_of, summary_of
from selfcascade.media.endings import PICTURES, UNREAD_PICTURES


@dataclass(frozen=True)
class ShardFilter:
    """Limits for a sample's JSON. Missing fields are accepted; scores that are not numbers are not.

    Attributes:
        min_size: `original_width/height` and the stored `width/height` must have at least its area, and a shorter side
            that some ratio up to 1:2 can use.
        max_watermark: Highest `pwatermark`, a probability.
        max_unsafe: Highest `punsafe`.
    """

    min_size: Size | None = None
    max_watermark: float = 0.5
    max_unsafe: float = 0.5

    def check(self, facts: dict[str, Any], key: str) -> None:
        """Raises Skip with the first reason to leave the sample out."""
        if facts.get("status", "success") != "success":
            raise Skip("download failed", key, damaged=False)
        for prefix, words in (("original_", "original is smaller than the target"), ("", "smaller than the target")):
            width, height = facts.get(f"{prefix}width"), facts.get(f"{prefix}height")
            if self.min_size is None or width is None or height is None:
                continue
            # Whole numbers come as floats from a table with gaps.
            if not all(isinstance(side, (int, float)) and 0 < side < math.inf for side in (width, height)):
                raise Skip("bad size in JSON", key)
            if is_small(width, height, self.min_size):
                raise Skip(words, key, damaged=False)
        for name, limit, words in (
            ("pwatermark", self.max_watermark, "watermark"),
            ("punsafe", self.max_unsafe, "unsafe"),
        ):
            score = facts.get(name)
            if score is not None and not (isinstance(score, (int, float)) and score <= limit):
                raise Skip(words, key, damaged=False)


class ShardSource(Source):
    """Samples of tar files; the shards are shuffled, and so are the samples within each.

    Args:
        shards: The files, in any order.
        wanted: Limits for a sample's JSON.
        not_read: Skips for files next to the shards that look like data but are not read.

    Raises:
        DataError: There are no shards.
    """

    def __init__(self, shards: list[Path], wanted: ShardFilter | None = None, not_read: Sequence[Skip] = ()) -> None:
        if not shards:
            raise DataError("train_data names no .tar file")
        self.shards, self.wanted, self.not_read = sorted(shards), wanted or ShardFilter(), tuple(not_read)

    def __len__(self) -> int:
        return len(self.not_read) + int(self._counts.sum())

    def prepare(self, part: int, parts: int) -> None:
        """Reads the headers of this part of the shards, unless their indexes are cached."""
        for shard in self.shards[part::parts]:
            summary_of(shard)

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The sample at an index of the epoch: shards and the samples in each are shuffled by seed and epoch."""
        if index < len(self.not_read):
            raise self.not_read[index]
        numbers, ends = _shard_order(self, seed, epoch)
        row = index - len(self.not_read)
        turn = int(np.searchsorted(ends, row, "right"))
        number = int(numbers[turn])
        shard, row = self.shards[number], row - int(ends[turn - 1] if turn else 0)
        samples, skips = index_of(shard)
        if row < len(skips):
            raise skips[row]
        if row >= len(skips) + len(samples):
            raise Skip("shard has changed", printable(shard.name))
        key, members = samples[int(order(len(samples), seed, epoch, number)[row - len(skips)])]
        return self._entry(shard, printable(f"{shard.name}/{key}"), members)

    def fingerprint(self) -> Fingerprint:
        """A digest of the shards' names, sizes and members."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{printable(shard.name)} {summary_of(shard).digest}\n".encode())
        return Fingerprint(len(self), sum(file_size(shard) for shard in self.shards), digest.hexdigest())

    @functools.cached_property
    def _counts(self) -> np.ndarray:
        """Entries of each shard."""
        return np.array([summary_of(shard).entries for shard in self.shards], np.int64)

    def _entry(self, shard: Path, key: str, members: dict[str, Member]) -> Entry:
        pictures = [member for suffix, member in members.items() if suffix in PICTURES]
        if len(pictures) != 1:
            formats = "picture format is not read" if members.keys() & UNREAD_PICTURES else "no picture"
            raise Skip("several pictures" if pictures else formats, key)
        facts: dict[str, Any] = {}
        if ".json" in members:
            try:
                facts = json.loads(_read(shard, members[".json"], key))
            except (ValueError, RecursionError) as error:
                raise Skip("bad JSON", key) from error
            if not isinstance(facts, dict):
                raise Skip("bad JSON", key)
        self.wanted.check(facts, key)
        if ".txt" in members:
            caption = decode_caption(_read(shard, members[".txt"], key, MAX_CAPTION_BYTES + 1), key)
        else:
            caption = check_caption(facts.get("caption"), key)
        return Entry(key, caption, functools.partial(self._load, shard, pictures[0], key))

    def _load(self, shard: Path, member: Member, key: str) -> Image.Image:
        return decode_picture(io.BytesIO(_read(shard, member, key)), self.wanted.min_size, key)


@functools.lru_cache(maxsize=2)
def _shard_order(source: ShardSource, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The shards in an epoch's order, and the end of each in the epoch's entries."""
    numbers = np.random.default_rng([seed, epoch]).permutation(len(source.shards))
    return numbers, np.cumsum(source._counts[numbers])


def _read(shard: Path, member: Member, key: str, most: int = MAX_MEMBER_BYTES) -> bytes:
    size = min(member.size, most)
    try:
        with shard.open("rb") as file:
            file.seek(member.offset)
            data = file.read(size)
    except OSError as error:
        raise Skip("shard cannot be read", key) from error
    if len(data) < size:
        raise Skip("shard is truncated", key)
    return data
