"""Several processes of one group, forked, so that nothing is imported again."""

import os
import pickle
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState


def forked(work: Callable[[], Any], environment: Mapping[str, str] | None = None) -> Callable[[], Any]:
    """Starts `work` in a process of its own; call what is returned for its result, or the error that it ended with."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reader)
            os.environ.update(environment or {})
            torch.set_num_threads(1)
            GradientState._reset_state()
            AcceleratorState._reset_state(reset_partial_state=True)
            result = pickle.dumps((work(), ""))
        except BaseException:
            result = pickle.dumps((None, traceback.format_exc()))
        with os.fdopen(writer, "wb") as file:
            file.write(result)
        os._exit(0)
    os.close(writer)

    def wait() -> Any:
        with os.fdopen(reader, "rb") as file:
            data = file.read()
        os.waitpid(process, 0)
        value, error = pickle.loads(data) if data else (None, "killed")
        assert not error, error
        return value

    return wait


def in_processes(work: Callable[[int], Any], count: int = 2, **environment: str) -> list[Any]:
    """What `work` returns in each of so many processes on CPUs, given its index, as torchrun would start them."""
    place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared = {key: str(value) for key, value in place.items()} | {"OMP_NUM_THREADS": "1"} | environment
    waits = [
        forked(lambda rank=rank: work(rank), {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    return [wait() for wait in waits]


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
