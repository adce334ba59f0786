"""The plan of a batch: rows in shards, shards in blocks; found in one pass over the file, and kept with the output.

A shard is a range of rows; a block is the rows of a shard that are made together. Neither depends on the processes.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfcascade.batch.refusals import BatchError, RowsError
from selfcascade.batch.row_options import kind, options_of
from selfcascade.batch.rows import Place, PromptFile, Row, file_sha256, open_prompts
from selfcascade.options import Options
from selfcascade.options.addresses import refusal
from selfcascade.options.checks import OptionError, shown

SCHEMA, KIND = 1, "selfcascade.batch"
FORMATS = ("tar", "files")
MOST_TOLD = 3
MOST_KINDS = 1000
MODEL = "model_facts"
FILES = "files_sha256"


@dataclass(frozen=True)
class Job:
    """The command's settings.

    Attributes:
        prompts: File of prompts.
        output: Output folder.
        options: Default options of the rows.
        rows_per_shard: Number of rows in a shard; the last one may have fewer.
        batch_size: Largest number of rows made together; the pictures depend on it.
        form: "tar" or "files".
        ending: Ending of the files; None means ".png" for pictures and ".mp4" for clips.
    """

    prompts: Path
    output: Path
    options: Options
    rows_per_shard: int = 100
    batch_size: int = 1
    form: str = "tar"
    ending: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "output"):
            words = refusal(name, str(getattr(self, name)))
            if words is not None:
                raise BatchError(words)

    def facts(self) -> dict[str, Any]:
        """Settings, by name, that another run must share in order to continue the batch."""
        own = {name: value for name, value in self.options.as_record().items() if name != "device"}
        layout = {"rows_per_shard": self.rows_per_shard, "batch_size": self.batch_size, "format": self.form}
        return {**own, **layout}


@dataclass(frozen=True)
class Shard:
    """A range of rows.

    Attributes:
        place: Position of the first row in the file.
        blocks: Number of blocks.
    """

    place: Place
    blocks: int


@dataclass(frozen=True)
class Plan:
    """The whole batch.

    Attributes:
        sha256: SHA-256 of the file of prompts.
        rows: Number of rows.
        shards: The shards in order.
        facts: `Job.facts`, and the model's facts under `MODEL`.
        ending: Ending of the files.
    """

    sha256: str
    rows: int
    shards: tuple[Shard, ...]
    facts: Mapping[str, Any]
    ending: str

    @property
    def blocks(self) -> int:
        """Number of blocks in all shards."""
        return sum(shard.blocks for shard in self.shards)

    def range(self, number: int) -> range:
        """The rows of a shard."""
        each = int(self.facts["rows_per_shard"])
        return range(number * each, min(self.rows, (number + 1) * each))

    def as_json(self) -> str:
        """The plan as JSON, with one line for each shard."""
        head = {"schema": SCHEMA, "kind": KIND, "prompts_sha256": self.sha256, "rows": self.rows, "ending": self.ending}
        shards = ",\n".join(json.dumps([*shard.place, shard.blocks]) for shard in self.shards)
        lines = [json.dumps(head)[:-1], f'"facts": {json.dumps(self.facts)}', f'"shards": [\n{shards}\n]}}\n']
        return ",\n".join(lines)

    @classmethod
    def from_json(cls, text: str, name: str) -> Plan:
        """The inverse of `as_json`.

        Raises:
            BatchError: The text is not a plan; `name` is its file, for the message.
        """
        try:
            found = json.loads(text)
            if (found["kind"], found["schema"]) != (KIND, SCHEMA):
                raise ValueError(f"it is of kind {shown(found['kind'])}, schema {shown(found['schema'])}")
            shards = tuple(Shard(Place(int(at), int(line)), int(blocks)) for at, line, blocks in found["shards"])
            return cls(found["prompts_sha256"], int(found["rows"]), shards, dict(found["facts"]), str(found["ending"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BatchError(f"{name!r} is not the plan of a batch: {' '.join(str(error).split())}") from error


@dataclass
class Survey:
    """The result of one pass over the file of prompts.

    Attributes:
        sha256: SHA-256 of the file.
        rows: Number of rows.
        shards: The shards in order.
        kinds: Options of the first `MOST_KINDS` kinds of rows, with the first line of each.
        counts: Number of rows of each of those kinds.
    """

    sha256: str
    rows: int = 0
    shards: list[Shard] = field(default_factory=list)
    kinds: dict[str, tuple[Options, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def survey(job: Job) -> Survey:
    """Reads and checks all rows, keeping only the current one in memory.

    Raises:
        RowsError: Some rows cannot be made.
        BatchError: The file cannot be read, or has no rows.
    """
    found, faults, wrong = Survey(file_sha256(job.prompts)), list[tuple[int, str]](), 0
    shard, start = Counter[str](), Place(0, 1)
    for row in open_prompts(job.prompts).rows():
        if row.number % job.rows_per_shard == 0:
            _close(found, shard, start, job.batch_size)
            shard, start = Counter[str](), row.place
        found.rows += 1
        try:
            options = options_of(job.options, row)
        except OptionError as error:
            wrong += 1
            if len(faults) < MOST_TOLD:
                faults.append((row.place.line, str(error)))
            continue
        key = kind(options)
        shard[key] += 1
        if key in found.kinds or len(found.kinds) < MOST_KINDS:
            found.kinds.setdefault(key, (options, row.place.line))
            found.counts[key] += 1
    _close(found, shard, start, job.batch_size)
    if wrong:
        raise RowsError(str(job.prompts), faults, wrong)
    if not found.rows:
        raise BatchError(f"prompts {str(job.prompts)!r} has no rows")
    return found


def blocks_of(job: Job, plan: Plan, number: int, prompts: PromptFile) -> list[list[tuple[Row, Options]]]:
    """The blocks of a shard: rows of one kind, in the order of the file.

    Args:
        job: The command's settings.
        plan: The batch.
        number: Number of the shard.
        prompts: The opened file of prompts.
    """
    own = plan.range(number)
    groups: dict[str, list[tuple[Row, Options]]] = {}
    for row in itertools.islice(prompts.rows(plan.shards[number].place, own.start), len(own)):
        options = options_of(job.options, row)
        groups.setdefault(kind(options), []).append((row, options))
    size = job.batch_size
    return [group[at : at + size] for group in groups.values() for at in range(0, len(group), size)]


def differences(job: Job, plan: Plan) -> Iterator[str]:
    """Describes each setting that differs from those of the existing batch."""
    ours = job.facts()
    sums = ours.get(FILES) or {}, plan.facts.get(FILES) or {}
    for path in sums[0]:
        if path in sums[1] and sums[0][path] != sums[1][path]:  # batches of version 0.1 have none
            yield f"{path!r} is another file than it was (its SHA-256 differs)"
    for name, value in ours.items():
        if name != FILES and plan.facts.get(name) != value:
            yield f"{name} is {shown(value)} and was {shown(plan.facts.get(name))}"
    if job.ending is not None and job.ending != plan.ending:
        yield f"files end in {job.ending} and ended in {plan.ending}"


def check_same(job: Job, plan: Plan) -> None:
    """Raises BatchError if the command or its file of prompts differs from those that the batch began with."""
    if file_sha256(job.prompts) != plan.sha256:
        raise BatchError(
            f"output {str(job.output)!r} holds a batch of other prompts than {str(job.prompts)!r} has now (its SHA-256 "
            f"differs); give another output"
        )
    different = list(differences(job, plan))
    if different:
        words = "; ".join(different)
        raise BatchError(
            f"output {str(job.output)!r} holds a batch with other options: {words}; give the same, or another output"
        )


def _close(found: Survey, shard: Counter[str], start: Place, batch_size: int) -> None:
    if shard:
        found.shards.append(Shard(start, sum(math.ceil(count / batch_size) for count in shard.values())))
