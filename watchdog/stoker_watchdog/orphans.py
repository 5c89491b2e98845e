"""What functions started and left behind: finds it, and ends it.

The fork server is the reaper of everything below it: a process that loses its parent becomes its child, whatever group
or session it has moved to. So what outlives its replica is found among the fork server's own children. What an earlier
fork server of the same run folder left is known by that folder's name in its environment, which children inherit.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36
_SECONDS = 5.0
_MAX_ENVIRONMENT = 1 << 20


class StillThere(Exception):
    """Processes that do not end, though they were killed."""


def become_reaper() -> None:
    """From now on a process below this one that loses its parent becomes our child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def own_children() -> list[int]:
    """The pids of this process's children, ended ones that nobody waited for included."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: what left its group lives until the next start


def has_ended(child: int) -> bool:
    """Whether a child has ended; its place in the process table is then free."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def user_of(pid: int) -> int:
    """The user id that a process runs under, -1 when there is no such process."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def variable_of(pid: int, name: bytes) -> bytes | None:
    """A variable that a process was started with; None when it has none, or may not be read.

    Replicas inherit our memory, and one process's environment is no other's business: so it is read into a buffer of
    its own, and wiped.
    """
    buffer = bytearray(_MAX_ENVIRONMENT)
    size = 0
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.readv(descriptor, [buffer])
        return _value_in(buffer, size, name)
    except OSError:
        return None
    finally:
        os.close(descriptor)
        buffer[:size] = bytes(size)


def _value_in(buffer: bytearray, size: int, name: bytes) -> bytes | None:
    start = 0
    while start < size:
        if buffer.startswith(name + b"=", start):
            begin = start + len(name) + 1
            return bytes(buffer[begin : buffer.find(0, begin)])
        start = buffer.find(0, start) + 1
    return None


def sweep(name: str, value: str) -> None:
    """End every other process that was started with the variable. Raises `StillThere`."""
    deadline = time.monotonic() + _SECONDS
    while pids := list(_marked(name.encode(), value.encode())):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise StillThere(f"processes of an earlier server do not end: {pids}; end them by hand and start again")
        time.sleep(0.005)


def _marked(name: bytes, value: bytes) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            pid = int(entry)
            if variable_of(pid, name) == value and not _is_zombie(pid):
                yield pid


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
