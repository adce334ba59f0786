"""A lock that lets only one run write a folder. It names its owner, and is released when the owner dies.

The kernel holds it (`flock`), and releases it however the owner ends. The file names the owner, for messages and for
file systems that share files between machines but not their locks.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import psutil

from selfcascade.processes.errors import LockedError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".selfcascade.lock"


@dataclass(frozen=True)
class Owner:
    """A process, identified uniquely across machines and time.

    Attributes:
        host: Name of the machine.
        machine, boot: Identifiers of the machine and of its boot, since names are not unique.
        pid: Number of the process.
        started: Start time in the kernel's own count, which does not depend on the clock.
        since: When the lock was taken, for messages.
    """

    host: str
    machine: str
    boot: str
    pid: int
    started: str
    since: str

    @classmethod
    def this(cls) -> Owner:
        """The current process."""
        machine, boot = (_line(f"/{place}") for place in ("etc/machine-id", "proc/sys/kernel/random/boot_id"))
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(platform.node(), machine, boot, os.getpid(), _start_of(os.getpid()), now)

    def shares_kernel_with(self, other: Owner) -> bool:
        """Whether one kernel runs both, and so knows both their locks; its containers have different host names."""
        return self.boot == other.boot and (bool(self.boot) or self.host == other.host)

    def is_gone(self, here: Owner) -> bool | None:
        """Whether the process has ended; None if this machine cannot tell."""
        if self.shares_kernel_with(here):
            return self.host == here.host and not (psutil.pid_exists(self.pid) and _start_of(self.pid) == self.started)
        # The same machine was restarted since.
        return True if (self.host, self.machine) == (here.host, here.machine) and self.machine else None


class OutputLock:
    """Lets only this process write into a folder, within this context; it may be entered again by its owner.

    Args:
        folder: The folder, made if it is missing.
        name: Name of the lock's file.
        what: Name of the folder in messages.

    Raises:
        LockedError: On entering, another process holds the lock, or may hold it.
        ValueError: On entering, the folder cannot be written.
    """

    _held: ClassVar[dict[str, tuple[int, int]]] = {}  # by path: the open file, and how often it was taken

    def __init__(self, folder: Path, name: str = NAME, what: str = "output_dir") -> None:
        self.folder, self.what = folder, what
        self.path, self._made = Path(os.path.realpath(folder)) / name, False

    def __enter__(self) -> Self:
        key = str(self.path)
        handle, times = self._held.get(key) or (self._taken(), 0)
        self._held[key] = handle, times + 1
        return self

    def __exit__(self, *_: object) -> None:
        handle, times = self._held[str(self.path)]
        if times > 1:
            self._held[str(self.path)] = handle, times - 1
            return
        del self._held[str(self.path)]
        with suppress(OSError):  # the folder may have been removed, or made again by another run
            if os.path.samestat(self.path.stat(), os.fstat(handle)):
                self.path.unlink()
                if self._made:  # and it is still empty
                    self.path.parent.rmdir()
        os.close(handle)

    def _taken(self) -> int:
        try:
            self._made = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    self._take(handle)
                    if self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(handle)):
                        return handle
                except BaseException:
                    os.close(handle)
                    raise
                os.close(handle)  # its last owner has just removed it
        except OSError as error:
            words = error.strerror or error
            raise ValueError(f"{self.what} {str(self.folder)!r} cannot be written: {words}") from error

    def _take(self, handle: int) -> None:
        here, known = Owner.this(), True
        try:
            if fcntl is None:
                known = False
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal(_read(handle), None) from None
        except OSError:  # the file system has no locks
            known = False
        owner = _read(handle)
        if owner is not None and owner != here:
            # If one kernel runs both, taking the lock proves that its owner is gone.
            gone = True if known and owner.shares_kernel_with(here) else owner.is_gone(here)
            if not gone:
                raise self._refusal(owner, gone)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(here)).encode(), 0)

    def _refusal(self, owner: Owner | None, gone: bool | None) -> LockedError:
        who = "another process" if owner is None else f"process {owner.pid} on {owner.host} since {owner.since}"
        remedy = "wait until it has ended, or give another folder"
        if owner is not None and not owner.shares_kernel_with(Owner.this()):
            remedy = f"if that process has ended, remove {str(self.path)!r}"
        return LockedError(f"{self.what} {str(self.folder)!r} is being written by {who}; {remedy}")


def _let_go() -> None:
    """Makes forked children release the lock, so that it ends with its owner."""
    for handle, _ in OutputLock._held.values():
        with suppress(OSError):
            os.close(handle)
    OutputLock._held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _read(handle: int) -> Owner | None:
    """The owner named in a lock's file, if any."""
    try:
        return Owner(**json.loads(os.pread(handle, 10_000, 0)))
    except (ValueError, TypeError):
        return None


def _start_of(pid: int) -> str:
    stat = _line(f"/proc/{pid}/stat")
    if stat:
        return stat.rpartition(")")[2].split()[19]  # `starttime` of proc(5), counted behind the name
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def _line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
