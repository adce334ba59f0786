"""`selfcascade batch`: rows in, shards out; every row exactly once, whatever happens on the way."""

import errno
import io
import itertools
import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from PIL import Image

from command_line import record, refuse, run, succeed
from selfcascade import SelfCascade
from selfcascade.batch import work
from selfcascade.batch.batch_plan import Plan
from selfcascade.batch.beginning import model_facts
from selfcascade.batch.output_folder import OutputFolder
from selfcascade.cascade import Size
from selfcascade.data import open_source
from tiny import TINY

ROWS = [
    {"prompt": "a red apple"},
    {"prompt": "a cat, sleeping", "seed": 7, "negative_prompt": "rain"},
    {"prompt": "a blue boat", "method": "direct"},
]
QUICK = ["--model", "sd", "--steps", "2", "--height", "128", "--width", "128", "--rows-per-shard", "2"]


def batch(output: str = "out", *more: str, prompts: str = "rows.jsonl") -> list[str]:
    return succeed("batch", prompts, "--output", output, *QUICK, *more)


def held(folder: str | Path) -> dict[str, bytes]:
    """All files of a batch, but for its plan."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.name != "plan.json"}


def members(folder: str | Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                assert info.name not in found and (info.mtime, info.uid, info.uname) == (0, 0, "")
                file = tar.extractfile(info)
                assert file is not None
                found[info.name] = file.read()
    return found


@pytest.fixture
def rows(workplace: Path, one_thread: None) -> Path:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return workplace


def test_a_row_is_the_picture_that_generate_makes(rows: Path) -> None:
    batch()
    made = members("out")
    assert sorted(made) == [f"{row:09}.{end}" for row in range(3) for end in ("json", "png", "txt")]
    assert [made[f"{row:09}.txt"].decode() for row in range(3)] == [row["prompt"] for row in ROWS]
    Path("told.json").write_bytes(made["000000001.json"])
    (told,) = [
        line
        for line in run("generate", "--from", "told.json", "--output", "1.png").stderr.splitlines()
        if "pixels" in line
    ]
    assert "the same as" in told and "NOT" not in told
    assert Image.open("1.png").tobytes() == Image.open(io.BytesIO(made["000000001.png"])).tobytes()
    seeds = [json.loads(made[f"{row:09}.json"])["settings"]["seed"] for row in range(3)]
    assert seeds == [0, 7, 2]
    assert record("1")["settings"]["negative_prompt"] == "rain"


def test_train_reads_the_shards(rows: Path) -> None:
    batch()
    source = open_source("out", Size(128, 128))
    assert len(source) == 3
    assert sorted(source.entry(0, 0, index).caption for index in range(3)) == sorted(row["prompt"] for row in ROWS)


def test_formats_of_prompts_and_of_output_hold_the_same(rows: Path) -> None:
    batch()
    Path("rows.csv").write_text(
        'prompt,seed,negative_prompt,method\na red apple,,,\n"a cat, sleeping",7,rain,\na blue boat,,,direct\n'
    )
    batch("files", "--format", "files", prompts="rows.csv")
    unpacked = {path.name: path.read_bytes() for path in Path("files").glob("0*/*")}
    whole = members("out")
    assert unpacked.keys() == whole.keys()
    lines = {"line": None}  # a header is a line
    for name, data in whole.items():
        if name.endswith(".json"):
            assert {**json.loads(unpacked[name]), **lines} == {**json.loads(data), **lines}
        else:
            assert unpacked[name] == data


def test_separate_jobs_make_what_one_makes(rows: Path) -> None:
    batch()
    for part in ("1/2", "0/2"):
        run("batch", "rows.jsonl", "--output", "jobs", *QUICK, "--part", part)
    batch("jobs")
    assert held("jobs") == held("out")


def test_killed_before_each_write_it_ends_as_if_undisturbed(rows: Path) -> None:
    batch()
    kills = 0
    while True:
        child = os.fork()
        if not child:
            _die_before_replace(2 + kills % 2)
            os._exit(run("batch", "rows.jsonl", "--output", "killed", *QUICK).exit_code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == 9 and kills < 30
        kills += 1
    assert kills >= len(ROWS)
    assert held("killed") == held("out")


def _die_before_replace(number: int) -> None:
    """Lets this process die, like by a kill, at this rename into the batch."""
    names, replace = [], Path.replace

    def counted(self: Path, target: str | Path) -> Path:
        names.append(target)
        if len(names) == number:
            os._exit(9)
        return replace(self, target)

    Path.replace = counted  # type: ignore[method-assign]


def test_a_failed_row_is_listed_and_made_again(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch()
    from selfcascade import METHODS

    with monkeypatch.context() as patch:
        patch.setattr(type(METHODS["direct"]), "__call__", _out_of_memory)
        result = run("batch", "rows.jsonl", "--output", "failing", *QUICK)
    assert result.exit_code == 1 and "1 rows failed" in result.stderr
    (failed,) = map(json.loads, Path("failing/failed.jsonl").read_text().splitlines())
    assert (failed["row"], failed["caption"], failed["reason"]) == (2, "a blue boat", "RuntimeError: out of memory")
    assert sorted(members("failing")) == sorted(name for name in members("out") if not name.startswith("000000002"))
    assert run("batch", "rows.jsonl", "--output", "failing", *QUICK).exit_code == 1  # not tried again unasked
    batch("failing", "--retry-failed")
    assert held("failing") == held("out")


def test_rows_made_together_have_the_same_bytes_whatever_happens_to_the_others(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"prompt": word, "steps": 2} for word in ("a", "b", "c")]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    together = ["--batch-size", "3", "--rows-per-shard", "3"]
    batch("whole", *together)
    make, told = work.make_together, []

    def failing(cascade, group):
        told.append(len(group))
        if len(told) == 1 or [options.prompt for options in group] == ["b"] * 3:
            raise RuntimeError("out of memory")
        return make(cascade, group)

    with monkeypatch.context() as patch:
        patch.setattr(work, "make_together", failing)
        result = run("batch", "rows.jsonl", "--output", "hurt", *QUICK, *together)
    assert result.exit_code == 1 and told == [3, 3, 3, 3]
    whole, hurt = members("whole"), members("hurt")
    assert hurt == {name: data for name, data in whole.items() if not name.startswith("000000001")}
    batch("hurt", *together, "--retry-failed")
    assert held("hurt") == held("whole")


def _out_of_memory(*_: object, **__: object) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "there is no more room in output 'hurt' (No space left on device); what is finished is kept"),
        (errno.EROFS, "output 'hurt' cannot be written: Read-only file system; what is finished is kept"),
    ],
)
def test_a_full_or_read_only_disk_is_one_sentence_and_nothing_is_lost(
    rows: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    batch()
    synced, fsync = [], os.fsync

    def failing(file: int) -> None:
        synced.append(file)
        if len(synced) > 2:
            raise OSError(number, os.strerror(number))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert words in refuse("batch", "rows.jsonl", "--output", "hurt", *QUICK)
    batch("hurt")
    assert held("hurt") == held("out")


def test_a_folder_that_is_removed_meanwhile_is_one_sentence(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = work.make_together

    def removing(cascade, group):
        shutil.rmtree("out", ignore_errors=True)
        return make(cascade, group)

    monkeypatch.setattr(work, "make_together", removing)
    told = refuse("batch", "rows.jsonl", "--output", "out", *QUICK)
    assert "output 'out' was removed or emptied while the batch ran" in told
    assert not Path("out").exists()


def test_a_clock_that_is_set_back_changes_nothing(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch()
    hours = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1e9 - 3600 * next(hours))
        batch("earlier")
    assert held("earlier") == held("out")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "x", "stepz": 3}', "line 2: the column 'stepz' is not an option"),
        ('{"prompt": "x", "seed": -1}', "line 2: "),
        ('{"prompt": "x", "model": "sd"}', "the column 'model' is for the whole batch"),
        ('{"prompt": "x", "lora": "a"}', "the column 'lora' is for the whole batch"),
        ('{"prompt": " "}', "line 2: "),
        ('{"prompt": "x", "prompt": "y"}', "line 2: "),
        (
            '{"prompt": "x", "steps": 2, "num_inference_steps": 3}',
            "line 2: the columns say 'num_inference_steps' twice",
        ),
        ("[1]", "line 2: must be a JSON object"),
        ("{", "line 2: is not JSON"),
        ('{"prompt": "x", "method": "direct", "anchor": 0.5}', "line 2: "),
        ('{"prompt": "x", "method": "magic"}', "line 2: "),
    ],
)
def test_a_bad_row_is_named_by_its_line_before_anything_is_made(workplace: Path, line: str, words: str) -> None:
    Path("rows.jsonl").write_text('{"prompt": "a"}\n' + line + "\n")
    assert words in refuse("batch", "rows.jsonl", "--output", "out", *QUICK)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rows.doc", "a", "prompts must be a file that ends in"),
        ("rows.txt", "\n\n", "has no rows"),
        ("rows.csv", "prompt,prompt\na,b\n", "the column 'prompt' twice"),
        ("rows.csv", 'prompt\n"a\n', "is not CSV"),
        ("rows.csv", "prompt,seed\na\n", "has 1 cells, and the header 2"),
        ("rows.parquet", "PAR1", "parquet"),
    ],
)
def test_a_bad_file_is_refused(workplace: Path, name: str, text: str, words: str) -> None:
    Path(name).write_text(text)
    assert words in refuse("batch", name, "--output", "out", *QUICK)
    assert not Path("out").exists()


def test_another_command_or_file_does_not_go_on(rows: Path) -> None:
    batch()
    before = held("out")
    command = ["batch", "rows.jsonl", "--output", "out", *QUICK]
    assert "energy is 0.5 and was none" in refuse(*command, "--energy", "0.5").lower()
    assert "rows_per_shard" in refuse(*command, "--rows-per-shard", "3")
    with Path("rows.jsonl").open("a") as file:
        file.write('{"prompt": "more"}\n')
    assert "other prompts" in refuse(*command)
    Path("taken").mkdir()
    Path("taken/letter.txt").write_text("mine")
    assert "holds other files than a batch" in refuse("batch", "rows.jsonl", "--output", "taken", *QUICK)
    assert "--part must be K/N" in refuse("batch", "rows.jsonl", "--output", "new", *QUICK, "--part", "2/2")
    assert held("out") == before and not Path("new").exists()


def cells(lines: list[str]) -> list[list[str]]:
    """The rows of a table that was printed."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]


def test_a_dry_run_counts_rows_and_what_they_cost_and_writes_nothing(rows: Path, quick_model: str) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps({"prompt": "a", "scale": 1 + n % 2}) + "\n" for n in range(5)))
    command = ["--model", quick_model, "--steps", "2", "--rows-per-shard", "2"]
    result = run("batch", "rows.jsonl", "--output", "out", *command, "--dry-run")
    assert result.exit_code == 0 and not Path("out").exists()
    table = cells(result.stdout.splitlines())
    assert [(row[0], row[3], row[6]) for row in table] == [("3", "1.0", "1"), ("2", "2.0", "2")]
    assert "5 rows in 3 shards" in result.stderr
    total = float(result.stderr.split("the work: ")[1].split(" TFLOPs")[0])
    planned = [float(cells(succeed("plan", *command[:4], "--scale", str(scale)))[-1][4]) for scale in (1, 2)]
    assert total == pytest.approx(3 * planned[0] + 2 * planned[1], rel=0.02)  # as they are rounded


def test_a_dry_run_refuses_what_the_model_does_not_make(rows: Path) -> None:
    Path("rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "height": 8, "width": 8}\n')
    told = refuse("batch", "rows.jsonl", "--output", "out", "--model", "sd", "--dry-run")
    assert "line 2: target 8x8 is smaller than the native size 128x128" in told


def test_a_process_that_is_late_with_a_shard_of_files_does_not_lose_it(
    rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch("files", "--format", "files")
    before = held("files")
    plan = Plan.from_json(Path("files/plan.json").read_text(), "plan.json")
    late, rename = OutputFolder(Path("files"), plan), Path.rename
    late._unpack(0, set(), [[0], [1]])

    def overtaken(self: Path, target: str | Path) -> Path:
        moved = rename(self, target)
        if Path(target).name == "earlier":  # the other one has published the same, and now removes the parts
            shutil.rmtree("files/.parts/00000")
        return moved

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", overtaken)
        assert late.finish(0)
    late.close()
    assert held("files") == before and late.is_finished()


def test_what_a_kill_leaves_of_an_unpacked_shard_is_removed(rows: Path) -> None:
    batch("files", "--format", "files")
    before = held("files")
    Path("files/.parts/unpacked-x").mkdir()
    Path("files/.parts/unpacked-x/000000000.png").write_bytes(b"half")
    batch("files", "--format", "files")
    assert held("files") == before


def test_other_files_in_a_shard_of_files_neither_reopen_it_nor_get_lost(rows: Path) -> None:
    batch("files", "--format", "files")
    before = held("files")
    for name in (".DS_Store", "mine.txt"):
        Path(f"files/00000/{name}").write_text(name)
    plan = Plan.from_json(Path("files/plan.json").read_text(), "plan.json")
    folder = OutputFolder(Path("files"), plan)
    assert folder.is_finished()
    folder._unpack(0, set(), [[0], [1]])
    assert folder.finish(0)
    folder.close()
    for name in (".DS_Store", "mine.txt"):
        assert Path(f"files/00000/{name}").read_text() == name
        Path(f"files/00000/{name}").unlink()
    assert held("files") == before


def test_weights_that_are_offloaded_are_the_same_facts() -> None:
    cascade = SelfCascade(TINY["stable-diffusion"].build())
    cascade.pipe.unet.scale = torch.nn.Parameter(torch.ones(3))  # of the network itself, which then has two hooks
    facts = model_facts(cascade)
    cpu_offload(cascade.pipe.unet, torch.device("cpu"))
    assert next(cascade.pipe.unet.parameters()).is_meta
    assert model_facts(cascade) == facts
