"""Indexes tar shards: headers are read once and cached, so that reading a sample takes one seek.

The cache is a folder of compressed files, one per shard: `$SELFCASCADE_CACHE/shards`, or `~/.cache/selfcascade/shards`.
The index of a shard that has changed, or a damaged index, is made again. Without write access nothing is cached.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from selfcascade.data.decode import printable
from selfcascade.data.examples import Skip
from selfcascade.data.known_files import is_clutter
from selfcascade.media.endings import ending_of
from selfcascade.media.whole_files import write_whole

PICKLES = frozenset({".pkl", ".pickle", ".pyd", ".pt", ".pth", ".npy", ".npz", ".joblib", ".bin"})
MAX_MEMBER_BYTES = 256 * 2**20
FORMAT = 1
HELD = 4  # shards whose members are in memory


class Member(NamedTuple):
    """Position and number of a member's bytes in its shard."""

    offset: int
    size: int


class Summary(NamedTuple):
    """Facts about a shard without its members.

    Attributes:
        entries: Number of samples and skips.
        digest: Digest of the whole index.
    """

    entries: int
    digest: str


class ShardIndex(NamedTuple):
    """A shard's samples by key, in order, each with its members by suffix, and the skips for faulty ones."""

    samples: list[tuple[str, dict[str, Member]]]
    skips: list[Skip]


def summary_of(shard: Path) -> Summary:
    """The summary of a shard, from the cache or from its headers."""
    return _summary(shard, *_state(shard))


def index_of(shard: Path) -> ShardIndex:
    """The index of a shard, from the cache or from its headers."""
    return _index(shard, *_state(shard))


@functools.lru_cache(maxsize=1_000_000)
def _summary(shard: Path, size: int, changed: int) -> Summary:
    for line in _cached(shard, size, changed, lines=1):
        return Summary(int(line["entries"]), str(line["digest"]))
    index = _index(shard, size, changed)
    return Summary(*_described(index)[:2])


@functools.lru_cache(maxsize=HELD)
def _index(shard: Path, size: int, changed: int) -> ShardIndex:
    for line in _cached(shard, size, changed, lines=2)[1:]:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            samples = [
                (str(key), {suffix: Member(*map(int, place)) for suffix, place in parts.items()})
                for key, parts in line["samples"]
            ]
            return ShardIndex(samples, [Skip(*skip) for skip in line["skips"]])
    index = _scanned(shard)
    entries, digest, members = _described(index)
    head = {"format": FORMAT, "size": size, "changed": changed, "entries": entries, "digest": digest}
    data = gzip.compress(f"{json.dumps(head)}\n{members}\n".encode(), 3)
    with contextlib.suppress(OSError):  # without a cache it is read again the next time
        write_whole(_place(shard), lambda aside: aside.write_bytes(data))
    return index


def _described(index: ShardIndex) -> tuple[int, str, str]:
    """Number of entries, digest, and the members as JSON."""
    skips = [(skip.reason, skip.key, skip.damaged) for skip in index.skips]
    members = json.dumps({"samples": index.samples, "skips": skips})
    return len(index.samples) + len(skips), hashlib.sha256(members.encode()).hexdigest()[:16], members


def _cached(shard: Path, size: int, changed: int, lines: int) -> list[dict[str, Any]]:
    """The first lines of the cached index for a shard in this state; empty if there is none."""
    try:
        with gzip.open(_place(shard), "rt", encoding="utf-8") as file:
            found = [json.loads(file.readline()) for _ in range(lines)]
        head = found[0]
        same = (head["format"], head["size"], head["changed"]) == (FORMAT, size, changed)
        return found if same and {"entries", "digest"} <= head.keys() else []
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _place(shard: Path) -> Path:
    folder = Path(os.environ.get("SELFCASCADE_CACHE") or "~/.cache/selfcascade").expanduser()
    return folder / "shards" / f"{hashlib.sha256(os.path.realpath(shard).encode()).hexdigest()[:32]}.json.gz"


def _state(shard: Path) -> tuple[int, int]:
    """Size and modification time of a shard, by which its index is recognised."""
    try:
        stat = shard.stat()
    except OSError:
        return -1, 0
    return stat.st_size, stat.st_mtime_ns


def _scanned(shard: Path) -> ShardIndex:
    samples: dict[str, dict[str, Member]] = {}
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
            if ending_of(path) in parts:
                skips.append(Skip("duplicate key", place))
            else:
                parts[ending_of(path)] = Member(member.offset_data, member.size)
    except Skip as skip:
        skips.append(skip)
    return ShardIndex(sorted(samples.items()), skips)


def _fault(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """Why a member is not read; None if it is."""
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return "path leads out"
    if not path.name:
        return "member has no name"
    if not member.isreg():
        return "link or device"
    if member.issparse():
        return "sparse member"
    if ending_of(path) in PICKLES:
        return "pickle"
    return "member is too large" if member.size > MAX_MEMBER_BYTES else None


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """A shard's members apart from folders, in the order of the file.

    Raises:
        Skip: The shard is missing, empty, damaged or truncated; the members before that have been yielded.
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
                # A negative size would make tarfile go back, for ever.
                if member.size < 0:
                    raise Skip("shard is damaged", name)
                if member.isreg() and member.offset_data + member.size > end:
                    raise Skip("shard is truncated", name)
                found += 1
                if not member.isdir():
                    yield member
            # tarfile takes a broken header or a cut between members for the end, which must be a block of zeros.
            file.seek(tar.offset)
            last = file.read(tarfile.BLOCKSIZE)
    except Skip:
        raise
    except Exception as error:  # tarfile raises many kinds of errors: TarError, OSError, ValueError, ...
        raise Skip("shard is damaged", name) from error
    if len(last) < tarfile.BLOCKSIZE:
        raise Skip("shard is truncated", name)
    if last.strip(b"\0"):
        raise Skip("shard is damaged", name)
    if not found:
        raise Skip("shard is empty", name)
