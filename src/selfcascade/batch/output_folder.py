"""The output folder of a batch: finished shards, parts of unfinished ones, and what is left to do.

A block's files are kept in a part, `.parts/SHARD/BLOCK.ROWS.FAILED.tar`, until all parts of a shard exist and become
the shard, a tar file or a folder. Its facts, `SHARD_stats.json`, are written next and mark it as finished; then the
parts are removed. Each step renames one complete file, may be repeated, and gives the same bytes in every process.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from selfcascade.batch.batch_plan import Plan
from selfcascade.batch.packing import (
    FAILED,
    Held,
    Member,
    copy_out,
    from_files,
    in_memory,
    index,
    listed,
    read,
    remove,
    strangers,
    write_tar,
)
from selfcascade.batch.refusals import BatchError
from selfcascade.batch.remaining import Left
from selfcascade.media.whole_files import temporary_file

PLAN, PARTS, FAILURES = "plan.json", ".parts", "failed.jsonl"
UNPACKED = "unpacked-"
STATS_KIND = "selfcascade.shard"
FACTS = re.compile(r"([0-9]{5,})_stats\.json")
PART = re.compile(r"([0-9]{5,})\.([0-9]+)\.([0-9]+)\.tar")


class OutputFolder:
    """The output folder of a batch that has begun.

    Args:
        root: The folder.
        plan: The batch.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        self.digits = max(5, len(str(len(plan.shards) - 1)))

    def shard_path(self, shard: int) -> Path:
        """Path of a finished shard."""
        name = f"{shard:0{self.digits}}"
        return self.root / (f"{name}.tar" if self.plan.facts["format"] == "tar" else name)

    def facts_path(self, shard: int) -> Path:
        """Path of a finished shard's facts."""
        return self.root / f"{shard:0{self.digits}}_stats.json"

    def facts(self, shard: int) -> dict[str, Any] | None:
        """The facts of a shard; None unless it is finished and its files are complete."""
        try:
            found = json.loads(self.facts_path(shard).read_bytes())
            path = self.shard_path(shard)
            if found["kind"] != STATS_KIND or found["first"] != self.plan.range(shard).start:
                return None
            there = path.stat().st_size if path.suffix == ".tar" else len(listed(path))
            return found if there == found["bytes" if path.suffix == ".tar" else "files"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def parts(self, shard: int) -> dict[int, tuple[Path, int, int]]:
        """The parts of a shard by block: file, number of rows, and number of failed rows."""
        found: dict[int, tuple[Path, int, int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._staging(shard)):
                match = PART.fullmatch(entry.name)
                if match is not None:
                    found[int(match[1])] = (Path(entry.path), int(match[2]), int(match[3]))
        return found

    def seen(self) -> tuple[set[int], set[int]]:
        """Shards that have facts, and shards that have parts, without opening either."""
        finished = {int(match[1]) for name in os.listdir(self.root) if (match := FACTS.fullmatch(name))}  # noqa: PTH208
        begun = {int(name) for name in os.listdir(self.root / PARTS) if name.isdecimal()}  # noqa: PTH208
        return finished, begun

    def left(self) -> Left:
        """The blocks that are left now."""
        named, begun = self.seen()
        finished = frozenset(shard for shard in named if self.facts(shard) is not None)
        for shard in begun & finished:  # the process that finished it was killed before it removed the parts
            remove(self._staging(shard))
        return Left(finished, {shard: frozenset(self.parts(shard)) for shard in sorted(begun - finished)})

    def lacks(self, shard: int, block: int) -> bool:
        """Whether a block is still to be made."""
        return block not in self.parts(shard) and self.facts(shard) is None

    def add(self, shard: int, block: int, rows: Sequence[list[Member]]) -> None:
        """Writes the files of a block, one list for each row, and the shard if this was its last block.

        Raises:
            BatchError: The files cannot be written.
        """
        failed = sum(member.name.endswith(FAILED) for members in rows for member in members)
        members = [member for row in rows for member in row]
        with self.writing():
            try:
                self._keep(
                    shard, f"{block:05}.{len(rows)}.{failed}.tar", lambda file: write_tar(file, in_memory(members))
                )
                self.finish(shard)
            except FileNotFoundError:
                if self.facts(shard) is None:  # otherwise another process has finished it and removed its parts
                    raise

    def finish(self, shard: int) -> bool:
        """Makes a shard of its parts if all of them exist; returns whether it is finished."""
        parts = self.parts(shard)
        if len(parts) < self.plan.shards[shard].blocks:
            return self.facts(shard) is not None
        try:
            held = [one for path, _, _ in parts.values() for one in _index(path)]
            self._publish(shard, sorted(held, key=_order))
        except FileNotFoundError:  # another process has made it just now, and removed the parts
            return self.facts(shard) is not None
        remove(self._staging(shard))
        return True

    def finish_whole(self) -> None:
        """Makes the shards whose parts all exist: a process was killed after it wrote the last one."""
        with self.writing():
            finished, begun = self.seen()
            for shard in begun - finished:
                self.finish(shard)

    def is_finished(self) -> bool:
        """Whether all shards are finished."""
        return len(self.left().finished) == len(self.plan.shards)

    def close(self) -> int:
        """Lists the failed rows, removes temporary files, and returns the number of failed rows.

        Called by one process, when the others have ended.
        """
        self.finish_whole()
        if self.is_finished():
            for left in (*map(self._staging, self.seen()[1]), *(self.root / PARTS).glob(f"{UNPACKED}*")):
                remove(left)
        return self.list_failures()

    def reopen(self, blocks: Callable[[int], list[list[int]]]) -> None:
        """Marks blocks with failed rows as not made.

        Called by one process, while no other one works.

        Args:
            blocks: Returns the rows of each block of a shard, given its number.
        """
        with self.writing():
            for shard in range(len(self.plan.shards)):
                facts = self.facts(shard)
                if facts is not None and facts["failed"]:
                    self._unpack(shard, {failure["row"] for failure in facts["failed"]}, blocks(shard))
                for path, _, failed in self.parts(shard).values():
                    if failed:
                        path.unlink()

    def failures(self) -> Iterator[dict[str, Any]]:
        """The record of each failed row in finished shards."""
        for shard in range(len(self.plan.shards)):
            yield from (self.facts(shard) or {"failed": ()})["failed"]

    def list_failures(self) -> int:
        """Writes `failed.jsonl`, or removes it if no row has failed; returns the number of failed rows."""
        path, count = self.root / FAILURES, 0
        with self.writing(), temporary_file(self.root) as aside:
            with aside.open("w", encoding="utf-8") as file:
                for failure in self.failures():
                    file.write(json.dumps(failure, ensure_ascii=False) + "\n")
                    count += 1
            aside.replace(path) if count else path.unlink(missing_ok=True)
        return count

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turns errors of writing into a BatchError that says why."""
        try:
            yield
        except OSError as error:
            kept = "what is finished is kept; run the same command again"
            if not (self.root / PLAN).is_file():
                words = "was removed or emptied while the batch ran"
                raise BatchError(f"output {str(self.root)!r} {words}; start again in a folder that stays") from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                words = f"there is no more room in output {str(self.root)!r} ({error.strerror})"
                raise BatchError(f"{words}; {kept} when there is") from error
            raise BatchError(
                f"output {str(self.root)!r} cannot be written: {error.strerror or error}; {kept}"
            ) from error

    def _staging(self, shard: int) -> Path:
        return self.root / PARTS / f"{shard:0{self.digits}}"

    def _publish(self, shard: int, held: list[Held]) -> None:
        kept = [one for one in held if not one.name.endswith(FAILED)]
        failed = [json.loads(read(one)) for one in held if one.name.endswith(FAILED)]
        path, own = self.shard_path(shard), self.plan.range(shard)
        facts: dict[str, Any] = {
            "kind": STATS_KIND,
            "first": own.start,
            "rows": len(own),
            "made": len(own) - len(failed),
        }
        if path.suffix == ".tar":
            _write(path, lambda file: write_tar(file, from_files(kept)))
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            facts |= {"bytes": path.stat().st_size, "sha256": sha256}
        else:
            self._unpack_to(shard, path, kept)
            facts |= {"files": len(kept)}
        data = json.dumps({**facts, "failed": failed}, ensure_ascii=False, indent=1).encode() + b"\n"
        _write(self.facts_path(shard), lambda file: file.write(data))

    def _unpack_to(self, shard: int, folder: Path, held: list[Held]) -> None:
        """Puts a folder of files in place; an existing one, complete or not, is replaced."""
        # Not in the shard's own folder of parts: another process that has just finished it removes that.
        aside = {"dir": self.root / PARTS, "prefix": UNPACKED, "ignore_cleanup_errors": True}
        with tempfile.TemporaryDirectory(**aside) as place:
            filled = Path(place) / "files"
            filled.mkdir()
            for one in held:
                copy_out(one, filled / one.name)
            earlier = Path(place) / "earlier"
            with contextlib.suppress(OSError):
                folder.rename(earlier)
            try:
                filled.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process has just put the same there
                    raise
            for other in strangers(earlier):
                other.rename(folder / other.name)

    def _unpack(self, shard: int, failed: set[int], blocks: list[list[int]]) -> None:
        """Turns a finished shard back into parts, without the blocks of these rows; it stays finished until then."""
        path = self.shard_path(shard)
        by_row: dict[int, list[Held]] = {}
        for one in index(path) if path.suffix == ".tar" else listed(path):
            by_row.setdefault(_order(one)[0], []).append(one)
        for block, rows in enumerate(blocks):
            if not failed & set(rows):
                held = [one for row in rows for one in by_row[row]]
                self._keep(shard, f"{block:05}.{len(rows)}.0.tar", functools.partial(_write_held, held))
        self.facts_path(shard).unlink()

    def _keep(self, shard: int, name: str, write: Callable[[BinaryIO], object]) -> None:
        self._staging(shard).mkdir(exist_ok=True)
        _write(self._staging(shard) / name, write)


def _write_held(held: list[Held], file: BinaryIO) -> None:
    write_tar(file, from_files(held))


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill a temporary file, syncs it to the disk, and renames it to `path`."""
    with temporary_file(path.parent) as aside:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _index(part: Path) -> list[Held]:
    """The files in a part. A part damaged by a crash of the machine is removed, to be made again."""
    try:
        return index(part)
    except tarfile.TarError as error:
        part.unlink(missing_ok=True)
        raise FileNotFoundError(part) from error


def _order(held: Held) -> tuple[int, int]:
    """Sort key: by row, the picture before its records."""
    key, _, ending = held.name.partition(".")
    return int(key), {"json": 1, "txt": 2}.get(ending, 0)
