"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny import TINY


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is cached of data goes where the tests' own files are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFCASCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    TINY["stable-diffusion"].build().save_pretrained(folder / "sd")
    TINY["animatediff"].build().save_pretrained(folder / "video")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the models in it, and nothing to be had from the Hub."""
    for model in models.iterdir():
        (tmp_path / model.name).symlink_to(model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELFCASCADE_DEBUG", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Forked processes have one thread, and sums of several come in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
