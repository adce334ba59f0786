"""Fixtures that several test modules share."""

import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import HookRegistry, group_offloading

from cascade_runs import QUICK
from selfcascade import load_bundled
from selfcascade.cost import timing
from tiny import TINY

COLLECTED_EVERY = 20.0  # seconds, at least
_collected = [0.0]
gc.disable()  # while all is imported, of which nothing is garbage


def pytest_collection_finish() -> None:
    """The libraries are there to stay: the garbage collector need not go over them again and again.

    Tests import more of them. So the oldest generation is collected seldom, and what survives is not looked at again.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 1_000_000)
    gc.enable()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Collects all garbage after each file of tests, unless that was done in the last seconds."""
    now = time.monotonic()
    if nextitem is None or item.path == nextitem.path or now - _collected[0] < COLLECTED_EVERY:
        return
    gc.collect()
    gc.freeze()
    _collected[0] = time.monotonic()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is cached of data goes where the tests' own files are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFCASCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _shortest_timing() -> Iterator[None]:
    """A plan times a network's smallest pass alone; tests of the timing itself give it more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TIMING_SECONDS", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _hooks_are_looked_for_where_there_are_any() -> Iterator[None]:
    """diffusers looks for offloading in every module whenever a pipeline's device is asked for.

    That is up to a fifth of a tiny pipeline's time. While no module has any hook of diffusers', there is none to find.
    """
    registries = weakref.WeakSet[HookRegistry]()
    find, begin = group_offloading._get_top_level_group_offload_hook, HookRegistry.__init__

    def noted(self: HookRegistry, module: torch.nn.Module) -> None:
        registries.add(self)
        begin(self, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HookRegistry, "__init__", noted)
        name = "_get_top_level_group_offload_hook"
        patch.setattr(group_offloading, name, lambda module: find(module) if registries else None)
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    TINY["stable-diffusion"].build().save_pretrained(folder / "sd")
    TINY["animatediff"].build().save_pretrained(folder / "video")
    return folder


@pytest.fixture(scope="session")
def bundled_pipe() -> Any:
    """The bundled image model, for tests that leave it as it was: it takes most of a second to load."""
    pipe = load_bundled()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model of 64 pixels, as the bundled one, in a fraction of its time."""
    folder = tmp_path_factory.mktemp("quick")
    QUICK.build().save_pretrained(folder)
    return str(folder)


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
