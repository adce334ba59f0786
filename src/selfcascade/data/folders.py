"""A folder of pictures or clips with captions: a .txt next to each, or a metadata.jsonl or metadata.csv per folder."""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfcascade.cascade import Size
from selfcascade.data.csv_records import csv_records
from selfcascade.data.decode import (
    MAX_CAPTION_BYTES,
    Media,
    PictureFiles,
    check_caption,
    check_inside,
    decode_caption,
    printable,
)
from selfcascade.data.examples import DataError, Entry, Fingerprint, Report, Skip, Source, fingerprint_of, order
from selfcascade.data.known_files import is_clutter, unread
from selfcascade.media.endings import ending_of

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_KEYS = ("text", "caption", "prompt")


class FolderSource(Source):
    """Pictures or clips below a folder, at any depth; symbolic links and metadata cannot lead out of it.

    Hidden files and those left by operating systems are ignored. Files that look like data but are not read are skips.

    Args:
        folder: The folder; it is listed once, on construction, and files are opened when used.
        min_size: Least size of pictures; None takes all.
        media: The kind of files; None: pictures of at least `min_size`.
        option: The caller's name for the folder, for messages.

    Raises:
        DataError: The folder is missing, or has no such files.
    """

    def __init__(
        self, folder: Path, min_size: Size | None = None, media: Media | None = None, option: str = "train_data"
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{option} {str(folder)!r} is not a folder")
        self.folder, self.media = folder.resolve(), media or PictureFiles(min_size)
        self.captions: dict[Path, str | Skip] = {}
        self.faults: list[Skip] = []
        files = [path for path in sorted(self._files()) if not is_clutter(path.relative_to(self.folder))]
        self.beside = {path.with_suffix(""): path for path in files if ending_of(path) == ".txt"}
        for path in files:
            if path.name.lower() in METADATA:
                self._read_metadata(path)
        found = {path for path in files if ending_of(path) in self.media.extensions} | self.captions.keys()
        not_read = unread(files, self.folder, found, self.media.others, self.media.noun)
        if not found and not self.faults:
            endings, report = ", ".join(sorted(self.media.extensions)), Report(max_skip_share=1.0)
            for skip in not_read:
                report.count(skip)
            words = f": {report.reasons()}" if not_read else ""
            raise DataError(f"{option} {str(folder)!r} has no {self.media.noun}s ({endings}){words}")
        self.samples: list[Path | Skip] = [*sorted(found), *self.faults, *not_read]
        self.metadata = [path for path in files if path.name.lower() in METADATA]

    def __len__(self) -> int:
        return len(self.samples)

    def entry(self, seed: int, epoch: int, index: int) -> Entry:
        """The file at an index of the epoch's order, which is drawn from seed and epoch."""
        sample = self.samples[int(order(len(self), seed, epoch)[index])]
        if isinstance(sample, Skip):
            raise sample
        return self._entry(sample, f"{seed} {epoch}")

    def fingerprint(self) -> Fingerprint:
        """A digest of the samples, captions and metadata, by their paths in the folder."""
        own = [path for path in self.samples if isinstance(path, Path)]
        beside = [path for path in (self.beside.get(path.with_suffix("")) for path in own) if path is not None]
        files = ((self._key(path), path) for path in (*own, *beside, *self.metadata))
        return fingerprint_of(len(self), files, [str(sample) for sample in self.samples if isinstance(sample, Skip)])

    def _files(self) -> Iterator[Path]:
        """All files below the folder; linked folders are not entered, and files outside are faults."""
        for place, folders, names in os.walk(self.folder):
            for name in folders:
                try:
                    self._check_inside(Path(place, name))
                except Skip as skip:
                    self.faults.append(skip)
            yield from (Path(place, name) for name in names)

    def _check_inside(self, path: Path) -> None:
        check_inside(path, self.folder, self._key(path))

    def _entry(self, path: Path, draw: str) -> Entry:
        key, caption = self._key(path), self.captions.get(path)
        if isinstance(caption, Skip):
            raise caption
        self._check_inside(path)
        if not os.path.isfile(path):  # noqa: PTH113 (pathlib's raises at a name that is too long)
            raise Skip(f"{self.media.noun} is missing", key)
        load = functools.partial(self.media.load, path, key, f"{draw} {key}")
        return Entry(key, caption or self._caption_beside(path), load, path)

    def _caption_beside(self, path: Path) -> str:
        beside = self.beside.get(path.with_suffix(""))
        if beside is None:
            raise Skip("caption is missing", self._key(path))
        self._check_inside(beside)
        if not beside.is_file():
            raise Skip("caption is missing", self._key(path))
        try:
            with beside.open("rb") as file:
                return decode_caption(file.read(MAX_CAPTION_BYTES + 1), self._key(path))
        except OSError as error:
            raise Skip("caption cannot be read", self._key(path)) from error

    def _read_metadata(self, path: Path) -> None:
        try:
            self._check_inside(path)
            rows = _rows(path, self._key(path))
        except Skip as skip:
            self.faults.append(skip)
            return
        for number, row in enumerate(rows, 1):
            try:
                listed, caption = self._listed(row, path, f"{self._key(path)}:{number}")
            except Skip as skip:
                self.faults.append(skip)
            else:
                self.captions[listed] = caption

    def _listed(self, row: dict[str, Any] | Skip, path: Path, key: str) -> tuple[Path, str | Skip]:
        """The file that a row of metadata names, and its caption."""
        if isinstance(row, Skip):
            raise row
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise Skip("metadata names no file", key)
        listed = Path(os.path.normpath(path.parent / name))
        if not listed.is_relative_to(self.folder):
            raise Skip("leads out of the folder", key)
        self._check_inside(listed)
        if listed in self.captions:
            raise Skip("listed twice", key)
        words = next((row[word] for word in CAPTION_KEYS if isinstance(row.get(word), str)), None)
        try:
            return listed, check_caption(words, key)
        except Skip as skip:
            return listed, skip

    def _key(self, path: Path) -> str:
        return printable(path.relative_to(self.folder).as_posix())


def _rows(path: Path, key: str) -> list[dict[str, Any] | Skip]:
    if not path.is_file():
        raise Skip("metadata is not a file", key)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Skip("metadata cannot be read", key) from error
    except UnicodeDecodeError as error:
        raise Skip("metadata is not UTF-8", key) from error
    return list(_csv_rows(text, key) if ending_of(path) == ".csv" else _json_rows(text, key))


def _csv_rows(text: str, key: str) -> Iterator[dict[str, Any] | Skip]:
    header: list[str] | None = None
    for number, fields in csv_records(io.StringIO(text, newline="")):
        if fields is None:
            yield Skip("bad CSV", key)
        if header is None and fields is None:
            return  # there is no header that names the columns
        if header is None:
            header = [name.strip() for name in fields or ()] or None
        elif fields and len(fields) > len(header):  # a comma in a caption that has no quotes
            yield Skip("bad CSV", f"{key}:{number}")
        elif fields:
            yield dict(zip(header, fields, strict=False))


def _json_rows(text: str, key: str) -> Iterator[dict[str, Any] | Skip]:
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at characters inside a caption
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else Skip("bad JSON", f"{key}:{number}")
