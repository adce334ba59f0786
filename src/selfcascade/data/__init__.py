"""Training data: the scenes world, folders of pictures, tar shards; endless, deterministic, resumable batches."""

from __future__ import annotations

from pathlib import Path

from selfcascade.cascade import Size
from selfcascade.data.examples import Batch, DataError, Entry, Position, Report, Skip, Source
from selfcascade.data.folders import EXTENSIONS, FolderSource
from selfcascade.data.scenes_source import ScenesSource
from selfcascade.data.shards import ShardFilter, ShardSource
from selfcascade.data.stream import Stream, bucket_sizes, prefetched

__all__ = [
    "Batch",
    "DataError",
    "Entry",
    "FolderSource",
    "Position",
    "Report",
    "ScenesSource",
    "ShardFilter",
    "ShardSource",
    "Skip",
    "Source",
    "Stream",
    "bucket_sizes",
    "open_source",
    "prefetched",
]


def open_source(name: str, size: Size, wanted: ShardFilter | None = None) -> Source:
    """Training data by name.

    Args:
        name: "scenes"; a folder of pictures; a folder, a file or a pattern ("data/*.tar") of tar shards.
        size: Target; smaller pictures are filtered out.
        wanted: What the JSON of tar shards must say; None: the target's size, and the defaults.

    Raises:
        DataError: There is nothing by that name.
    """
    if name == "scenes":
        return ScenesSource(size)
    path = Path(name).expanduser()
    if name and path.is_dir():
        shards = sorted(path.glob("*.tar"))
        if shards and any(file.suffix.lower() in EXTENSIONS for file in path.iterdir()):
            raise DataError(f"train_data {name!r} holds both pictures and .tar shards; give each a folder of its own")
    elif path.is_file():
        shards = [path] if path.suffix == ".tar" else []
    else:
        shards = sorted(path.parent.glob(path.name)) if any(letter in path.name for letter in "*?[") else []
        shards = [shard for shard in shards if shard.suffix == ".tar"]
    if shards:
        return ShardSource(shards, wanted or ShardFilter(min_size=size))
    if name and path.is_dir():
        return FolderSource(path, size)
    raise DataError(f"train_data must be 'scenes', a folder of pictures, or .tar shards, not {name!r}")
