"""A table of captioned clips in WebVid's format: a CSV, and the clips in folders named by `page_dir`."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfcascade.data.clip_files import ClipFiles
from selfcascade.data.csv_records import csv_records
from selfcascade.data.decode import check_caption, check_inside, printable
from selfcascade.data.examples import DataError, Entry, Fingerprint, Skip, Source, file_size, order

ENDINGS = (".mp4", ".MP4", ".Mp4", ".mP4")
CAPTION_COLUMNS = ("name", "caption", "text")
# WebVid writes PT00H00M21S.
ISO_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")


class ClipTableSource(Source):
    """The clips that a CSV lists: columns `videoid`, `name` (or `caption`, `text`), and `page_dir`, `duration` if any.

    A clip is FOLDER/PAGE_DIR/VIDEOID.mp4. The table is read once, on construction, and only each row's position is kept
    in memory, so ten million rows fit.

    Args:
        table: The CSV file.
        media: Which clips are used; the table's `duration` is checked before a file is opened.
        folder: Folder of the clips; None: `videos` next to the table, or the table's own folder if there is none.
        option: The caller's name for the table, for messages.

    Raises:
        DataError: The table cannot be read, lacks a column, or has no rows.
    """

    def __init__(
        self, table: Path, media: ClipFiles | None = None, folder: Path | None = None, option: str = "train_data"
    ) -> None:
        self.table, self.media = table, media or ClipFiles()
        beside = table.parent / "videos"
        self.folder = (folder or (beside if beside.is_dir() else table.parent)).resolve()
        try:
            with table.open("rb") as file:
                places = [place for _, place, row in _records(file) if row or row is None]
                file.seek(0)
                header = next(_records(file), (0, 0, None))[2] or []
        except OSError as error:
            raise DataError(f"{option} {str(table)!r} cannot be read: {error.strerror}") from error
        self.width = len(header)
        self.columns = {name.strip().removeprefix("\ufeff").lower(): index for index, name in enumerate(header)}
        self.caption = next((name for name in CAPTION_COLUMNS if name in self.columns), None)
        if "videoid" not in self.columns or self.caption is None:
            raise DataError(
                f"{option} {str(table)!r} must have columns videoid and name (or caption, text), "
                f"not {', '.join(self.columns) or 'none'}"
            )
        self.places = np.array(places[1:], np.int64)
        if not len(self.places):
            raise DataError(f"{option} {str(table)!r} has no rows")

    def __len__(self) -> int:
        return len(self.places)

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The clip at an index of the epoch's order, which is drawn from seed and epoch."""
        with self.table.open("rb") as file:
            return self._entry(file, int(order(len(self), seed, epoch)[index]), f"{seed} {epoch}")

    def fingerprint(self) -> Fingerprint:
        """A digest of the table's contents; the clips, which may be millions, are not read."""
        with self.table.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Fingerprint(len(self), file_size(self.table), digest)

    def _entry(self, file: BinaryIO, number: int, draw: str) -> Entry:
        place = f"{printable(self.table.name)}:{number + 1}"
        file.seek(int(self.places[number]))
        row = next(_records(file), (0, 0, None))[2]
        if row is None:
            raise Skip("bad CSV", place)
        video = self._field(row, "videoid")
        if not video or len(row) != self.width:
            raise Skip("bad row", place)
        self._check_duration(self._field(row, "duration"), place)
        path = self._path(self._field(row, "page_dir"), video, place)
        caption = check_caption(self._field(row, self.caption or ""), place)
        key = printable(path.relative_to(self.folder).as_posix())
        if not os.path.isfile(path):  # noqa: PTH113 (pathlib's raises at a name that is too long)
            raise Skip("clip is missing", key)
        return Entry(key, caption, functools.partial(self.media.load, path, key, f"{draw} {key}"), path)

    def _field(self, row: list[str], name: str) -> str:
        index = self.columns.get(name)
        return row[index].strip() if index is not None and index < len(row) else ""

    def _path(self, page: str, video: str, place: str) -> Path:
        """Path of a row's clip, whatever the case of its ending; rows and links cannot lead out of the folder."""
        stem = os.path.normpath(self.folder / page / f"{video}.mp4").removesuffix(".mp4")
        named = [Path(f"{stem}{ending}") for ending in ENDINGS]
        path = next((path for path in named if os.path.isfile(path)), named[0])  # noqa: PTH113
        if not path.is_relative_to(self.folder):
            raise Skip("leads out of the folder", place)
        check_inside(path, self.folder, place)
        return path

    def _check_duration(self, words: str, place: str) -> None:
        """Raises Skip if the table's duration is unsuitable or malformed; an empty one is accepted."""
        if not words:
            return
        parts = ISO_DURATION.fullmatch(words)
        try:
            if parts and any(parts.groups()):
                seconds = sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (3600, 60, 1), strict=True))
            else:
                seconds = float(words)
        except ValueError as error:
            raise Skip("bad duration", place) from error
        if not 0 <= seconds < math.inf:
            raise Skip("bad duration", place)
        self.media.check_duration(seconds, place)


def _records(file: BinaryIO) -> Iterator[tuple[int, int, list[str] | None]]:
    """Number, position in the file and fields of each record from the current position on; None for malformed ones."""
    place = file.tell()
    lines = (line.decode("utf-8", "surrogateescape") for line in file)
    for number, (taken, row) in enumerate(csv_records(lines)):
        yield number, place, row
        place += sum(len(line.encode("utf-8", "surrogateescape")) for line in taken)
