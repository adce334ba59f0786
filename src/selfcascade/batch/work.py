"""The work of one process: makes the pictures or clips of a block of rows, as files."""

from __future__ import annotations

import contextlib
import json
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfcascade.batch.batch_plan import Job, Plan, blocks_of
from selfcascade.batch.beginning import complete
from selfcascade.batch.output_folder import OutputFolder
from selfcascade.batch.packing import FAILED, Member
from selfcascade.batch.refusals import BatchError
from selfcascade.batch.rows import Row, open_prompts
from selfcascade.making import Made, make_together
from selfcascade.media.frame_rates import DEFAULT_FPS
from selfcascade.media.save_clips import write_clip
from selfcascade.media.save_pictures import sidecar_bytes, untimed, write_picture
from selfcascade.options import Options

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade

MOST_FAILURES = 10
MOST_WORDS = 300


class Worker:
    """Makes blocks of a batch in any order; a block has the same bytes in every process.

    Args:
        job: The command's settings.
        folder: The batch's output folder.
        cascade: Model from `making.load_cascade`.

    Attributes:
        made, failed: Number of rows so far.
    """

    def __init__(self, job: Job, folder: OutputFolder, cascade: SelfCascade) -> None:
        self.job, self.folder, self.cascade = job, folder, cascade
        self.prompts = open_prompts(job.prompts)
        self.made, self.failed, self._failures = 0, 0, 0
        self._shard: tuple[int, list[list[tuple[Row, Options]]]] = (-1, [])

    @property
    def plan(self) -> Plan:
        """The whole batch."""
        return self.folder.plan

    def blocks(self, shard: int) -> list[list[tuple[Row, Options]]]:
        """The rows of a shard's blocks; those of the last shard are cached."""
        if self._shard[0] != shard:
            self._shard = shard, blocks_of(self.job, self.plan, shard, self.prompts)
        return self._shard[1]

    def make(self, shard: int, block: int) -> None:
        """Makes a block and writes its files.

        Raises:
            BatchError: The files cannot be written, or so many consecutive rows have failed that something else must be
                wrong.
        """
        rows = self.blocks(shard)[block]
        with computing_alike(self.cascade.pipe):
            files = self._files(rows)
        self.folder.add(shard, block, files)
        for (row, _), members in zip(rows, files, strict=True):
            failed = members[0].name.endswith(FAILED)
            self.made, self.failed = self.made + (not failed), self.failed + failed
            self._failures = self._failures + 1 if failed else 0
            if self._failures >= MOST_FAILURES:
                reason = json.loads(members[0].data)["reason"]
                words = f"{self._failures} rows failed one after the other, the last one, line {row.place.line}, with"
                raise BatchError(f"{words}: {reason}; they are tried again with --retry-failed")

    def _files(self, rows: Sequence[tuple[Row, Options]]) -> list[list[Member]]:
        """The files of each row. If rows made together fail, each is made alone, so that only the faulty ones fail."""
        try:
            return self._made(rows)
        except Exception:  # whatever a model can raise
            return [self._by_itself(row, len(rows)) for row in rows]

    def _made(self, rows: Sequence[tuple[Row, Options]]) -> list[list[Member]]:
        group = [complete(self.cascade, options) for _, options in rows]
        made = make_together(self.cascade, group)
        return [self._of_row(row, one) for (row, _), one in zip(rows, made, strict=True)]

    def _by_itself(self, row: tuple[Row, Options], count: int) -> list[Member]:
        """The files of a row, made in a batch of copies of itself: a batch of the same size gives the same bytes."""
        try:
            return self._made([row] * count)[0]
        except Exception as error:
            return [_failure(*row, error)]

    def _of_row(self, row: Row, made: Made) -> list[Member]:
        record, key, ending = untimed(made.record()), key_of(row), self.plan.ending
        own = {"key": key, "caption": made.options.prompt, "status": "success"}
        own |= {"width": made.image.width, "height": made.image.height, "row": row.number, "line": row.place.line}
        marks = {"flagged": True} if made.flagged else {}
        unread = unread_tokens(self.cascade.pipe, made.options.prompt)
        marks |= {"unread_tokens": unread} if unread else {}
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / f"{key}{ending}"
            if made.frames is None:
                write_picture(made.image, record, path, made.parameters())
            else:
                write_clip(made.frames, made.options.fps or DEFAULT_FPS, path, made.parameters(), ending)
            data = path.read_bytes()
        return [
            Member(path.name, data),
            Member(f"{key}.json", sidecar_bytes({**own, **marks, **record})),
            Member(f"{key}.txt", made.options.prompt.encode()),
        ]


def key_of(row: Row) -> str:
    """Name of a row's files, without the ending."""
    return f"{row.number:09}"


def unread_tokens(pipe: Any, prompt: str) -> int:
    """Tokens at the end of a prompt that the model's first text encoder does not read."""
    tokenizer = getattr(pipe, "tokenizer", None)
    limit = getattr(tokenizer, "model_max_length", None)
    if tokenizer is None or not isinstance(limit, int):
        return 0
    return max(0, len(tokenizer(prompt, truncation=False).input_ids) - limit)


@contextlib.contextmanager
def computing_alike(pipe: Any) -> Iterator[None]:
    """Makes a CPU compute with one thread in this context: several would sum in another order and give other bytes."""
    import torch

    threads = torch.get_num_threads()
    if torch.device(pipe._execution_device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _failure(row: Row, options: Options, error: Exception) -> Member:
    words = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    reason = textwrap.shorten(words, MOST_WORDS, placeholder=" ...")
    facts = {"key": key_of(row), "row": row.number, "line": row.place.line, "caption": options.prompt, "reason": reason}
    return Member(f"{key_of(row)}{FAILED}", json.dumps(facts, ensure_ascii=False).encode())
