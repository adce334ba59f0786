"""Addresses of remote files are refused without their secrets, and the remedy works."""

from pathlib import Path

import fsspec
import pytest

from command_line import refuse
from selfcascade.cascade import Size
from selfcascade.data import DataError, open_source
from selfcascade.options.addresses import masked
from test_batch import batch, rows

__all__ = ["rows"]
SECRETS = {
    "s3://key:secret@bucket/*.tar": "s3://***@bucket/*.tar",
    "https://host/a.tar?X-Amz-Signature=secret": "https://host/a.tar?***",
    "hf://datasets/owner/name/a.tar": "hf://datasets/owner/name/a.tar",
    "https://host/a.tar#secret": "https://host/a.tar#***",
    "C:/data/a.tar": "C:/data/a.tar",
    "data/a@b.tar": "data/a@b.tar",
}


@pytest.mark.parametrize("text", SECRETS)
def test_an_address_is_told_without_its_secrets(text: str) -> None:
    assert masked(text) == SECRETS[text]


@pytest.mark.parametrize("option", ["train_data", "validation_data", "data"])
def test_an_address_of_data_is_refused(option: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source("s3://key:secret@bucket/*.tar", Size(64, 64), option=option)
    assert str(caught.value).startswith(f"{option} 's3://***@bucket/*.tar' is an address, and only files of this")


def test_commands_refuse_addresses_and_keep_their_secrets(workplace: Path) -> None:
    given, place = "s3://key:secret@bucket/a.jsonl?token=secret", "'s3://***@bucket/a.jsonl?***' is an address"
    Path("rows.txt").write_text("a house\n")
    Path("suite").mkdir()
    for command in (
        ["batch", given, "--output", "out"],
        ["batch", "rows.txt", "--output", given],
        ["evaluate", "suite", "--data", given],
        ["evaluate", "suite", "--train-data", given],
        ["evaluate", "suite", "--detector", f"inception:{given}"],
        ["train", "--train_data", given, "--output_dir", "run"],
    ):
        told = refuse(*command)
        assert place in told and "secret" not in told and "key" not in told
    assert sorted(path.name for path in Path().iterdir()) == ["rows.txt", "sd", "suite", "video"]


def test_shards_that_are_copied_by_fsspec_are_read(rows: Path) -> None:
    batch()
    disk, folder = fsspec.url_to_fs("memory://shards")
    disk.put("out/*.tar", f"{folder}/")
    disk, pattern = fsspec.url_to_fs("memory://shards/*.tar")
    disk.get(pattern, "shards/")
    assert len(open_source("shards/*.tar", Size(128, 128))) == 3
