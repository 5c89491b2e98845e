"""One process that runs for a call: its output is handed over as it comes, then its end, exactly once.

The end is that of the process that was started. What it has started itself and left behind is killed then, with its
group; whatever still holds the pipes is not waited for.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from stoker_watchdog.children import end_group

_READ = 256 * 1024
_PIPE = 1024 * 1024

LIVING: set[int] = set()
"""The pids that are waited for here."""


class ProcessOwner(Protocol):
    """Who started a process. All calls come from the loop."""

    def output(self, data: bytes) -> None:
        """A piece of its standard output."""

    def error_output(self, data: bytes) -> None:
        """A piece of its standard error."""

    def exited(self, status: int) -> None:
        """It has ended, with this wait status; everything it wrote has been handed over."""


class Process:
    """Takes over the reading ends of the pipes (`err` is -1 without one), which it makes non-blocking and closes."""

    __slots__ = ("_err", "_held", "_loop", "_out", "_owner", "_pidfd", "pid")

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int, out: int, err: int, owner: ProcessOwner) -> None:
        self._loop = loop
        self._owner = owner
        self._out = out
        self._err = err
        self._held = False
        self.pid = pid
        LIVING.add(pid)
        self._pidfd = os.pidfd_open(pid)
        os.set_blocking(out, False)
        loop.add_reader(out, self._read_out)
        if err >= 0:
            os.set_blocking(err, False)
            loop.add_reader(err, self._read_err)
        loop.add_reader(self._pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    def hold(self) -> None:
        """Read no more of its output for now; the pipe fills, and the process waits."""
        if not self._held and self._out >= 0:
            self._held = True
            self._loop.remove_reader(self._out)

    def release(self) -> None:
        if self._held and self._out >= 0:
            self._loop.add_reader(self._out, self._read_out)
        self._held = False

    def kill(self) -> None:
        """End it and all of its group. `exited` follows."""
        if self._pidfd >= 0:
            end_group(self.pid)

    def _read_out(self) -> None:
        data = _read(self._out)
        if data:
            self._owner.output(data)
        elif data is not None:
            self._out = self._close(self._out)

    def _read_err(self) -> None:
        data = _read(self._err)
        if data:
            self._owner.error_output(data)
        elif data is not None:
            self._err = self._close(self._err)

    def _close(self, descriptor: int) -> int:
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        return -1

    def _reap(self) -> None:
        end_group(self.pid)  # before its pid can be anybody else's
        self._pidfd = self._close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        LIVING.discard(self.pid)
        self._hand_over_rest()
        self._out, self._err = self._close(self._out), self._close(self._err)
        owner, self._owner = self._owner, _NOBODY
        owner.exited(status)

    def _hand_over_rest(self) -> None:
        """What is left in the pipes, and no more than they can hold: another process may write on for ever."""
        left = _PIPE
        while self._out >= 0 and left > 0 and (data := _read(self._out)):
            left -= len(data)
            self._owner.output(data)
        left = _PIPE
        while self._err >= 0 and left > 0 and (data := _read(self._err)):
            left -= len(data)
            self._owner.error_output(data)


class _Nobody:
    def output(self, data: bytes) -> None: ...
    def error_output(self, data: bytes) -> None: ...
    def exited(self, status: int) -> None: ...


_NOBODY = _Nobody()


def _read(descriptor: int) -> bytes | None:
    """What is there; nothing at the end of the pipe; None when nothing is there yet."""
    try:
        return os.read(descriptor, _READ)
    except BlockingIOError:
        return None
