"""A group of processes that work on one batch, like torchrun's, one of which dies at a given moment."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tarfile
import time
from collections.abc import Callable
from typing import Any

PART, SHARD = "within a part", "within a shard"


class Group:
    """Processes that work on one batch, forked so that nothing is imported again.

    Args:
        command: Arguments of `selfcascade`.
        count: Number of processes.
        place, member: Kind of tar file, `PART` or `SHARD`, and number of files written to it, at which a process kills
            itself; the others may do so too until they are killed.
    """

    def __init__(self, command: list[str], count: int, place: str = "", member: int = 0) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        shared = {**meeting, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)} if count > 1 else {}
        self.left: dict[int, int] = {}
        self.codes: dict[int, int] = {}
        for rank in range(count):
            process = os.fork()
            if process == 0:
                os.environ.update({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {})
                _work(command, place, member)
            self.left[rank] = process

    def poll(self) -> bool:
        """Whether all have ended."""
        for rank, process in list(self.left.items()):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
                del self.left[rank]
        return not self.left

    def kill(self, rank: int) -> None:
        """`kill -9`."""
        if rank in self.left:
            os.kill(self.left[rank], signal.SIGKILL)

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Whether all have ended within this time, or before `until` holds."""
        end = time.monotonic() + seconds
        while not self.poll() and time.monotonic() < end and not until():
            time.sleep(0.01)
        return not self.left


def _work(command: list[str], place: str, member: int) -> None:
    from selfcascade.cli import main

    log = os.open(f"{command[3]}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if place:
        add = tarfile.TarFile.addfile

        def addfile(self: tarfile.TarFile, info: tarfile.TarInfo, content: Any = None) -> None:
            add(self, info, content)
            file: Any = self.fileobj
            if len(self.getmembers()) == member and (".parts" in file.name) == (place == PART):
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        tarfile.TarFile.addfile = addfile
    sys.argv = ["selfcascade", *command]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
