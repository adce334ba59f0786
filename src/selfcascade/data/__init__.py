"""Training data: scenes, collages, folders of pictures or clips, shards, tables; endless, deterministic, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfcascade.cascade import Size
from selfcascade.data.ahead import prefetched
from selfcascade.data.clip_files import ClipFiles
from selfcascade.data.clip_table import ClipTableSource
from selfcascade.data.collages_source import CollagesSource, names_collages, parse_collages
from selfcascade.data.examples import Batch, DataError, Entry, Fingerprint, Position, Report, Sample, Skip, Source
from selfcascade.data.folders import FolderSource
from selfcascade.data.known_files import is_clutter, unread
from selfcascade.data.scenes_source import MovingScenesSource, ScenesSource
from selfcascade.data.shards import ShardFilter, ShardSource
from selfcascade.data.stream import Stream, bucket_sizes
from selfcascade.media.endings import PICTURES, ending_of
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.options.addresses import refusal
from selfcascade.options.optional import install, is_installed

__all__ = [
    "Batch",
    "ClipFiles",
    "ClipTableSource",
    "CollagesSource",
    "DataError",
    "Entry",
    "Fingerprint",
    "FolderSource",
    "MovingScenesSource",
    "Position",
    "Report",
    "Sample",
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


def open_source(
    name: str,
    size: Size,
    wanted: ShardFilter | None = None,
    clips: ClipFiles | None = None,
    option: str = "train_data",
) -> Source:
    """Opens training data by name.

    Args:
        name: "scenes"; "collages", or "collages:sprites=DIR,backgrounds=DIR,split=NAME"; a folder of pictures;
            a folder, a file or a pattern ("data/*.tar") of tar shards. With `clips`: "moving-scenes"; a folder of
            clips; a .csv that lists clips in WebVid's format.
        size: Target size; smaller pictures and clips are filtered out.
        wanted: Filter for the JSON of tar shards; None: the target's size, and the defaults.
        clips: Which clips and frames to use, for data of clips; without `min_size` the target's size is required.
        option: The caller's name for the data, for messages.

    Raises:
        DataError: There is no data with that name.
    """
    words = refusal(option, name)
    if words is not None:
        raise DataError(words)
    if clips is not None:
        return _open_clips(name, size, clips, option)
    if name == "scenes":
        return ScenesSource(size)
    if names_collages(name):
        return CollagesSource(size, *parse_collages(name))
    if name == "moving-scenes":
        raise DataError(f"{option} 'moving-scenes' is clips, which a model of pictures cannot learn; use 'scenes'")
    path, beside = Path(name).expanduser(), list[Path]()
    if name and path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and not is_clutter(file.relative_to(path))]
        shards = [file for file in files if file.parent == path and ending_of(file) == ".tar"]
        beside = [file for file in files if file.parent != path or ending_of(file) != ".tar"]
        if shards and any(file.parent == path and ending_of(file) in PICTURES for file in beside):
            raise DataError(f"{option} {name!r} holds both pictures and .tar shards; give each a folder of its own")
    elif path.is_file():
        shards = [path] if ending_of(path) == ".tar" else []
    else:
        shards = sorted(path.parent.glob(path.name)) if any(letter in path.name for letter in "*?[") else []
        shards = [shard for shard in shards if shard.suffix.lower() == ".tar" and not is_clutter(Path(shard.name))]
    if shards:
        not_read = unread(beside, path, shards, PICTURES, "shard")
        return ShardSource(shards, wanted or ShardFilter(min_size=size), not_read)
    if name and path.is_dir():
        return FolderSource(path, size, option=option)
    raise DataError(f"{option} must be 'scenes', 'collages', a folder of pictures, or .tar shards, not {name!r}")


def _open_clips(name: str, size: Size, clips: ClipFiles, option: str) -> Source:
    if names_collages(name):
        raise DataError(f"{option} {name!r} is pictures, which a model of clips cannot learn; use 'moving-scenes'")
    if name == "moving-scenes":
        return MovingScenesSource(size, clips.frames, clips.fps or DEFAULT_FPS / (clips.stride or 1))
    path = Path(name).expanduser()
    clips = clips if clips.min_size is not None else replace(clips, min_size=size)
    if name and (path.is_dir() or (path.is_file() and ending_of(path) == ".csv")):
        if not is_installed("av"):
            raise DataError(f"{option} {name!r} needs PyAV to be read: {install('av', 'train')}")
        folder = path.is_dir()
        return FolderSource(path, media=clips, option=option) if folder else ClipTableSource(path, clips, option=option)
    raise DataError(f"{option} of clips must be 'moving-scenes', a folder of clips, or a .csv file, not {name!r}")
