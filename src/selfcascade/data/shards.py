"""Tar shards in img2dataset's layout, as LAION is kept: KEY.jpg, KEY.txt and KEY.json, filtered before decoding.

Members are read in place, never unpacked; links, paths that climb out and pickles are left out and counted. The headers
of a shard are read once an epoch, so its samples can be shuffled and any of them read by itself.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from selfcascade.cascade import Size
from selfcascade.data.examples import DataError, Entry, Skip
from selfcascade.data.folders import EXTENSIONS, check_large, decode_caption, picture_fault
from selfcascade.images import decode_image

PICKLES = frozenset({".pkl", ".pickle", ".pyd", ".pt", ".pth", ".npy", ".npz", ".joblib", ".bin"})
MAX_MEMBER_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ShardFilter:
    """What a sample's JSON must say; a field that it lacks does not leave it out.

    Attributes:
        min_size: `original_width/height` and the stored `width/height` must have its area at least.
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
            if not all(isinstance(side, int) and side > 0 for side in (width, height)):
                raise Skip("bad size in JSON", key)
            if width * height < self.min_size.area:
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

    Raises:
        DataError: There are no shards.
    """

    def __init__(self, shards: list[Path], wanted: ShardFilter | None = None) -> None:
        if not shards:
            raise DataError("train_data names no .tar file")
        self.shards, self.wanted = sorted(shards), wanted or ShardFilter()

    def entries(self, seed: int, epoch: int, first: int = 0) -> Iterator[Entry | Skip]:
        """The shards in an order drawn from seed and epoch, each shard's samples in another."""
        return itertools.islice(self._all(seed, epoch), first, None)

    def _all(self, seed: int, epoch: int) -> Iterator[Entry | Skip]:
        for number in np.random.default_rng([seed, epoch]).permutation(len(self.shards)):
            shard = self.shards[int(number)]
            samples, skips = _index(shard)
            yield from skips
            keys = sorted(samples)
            for row in np.random.default_rng([seed, epoch, int(number)]).permutation(len(keys)):
                key = keys[int(row)]
                try:
                    yield self._entry(shard, f"{shard.name}/{key}", samples[key])
                except Skip as skip:
                    yield skip

    def _entry(self, shard: Path, key: str, members: dict[str, tarfile.TarInfo]) -> Entry:
        pictures = [member for suffix, member in members.items() if suffix in EXTENSIONS]
        if len(pictures) != 1:
            raise Skip("no picture" if not pictures else "several pictures", key)
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
            caption = decode_caption(_read(shard, members[".txt"], key), key)
        else:
            caption = decode_caption(str(facts.get("caption") or "").encode(), key)
        return Entry(key, caption, functools.partial(self._load, shard, pictures[0], key))

    def _load(self, shard: Path, member: tarfile.TarInfo, key: str) -> Image.Image:
        data = _read(shard, member, key)
        if not data:
            raise Skip("picture is empty", key)
        try:
            image = decode_image(key, io.BytesIO(data))
        except ValueError as error:
            raise Skip(picture_fault(str(error)), key) from error
        check_large(image, self.wanted.min_size, key)
        return image


def _index(shard: Path) -> tuple[dict[str, dict[str, tarfile.TarInfo]], list[Skip]]:
    """A shard's usable members by key and suffix, and what is wrong with the rest."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    skips: list[Skip] = []
    end = shard.stat().st_size if shard.is_file() else 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                place = f"{shard.name}/{member.name}"
                path = PurePosixPath(member.name)
                if member.isdir():
                    continue
                if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                    skips.append(Skip("path leads out", place))
                elif not member.isreg():
                    skips.append(Skip("link or device", place))
                elif path.suffix.lower() in PICKLES:
                    skips.append(Skip("pickle", place))
                elif member.size > MAX_MEMBER_BYTES:
                    skips.append(Skip("member is too large", place))
                elif member.offset_data + member.size > end:
                    skips.append(Skip("shard is truncated", place))
                elif path.suffix.lower() in samples.setdefault(str(path.with_suffix("")), {}):
                    skips.append(Skip("duplicate key", place))
                else:
                    samples[str(path.with_suffix(""))][path.suffix.lower()] = member
    except (tarfile.TarError, OSError, EOFError) as error:
        skips.append(Skip("shard is empty" if end == 0 else f"shard is damaged ({type(error).__name__})", shard.name))
    if not samples and not skips:
        skips.append(Skip("shard is empty", shard.name))
    return {key: members for key, members in samples.items() if members}, skips


def _read(shard: Path, member: tarfile.TarInfo, key: str) -> bytes:
    try:
        with shard.open("rb") as file:
            file.seek(member.offset_data)
            data = file.read(member.size)
    except OSError as error:
        raise Skip("shard cannot be read", key) from error
    if len(data) < member.size:
        raise Skip("shard is truncated", key)
    return data
