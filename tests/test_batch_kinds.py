"""`selfcascade batch` from Parquet and with clips; what it writes is read as data."""

import importlib.util
import json
from pathlib import Path

import pytest

from command_line import succeed
from selfcascade.media.video_files import probe_clip
from test_batch import QUICK, ROWS, members

CLIPS = ["--model", "video", "--steps", "2", "--height", "64", "--width", "64"]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_makes_what_json_lines_make(workplace: Path, one_thread: None) -> None:
    import pyarrow
    import pyarrow.parquet

    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    names = dict.fromkeys(name for row in ROWS for name in row)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**names, **row} for row in ROWS]), "rows.parquet")
    succeed("batch", "rows.jsonl", "--output", "a", *QUICK)
    succeed("batch", "rows.parquet", "--output", "b", *QUICK)
    assert members("a") == members("b")


def test_rows_of_a_video_model_are_clips_of_their_own_length(workplace: Path, one_thread: None) -> None:
    rows = [
        {"prompt": "a", "frames": 4, "fps": 4},
        {"prompt": "b", "frames": 4, "fps": 4},
        {"prompt": "c", "frames": 3},
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    succeed("batch", "rows.jsonl", "--output", "out", *CLIPS, "--batch-size", "2", "--format", "files")
    records = [json.loads(Path(f"out/00000/{row:09}.json").read_text()) for row in range(3)]
    assert [record["result"]["frames"] for record in records] == [4, 4, 3]
    assert [record["result"]["fps"] for record in records] == [4, 4, 8]
    assert [record["settings"]["seed"] for record in records] == [0, 1, 2]
    assert [probe_clip(Path(f"out/00000/{row:09}.mp4")).frames for row in range(3)] == [4, 4, 3]
