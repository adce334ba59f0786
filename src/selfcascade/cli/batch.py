"""`batch`: makes a picture or clip of each row in a file of prompts, on any number of processes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from selfcascade.batch.batch_plan import Job, survey
from selfcascade.batch.refusals import BatchError
from selfcascade.cli.console import FAILURE, Debug, note, show, tell
from selfcascade.cli.flags import with_options
from selfcascade.cli.records import check_method, gather
from selfcascade.options import Options

if TYPE_CHECKING:
    from selfcascade.pipeline import SelfCascade

MOST_SHOWN = 20
Prompts = Annotated[
    Path,
    typer.Argument(
        metavar="PROMPTS",
        help="A .txt with one prompt per line, or a .csv, .tsv, .jsonl or .parquet with options as columns.",
        show_default=False,
    ),
]
Folder = Annotated[Path, typer.Option("--output", help="Folder of the batch; an unfinished batch is continued.")]
RowsPerShard = Annotated[int, typer.Option(min=1, max=100_000, help="Rows per shard.")]
BatchSize = Annotated[int, typer.Option(min=1, max=1024, help="Rows made together; it changes pictures slightly.")]
Form = Annotated[Literal["tar", "files"], typer.Option("--format", help="Shards are .tar files, or folders of files.")]
Ending = Annotated[
    str | None,
    typer.Option(help="png, jpg or webp; for video mp4, gif or webp (default: png, mp4).", show_default=False),
]
PartOf = Annotated[str | None, typer.Option("--part", metavar="K/N", help="Make share K, from 0, of N separate jobs.")]
Engine = Annotated[Literal["processes", "ray"], typer.Option(help="Processes of a launcher, or actors of Ray.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Number of Ray actors (default: one per GPU, or CPU).", show_default=False),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try failed rows again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and count all rows and their cost; write nothing.")]


@with_options("batch")
def batch(
    given: dict[str, Any],
    prompts: Prompts,
    output: Folder,
    rows_per_shard: RowsPerShard = 100,
    batch_size: BatchSize = 1,
    form: Form = "tar",
    ending: Ending = None,
    part: PartOf = None,
    engine: Engine = "processes",
    workers: Workers = None,
    retry_failed: Retry = False,
    dry_run: DryRun = False,
    debug: Debug = False,
) -> None:
    """Make a picture or clip of every row of PROMPTS, in shards that `train` reads; run again to continue."""
    from selfcascade.batch.on_processes import Part, run_on_processes
    from selfcascade.loading.named_files import check_files

    options, _ = gather(given)
    check_method(options)
    options = check_files(options)
    dotted = None if ending is None else f".{ending.removeprefix('.').lower()}"
    job = Job(prompts, output, options, rows_per_shard, batch_size, form, dotted)
    share = None if part is None else Part(*_fraction(part))
    if share is not None and share.count > 1 and retry_failed:
        raise BatchError("--retry-failed is for one job; leave --part out")
    if engine == "ray" and share is not None:
        raise BatchError("--part is for separate jobs, and --engine ray shares the rows out itself; leave one out")
    if engine != "ray" and workers is not None:
        raise BatchError("--workers is for --engine ray; a launcher says how many processes there are")
    if dry_run:
        _show(job)
        return
    if engine == "ray":
        from selfcascade.batch.on_ray import run_on_ray

        outcome = run_on_ray(job, retry_failed, workers, note)
    else:
        outcome = run_on_processes(job, retry_failed, share, note)
    if outcome.is_main:
        _end(job, outcome, share)


def _end(job: Job, outcome: Any, share: Any) -> None:
    """Reports the state of the batch."""
    made = outcome.done - outcome.failed
    note(f"{made:,} of {outcome.rows:,} rows are made")
    tell(job.output)
    if outcome.failed:
        again = "try them again with --retry-failed"
        note(f"{outcome.failed:,} rows failed: their reasons are in {str(job.output / 'failed.jsonl')!r}; {again}")
        raise typer.Exit(FAILURE)
    if outcome.done < outcome.rows and share is None:
        note(f"{outcome.rows - outcome.done:,} rows are left; run the same command again")
        raise typer.Exit(FAILURE)


def _show(job: Job) -> None:
    """Checks every row, and shows how many there are of each kind and what they cost; nothing is written."""
    from selfcascade.batch.beginning import check_kinds
    from selfcascade.batch.progress import duration
    from selfcascade.making import load_cascade

    found = survey(job)
    cascade, _ = load_cascade(job.options)
    check_kinds(job, found, cascade)
    table = Table("rows", "height", "width", "scale", "method", "frames", "first line", "TFLOPs each", "seconds each")
    tflops, seconds, counted = 0.0, 0.0, 0
    for key, (options, line) in list(found.kinds.items())[:MOST_SHOWN]:
        count, cost = found.counts[key], _cost(cascade, options, job.batch_size)
        sides = [options.height, options.width, options.scale, options.method, options.num_frames, line]
        each = ("-", "-") if cost is None else (f"{cost[0]:.3g}", f"{cost[1]:.3g}")
        table.add_row(f"{count:,}", *("-" if side is None else str(side) for side in sides), *each)
        if cost is not None:
            tflops, seconds, counted = tflops + cost[0] * count, seconds + cost[1] * count, counted + count
    show(table)
    more = len(found.kinds) - MOST_SHOWN
    note(f"{found.rows:,} rows in {len(found.shards):,} shards" + (f"; {more:,} more kinds" if more > 0 else ""))
    if counted:
        words = "" if counted == found.rows else f" of {counted:,} of them"
        note(f"the work{words}: {tflops:.3g} TFLOPs, {duration(seconds)} in one process on this device")


def _cost(cascade: SelfCascade, options: Options, batch: int) -> tuple[float, float] | None:
    """TFLOPs and seconds of a row, made in a batch; None where they cannot be told before it runs."""
    from selfcascade.batch.beginning import complete
    from selfcascade.cost.plan import estimate_call
    from selfcascade.making import TUNED

    options = complete(cascade, options)
    if options.method not in (None, "self-cascade", TUNED):
        return None
    costs = estimate_call(cascade, cascade.plan(**options.keywords("plan")), options, batch)
    told = [(cost.tflops, cost.seconds) for cost in costs if cost.tflops is not None and cost.seconds is not None]
    return (
        (sum(one for one, _ in told) / batch, sum(two for _, two in told) / batch) if len(told) == len(costs) else None
    )


def _fraction(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise BatchError(f"--part must be K/N with K from 0 to N - 1, like 0/4, not {text!r}")
    return int(match[1]), int(match[2])
