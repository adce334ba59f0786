"""Makes values ahead of time, in a thread or in processes, without changing their order."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from selfcascade.data.examples import DataError

P = TypeVar("P")
T = TypeVar("T")


def in_order(make: Callable[[P], T], places: Iterable[P], workers: int = 0) -> Iterator[tuple[P, T]]:
    """Each place with its result of `make`, in order.

    Args:
        make: A function that depends on the place only.
        places: The places, possibly without end; some are taken in advance.
        workers: Number of processes that work ahead; 0 for none.

    Raises:
        DataError: A process was killed.
    """
    if workers == 0:
        yield from ((place, make(place)) for place in places)
        return
    asked, given = itertools.tee(places)
    # Rows are plain arrays, which go through a pipe: shared memory is scarce in containers.
    loader = DataLoader(
        _Made(make), batch_size=None, sampler=_Places(asked), num_workers=workers, collate_fn=_same, prefetch_factor=4
    )
    try:
        yield from zip(given, loader, strict=False)
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise DataError(f"a process that decodes was killed, as happens where memory runs out: {error}") from error


class _Made(Dataset[Any]):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __getitem__(self, place: Any) -> Any:
        return self.make(place)


class _Places:
    """The places, as a sampler for a data loader."""

    def __init__(self, places: Iterable[Any]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[Any]:
        return iter(self.places)


def _same(value: T) -> T:
    return value


def prefetched(batches: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same batches in the same order, made ahead in a thread; an error is raised in place of its batch.

    Args:
        batches: Any iterator that nothing else uses.
        depth: Largest number of waiting batches.
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, name="selfcascade-data", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
