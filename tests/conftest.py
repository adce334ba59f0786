"""Fixtures that several test modules share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cascade_runs import QUICK
from selfcascade.cost import timing
from tiny import TINY


def pytest_collection_finish() -> None:
    """The libraries are there to stay: the garbage collector need not go over them again and again."""
    gc.freeze()


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


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model of 64 pixels, as the bundled one, in a fraction of its time."""
    folder = tmp_path_factory.mktemp("quick")
    QUICK.build().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def shortest_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of the smallest shape is all that is timed."""
    monkeypatch.setattr(timing, "TIMING_SECONDS", 0.0)


@pytest.fixture
def workplace(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, shortest_timing: None) -> Path:
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
