"""Tar shards in img2dataset's layout, as LAION is kept: KEY.jpg, KEY.txt and KEY.json, filtered before decoding.

Members are read in place, never unpacked; links, paths that climb out and pickles are left out and counted. The headers
of a shard are read once an epoch, so its samples can be shuffled and any of them read by itself.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.decode import (
    EXTENSIONS,
    MAX_CAPTION_BYTES,
    check_caption,
    decode_caption,
    decode_picture,
    is_small,
    printable,
)
from selfcascade.data.examples import DataError, Entry, Skip
from selfcascade.data.known_files import UNREAD_PICTURES, is_clutter

PICKLES = frozenset({".pkl", ".pickle", ".pyd", ".pt", ".pth", ".npy", ".npz", ".joblib", ".bin"})
MAX_MEMBER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ShardFilter:
    """What a sample's JSON must say; a field that it lacks does not leave it out, a score that is not a number does.

    Attributes:
        min_size: `original_width/height` and the stored `width/height` must have its area at least, and a shorter side
            that some ratio up to 1:2 could use.
        max_watermark: Highest `pwatermark`, a probability.
        max_unsafe: Highest `punsafe`.
    """

    min_size: Size | None = None
    max_watermark: float = 0.5
    max_unsafe: float = 0.5

    def check(self, facts: dict[str, Any], key: str) -> None:
        """Raises Skip with the first reason against the sample."""
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


class ShardSource:
    """Samples of tar files; shards are shuffled, and the samples within each.

    Args:
        shards: The files, in any order.
        wanted: What a sample's JSON must say.
        not_read: What lies beside the shards, looks like data and is not read.

    Raises:
        DataError: There are no shards.
    """

    def __init__(self, shards: list[Path], wanted: ShardFilter | None = None, not_read: Sequence[Skip] = ()) -> None:
        if not shards:
            raise DataError("train_data names no .tar file")
        self.shards, self.wanted, self.not_read = sorted(shards), wanted or ShardFilter(), tuple(not_read)

    def entries(self, seed: int, epoch: int, first: int = 0) -> Iterator[Entry | Skip]:
        """The shards in an order drawn from seed and epoch, each shard's samples in another."""
        return itertools.islice(self._all(seed, epoch), first, None)

    def _all(self, seed: int, epoch: int) -> Iterator[Entry | Skip]:
        yield from self.not_read
        for number in np.random.default_rng([seed, epoch]).permutation(len(self.shards)):
            shard = self.shards[int(number)]
            samples, skips = _index(shard)
            yield from skips
            keys = sorted(samples)
            for row in np.random.default_rng([seed, epoch, int(number)]).permutation(len(keys)):
                key = keys[int(row)]
                try:
                    yield self._entry(shard, printable(f"{shard.name}/{key}"), samples[key])
                except Skip as skip:
                    yield skip

    def _entry(self, shard: Path, key: str, members: dict[str, tarfile.TarInfo]) -> Entry:
        pictures = [member for suffix, member in members.items() if suffix in EXTENSIONS]
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

    def _load(self, shard: Path, member: tarfile.TarInfo, key: str) -> Image.Image:
        return decode_picture(io.BytesIO(_read(shard, member, key)), self.wanted.min_size, key)


def _index(shard: Path) -> tuple[dict[str, dict[str, tarfile.TarInfo]], list[Skip]]:
    """A shard's usable members by key and suffix, and what is wrong with the rest."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    skips: list[Skip] = []
    try:
        for member in _members(shard):
            place, path = printable(f"{shard.name}/{member.name}"), PurePosixPath(member.name)
            reason = _fault(member, path)
            if reason is not None:
                skips.append(Skip(reason, place))
                continue
            if is_clutter(path):
                continue
            parts = samples.setdefault(str(path.with_suffix("")), {})
            if parts.setdefault(path.suffix.lower(), member) is not member:
                skips.append(Skip("duplicate key", place))
    except Skip as skip:
        skips.append(skip)
    return samples, skips


def _fault(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """Why a member is not read, if it is not."""
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return "path leads out"
    if not path.name:
        return "member has no name"
    if not member.isreg():
        return "link or device"
    if member.issparse():
        return "sparse member"
    if path.suffix.lower() in PICKLES:
        return "pickle"
    return "member is too large" if member.size > MAX_MEMBER_BYTES else None


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """A shard's members apart from folders, in the order of the file.

    Raises:
        Skip: The shard is missing, empty, damaged or truncated; its members up to there have come.
    """
    name = printable(shard.name)
    if not shard.is_file():
        raise Skip("shard is missing", name)
    end = shard.stat().st_size
    if end == 0:
        raise Skip("shard is empty", name)
    try:
        with shard.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = 0
            for member in tar:
                # A negative size would lead tarfile back to where it has been, for ever.
                if member.size < 0:
                    raise Skip("shard is damaged", name)
                if member.isreg() and member.offset_data + member.size > end:
                    raise Skip("shard is truncated", name)
                found += 1
                if not member.isdir():
                    yield member
            # tarfile takes a broken header and a cut between members for the end, which is a block of zeros.
            file.seek(tar.offset)
            last = file.read(tarfile.BLOCKSIZE)
    except Skip:
        raise
    except Exception as error:  # tarfile raises whatever it stumbles over: TarError, OSError, ValueError, ...
        raise Skip("shard is damaged", name) from error
    if len(last) < tarfile.BLOCKSIZE:
        raise Skip("shard is truncated", name)
    if last.strip(b"\0"):
        raise Skip("shard is damaged", name)
    if not found:
        raise Skip("shard is empty", name)


def _read(shard: Path, member: tarfile.TarInfo, key: str, most: int = MAX_MEMBER_BYTES) -> bytes:
    size = min(member.size, most)
    try:
        with shard.open("rb") as file:
            file.seek(member.offset_data)
            data = file.read(size)
    except OSError as error:
        raise Skip("shard cannot be read", key) from error
    if len(data) < size:
        raise Skip("shard is truncated", key)
    return data
