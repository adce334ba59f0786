"""The folder of a batch: finished shards, parts of those that are not, and what of both is left to do.

A block's files lie in a part, `.parts/SHARD/BLOCK.ROWS.FAILED.tar`, until all parts of a shard are there and become the
shard: a tar file or a folder, then its facts, `SHARD_stats.json`, by which it counts as finished; the parts then go.
Each step gives one whole file its name, may be done twice, and gives the same bytes whoever does it.
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
    write_tar,
)
from selfcascade.batch.refusals import BatchError
from selfcascade.batch.remaining import Left
from selfcascade.media.whole_files import temporary_file

PLAN, PARTS, FAILURES = "plan.json", ".parts", "failed.jsonl"
STATS_KIND = "selfcascade.shard"
FACTS = re.compile(r"([0-9]{5,})_stats\.json")
PART = re.compile(r"([0-9]{5,})\.([0-9]+)\.([0-9]+)\.tar")


class OutputFolder:
    """The folder of a batch that has begun.

    Args:
        root: The folder.
        plan: The batch.
    """

    def __init__(self, root: Path, plan: Plan) -> None:
        self.root, self.plan = root, plan
        self.digits = max(5, len(str(len(plan.shards) - 1)))

    def shard_path(self, shard: int) -> Path:
        """Where a shard is when it is finished."""
        name = f"{shard:0{self.digits}}"
        return self.root / (f"{name}.tar" if self.plan.facts["format"] == "tar" else name)

    def facts_path(self, shard: int) -> Path:
        """Where the facts of a finished shard are."""
        return self.root / f"{shard:0{self.digits}}_stats.json"

    def facts(self, shard: int) -> dict[str, Any] | None:
        """The facts of a shard, None unless it is finished and there as they say."""
        try:
            found = json.loads(self.facts_path(shard).read_bytes())
            path = self.shard_path(shard)
            if found["kind"] != STATS_KIND or found["first"] != self.plan.range(shard).start:
                return None
            there = path.stat().st_size if path.suffix == ".tar" else len(list(os.scandir(path)))
            return found if there == found["bytes" if path.suffix == ".tar" else "files"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def parts(self, shard: int) -> dict[int, tuple[Path, int, int]]:
        """By block, the parts of a shard: file, rows, and how many of those have failed."""
        found: dict[int, tuple[Path, int, int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._staging(shard)):
                match = PART.fullmatch(entry.name)
                if match is not None:
                    found[int(match[1])] = (Path(entry.path), int(match[2]), int(match[3]))
        return found

    def seen(self) -> tuple[set[int], set[int]]:
        """Shards whose facts have a name, and those that have parts; neither is looked into."""
        finished = {int(match[1]) for name in os.listdir(self.root) if (match := FACTS.fullmatch(name))}  # noqa: PTH208
        begun = {int(name) for name in os.listdir(self.root / PARTS) if name.isdecimal()}  # noqa: PTH208
        return finished, begun

    def left(self) -> Left:
        """What is left at this moment."""
        named, begun = self.seen()
        finished = frozenset(shard for shard in named if self.facts(shard) is not None)
        for shard in begun & finished:  # its last process was killed before it could
            remove(self._staging(shard))
        return Left(finished, {shard: frozenset(self.parts(shard)) for shard in sorted(begun - finished)})

    def lacks(self, shard: int, block: int) -> bool:
        """Whether a block is still to be made."""
        return block not in self.parts(shard) and self.facts(shard) is None

    def add(self, shard: int, block: int, rows: Sequence[list[Member]]) -> None:
        """Keeps the files of a block, a list for each of its rows, and makes the shard where it was the last one.

        Raises:
            BatchError: They cannot be written.
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
                if self.facts(shard) is None:  # else another process has finished the shard and removed its parts
                    raise

    def finish(self, shard: int) -> bool:
        """Makes a shard of its parts, if they are all there; whether it is finished."""
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
        """Makes the shards whose parts are all there: the process with the last one was killed before it could."""
        with self.writing():
            finished, begun = self.seen()
            for shard in begun - finished:
                self.finish(shard)

    def is_finished(self) -> bool:
        """Whether all shards are."""
        return len(self.left().finished) == len(self.plan.shards)

    def close(self) -> int:
        """Lists the failed rows, and removes what was only there to go on from; how many have failed.

        Called by one process, when the others have ended.
        """
        self.finish_whole()
        if self.is_finished():
            for shard in self.seen()[1]:
                remove(self._staging(shard))
        return self.list_failures()

    def reopen(self, blocks: Callable[[int], list[list[int]]]) -> None:
        """Makes blocks with failed rows count as not made.

        Called by one process, while no other one works.

        Args:
            blocks: The rows of a shard's blocks, by its number.
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
        """What is known of each row that has failed, of finished shards."""
        for shard in range(len(self.plan.shards)):
            yield from (self.facts(shard) or {"failed": ()})["failed"]

    def list_failures(self) -> int:
        """Writes `failed.jsonl`, or removes it where no row has failed; how many have."""
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
        """Says in a sentence why something could not be written."""
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
        """Puts a folder of files in place; one that is there already, in the way or half removed, gives way."""
        self._staging(shard).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._staging(shard), ignore_cleanup_errors=True) as place:
            filled = Path(place) / "files"
            filled.mkdir()
            for one in held:
                copy_out(one, filled / one.name)
            if folder.exists():
                with contextlib.suppress(OSError):
                    folder.rename(Path(place) / "earlier")
            try:
                filled.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process has put the same there just now
                    raise

    def _unpack(self, shard: int, failed: set[int], blocks: list[list[int]]) -> None:
        """Turns a finished shard into parts without the blocks of these rows; it is finished until they are there."""
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
    """Lets `write` fill a file beside `path`, then puts it in place in one step, on the disk for good."""
    with temporary_file(path.parent) as aside:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _index(part: Path) -> list[Held]:
    """The files in a part; one that a crash of the machine has damaged is removed, to be made again."""
    try:
        return index(part)
    except tarfile.TarError as error:
        part.unlink(missing_ok=True)
        raise FileNotFoundError(part) from error


def _order(held: Held) -> tuple[int, int]:
    """By row; the picture, then what is said of it."""
    key, _, ending = held.name.partition(".")
    return int(key), {"json": 1, "txt": 2}.get(ending, 0)
