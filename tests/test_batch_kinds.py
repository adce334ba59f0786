"""`selfcascade batch` from Parquet and with clips; what it writes is read as data."""

import importlib.util
import json
from pathlib import Path

import pytest

from clip_score import tiny_clip_score
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


def test_evaluate_and_train_read_the_shards(workplace: Path, one_thread: None, quick_model: str) -> None:
    prompts = [f"a house, number {number}" for number in range(8)]
    Path("rows.txt").write_text("\n".join(prompts))
    size = ["--model", quick_model, "--steps", "2", "--scale", "2"]
    succeed("batch", "rows.txt", "--output", "out", *size, "--rows-per-shard", "3")
    assert len(list(Path("out").glob("*.tar"))) == 3
    clip = tiny_clip_score()
    clip.model.save_pretrained("clip")
    clip.tokenizer.save_pretrained("clip")
    Path("suite").mkdir()
    Path("suite/own.json").write_text(json.dumps({"model": quick_model, "samplings": {"base": {"method": "lanczos"}}}))
    counts = ["--pictures", "3", "--real-pictures", "8", "--steps", "1", "--detector", "clip:clip"]
    places = ["--output", "results", "--runs", "runs"]
    succeed("evaluate", "suite", "--data", "out/*.tar", *counts, *places)
    (path,) = Path("results").rglob("base-step000000-n3.json")
    found = json.loads(path.read_text())
    assert found["pictures"] == 3 and (found["sampling"]["height"], found["fid"][0] > 0) == (128, True)
    words = path.with_name("base-step000000.txt").read_text().splitlines()
    assert len(words) == 3 and set(words) <= set(prompts)
    given = ["--resolution", "128", "--max_train_steps", "1", "--train_batch_size", "2", "--rank", "2"]
    succeed("train", "--method", "lora", "--train_data", "out", "--model", quick_model, "--output_dir", "run", *given)
    assert list(Path("run").glob("*.safetensors"))
    assert [json.loads(line)["step"] for line in Path("run/curve.jsonl").read_text().splitlines()] == [1]
